// Two apps on one NATS: what they share, what they do not, and that plain NATS tools see the same data.
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Nats, type Sidecar, startNats, startSidecar } from "../../kit/index.ts";
import { stateComponent } from "./resources.ts";

let nats: Nats;
let shop: Sidecar;
let depot: Sidecar;

beforeAll(async () => {
  nats = await startNats();
  const resources = {
    "own.yaml": stateComponent("own", "state.nats"),
    "shared.yaml": stateComponent("shared", "state.nats", { keyPrefix: "name" }),
    "memory.yaml": stateComponent("memory", "state.in-memory", { keyPrefix: "none" }),
  };
  [shop, depot] = await Promise.all([
    startSidecar({ appId: "shop", nats, resources }),
    startSidecar({ appId: "depot", nats, resources }),
  ]);
});

afterAll(async () => {
  await shop?.[Symbol.asyncDispose]();
  await depot?.[Symbol.asyncDispose]();
  await nats?.[Symbol.asyncDispose]();
});

test("apps have their own keys by default", async () => {
  await shop.post("/v1.0/state/own", [{ key: "k", value: "of shop" }]);
  expect((await depot.get("/v1.0/state/own/k")).status).toBe(204);
  expect((await shop.get("/v1.0/state/own/k")).text).toBe('"of shop"');
});

test("apps share keys under the name of the store", async () => {
  await shop.post("/v1.0/state/shared", [{ key: "k", value: "of all" }]);
  expect((await depot.get("/v1.0/state/shared/k")).text).toBe('"of all"');
});

test("what is in memory stays in its sidecar", async () => {
  await shop.post("/v1.0/state/memory", [{ key: "k", value: 1 }]);
  expect((await depot.get("/v1.0/state/memory/k")).status).toBe(204);
});

test("two apps count exactly with ETags", async () => {
  const path = "/v1.0/state/shared";
  await shop.post(path, [{ key: "count", value: 0 }]);
  const increment = async (sidecar: Sidecar): Promise<void> => {
    for (let tries = 0; tries < 500; tries++) {
      const found = await sidecar.get(`${path}/count?consistency=strong`);
      const item = { key: "count", value: found.json<number>() + 1, etag: String(found.headers["etag"]) };
      const saved = await sidecar.post(path, [item]);
      if (saved.status === 204) return;
      expect(saved.status).toBe(409);
    }
    throw new Error("no luck in 500 tries");
  };
  await Promise.all(Array.from({ length: 10 }, (_, index) => increment(index % 2 === 0 ? shop : depot)));
  expect((await depot.get(`${path}/count`)).text).toBe("10");
});

test("plain NATS reads and writes the same keys", async () => {
  await shop.post("/v1.0/state/own", [{ key: "order.7", value: { total: 1 } }]);
  const client = await nats.connect();
  const bucket = "weft__state__default__own";
  const subject = `$KV.${bucket}.shop.order=2E7`;
  const stored = await client.request(`$JS.API.DIRECT.GET.KV_${bucket}.${subject}`, "", {
    timeout: 10_000,
  });
  expect(stored.string()).toBe('{"total":1}');
  await client.request(subject, '{"total":2}', { timeout: 10_000 });
  expect((await shop.get("/v1.0/state/own/order.7")).text).toBe('{"total":2}');
});
