// Many watches of one sidecar: their limit, slow clients among them, and stores that are exchanged below them.
import { request } from "undici";
import { expect, test } from "vitest";
import { StateExtensions, WatchEvent_Kind } from "../../../proto/gen/weft/runtime/v1/state_pb.ts";
import { grpcClient, startNats, startSidecar } from "../../kit/index.ts";
import { put } from "../reload/place.ts";
import { openEvents } from "./event-source.ts";
import { stateComponent } from "./resources.ts";

const { method } = StateExtensions;
const resources = { "store.yaml": stateComponent("store", "state.nats") };
const state = "/v1.0/state/store";
const api = "/v1.0-weft1/state/store";

test(
  "a thousand watches hear all, one more is refused, and places become free",
  { timeout: 180_000 },
  async () => {
    await using nats = await startNats();
    await using sidecar = await startSidecar({ appId: "shop", nats, resources });
    using grpc = grpcClient(sidecar.grpcPort);
    const url = `${sidecar.httpUrl}${api}/watch`;
    const streams = Array.from({ length: 500 }, () => grpc.stream(method.watch));
    for (const stream of streams) stream.send({ storeName: "store", target: { case: "prefix", value: "k" } });
    for (const stream of streams) expect(await stream.next()).toMatchObject({ kind: WatchEvent_Kind.READY });
    const events = [];
    for (let i = 0; i < 499; i++) events.push(await openEvents(`${url}?key=k${i % 3}`));
    for (const one of events) expect(await one.next()).toMatchObject({ event: "ready" });
    // Never read: the others hear everything all the same.
    const slow = await request(url);
    await using refused = await openEvents(url);
    expect([refused.status, refused.text]).toEqual([429, expect.stringContaining("1000")]);
    const values = "v".repeat(200_000);
    for (let i = 0; i < 3; i++)
      expect((await sidecar.post(state, [{ key: `k${i}`, value: `${i}${values}` }])).status).toBe(204);
    for (const [i, one] of events.entries())
      expect(await one.next()).toMatchObject({ event: "put", data: { key: `k${i % 3}` } });
    for (const stream of streams)
      for (let i = 0; i < 3; i++) {
        let event = await stream.next();
        while (event?.kind === WatchEvent_Kind.IDLE) event = await stream.next();
        expect(event).toMatchObject({ key: `k${i}` });
      }
    expect(sidecar.logs()).not.toContain("NATS is away");
    slow.body.on("error", () => {}).destroy();
    for (const one of events) await one[Symbol.asyncDispose]();
    await expect
      .poll(
        async () => {
          await using one = await openEvents(url);
          return one.status;
        },
        { timeout: 20_000 },
      )
      .toBe(200);
  },
);

test("a watch ends whole when its store is exchanged, and the next one goes on where it was", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  using grpc = grpcClient(sidecar.grpcPort);
  const stream = grpc.stream(method.watch);
  stream.send({ storeName: "store", target: { case: "key", value: "k" } });
  expect(await stream.next()).toMatchObject({ kind: WatchEvent_Kind.READY });
  const url = `${sidecar.httpUrl}${api}/watch`;
  await using events = await openEvents(url);
  const ready = await events.next();
  expect(ready).toMatchObject({ event: "ready" });
  put(sidecar, "store.yaml", stateComponent("store", "state.nats", { maxValueSize: "1000000" }));
  expect(await events.next()).toBeUndefined();
  await expect(stream.next()).rejects.toMatchObject({ code: 14 });
  expect((await sidecar.post(state, [{ key: "k", value: 1 }])).status).toBe(204);
  await using again = await openEvents(url, { "last-event-id": ready!.id });
  expect(await again.next()).toMatchObject({ event: "ready" });
  expect(await again.next()).toMatchObject({ event: "put", data: { key: "k", data: 1 } });
});
