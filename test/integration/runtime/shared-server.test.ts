// Two sidecars with an empty environment and no NATS: one server, which may die without anyone being restarted.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  eventually,
  freePort,
  grpcClient,
  natsServerBinary,
  startApp,
  startNats,
  startSidecar,
  tempHome,
} from "../../kit/index.ts";
import { nativeComponents, ordersSubscription } from "./resources.ts";

type Record = { readonly pid: number; readonly port: number };

test("they share one server and survive kill -9 of it without a restart or a lost acknowledgement", async () => {
  // Ends the shared server too, which outlives its sidecars on purpose.
  await using folder = tempHome();
  const natsPort = await freePort();
  const common = {
    nats: "find",
    bareEnv: true,
    home: folder.path,
    flags: [
      `--weft-home=${folder.path}`,
      `--nats-port=${natsPort}`,
      `--nats-server=${await natsServerBinary()}`,
    ],
  } as const;
  await using app = await startApp({ fallback: () => ({ body: "pong" }) });
  const resources = { "components.yaml": nativeComponents };
  const [first, second] = await Promise.all([
    startSidecar({ ...common, appId: "first", resources }),
    startSidecar({
      ...common,
      appId: "second",
      appPort: app.port,
      resources: { ...resources, "orders.yaml": ordersSubscription },
    }),
  ]);
  await using _first = first;
  await using _second = second;
  const record = (): Record =>
    JSON.parse(readFileSync(join(folder.path, "nats", "server.json"), "utf8")) as Record;
  const before = record();
  expect(before.port).toBe(natsPort);
  const ways = [first, second].map(
    (sidecar) => /(started|joined) the shared nats-server/.exec(sidecar.logs())?.[1],
  );
  expect(new Set(ways)).toEqual(new Set(["joined", "started"]));
  expect((await first.get("/v1.0/invoke/second/method/ping")).text).toBe("pong");

  expect((await first.post("/v1.0/state/statestore", [{ key: "kept", value: 1 }])).status).toBe(204);
  process.kill(before.pid, "SIGKILL");
  // Health tells the truth while it is away; the processes stay.
  await first.logged(/NATS is away: lost/);
  const acked = (async () => {
    // Published into the outage: answered when the server is back, and then it must arrive.
    const answer = await first.post("/v1.0/publish/pubsub/orders", { order: 7 });
    return answer.status;
  })();
  await eventually(async () => expect((await first.get("/v1.0/healthz")).status).toBe(204), {
    timeoutMs: 40_000,
  });
  await eventually(async () => expect((await second.get("/v1.0/healthz")).status).toBe(204), {
    timeoutMs: 40_000,
  });
  const after = record();
  expect(after.pid).not.toBe(before.pid);
  expect(after.port).toBe(natsPort);
  expect(first.running() && second.running()).toBe(true);
  expect((await first.get("/v1.0/state/statestore/kept")).text).toBe("1");
  expect((await first.get("/v1.0/invoke/second/method/ping")).text).toBe("pong");
  expect(await acked).toBe(204);
  const [event] = await app.received("/orders", 1, 20_000);
  expect(event!.json<{ data: unknown }>().data).toEqual({ order: 7 });
});

test("clients are not told where NATS is that was lost; the log says it", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({
    appId: "alone",
    nats,
    resources: { "c.yaml": nativeComponents },
  });
  const { port } = nats;
  await nats.kill();
  await sidecar.logged(new RegExp(`NATS is away: lost .*:${port}`));
  using client = grpcClient(sidecar.grpcPort);
  const answers = await Promise.all([
    sidecar.get("/v1.0/invoke/other/method/x").then(({ text }) => text),
    client.unary(Dapr.method.invokeService, { id: "other", message: { method: "m" } }).catch(String),
  ]);
  for (const answer of answers) {
    expect(answer).toContain("NATS is away");
    expect(answer).not.toContain(String(port));
  }
});

test("health is 500 with NATS named while it is away, and the API still answers", async () => {
  const port = await freePort();
  await using sidecar = await startSidecar({
    appId: "alone",
    nats: { url: `nats://127.0.0.1:${port}` },
    wait: "none",
  });
  const health = await eventually(() => sidecar.get("/v1.0/healthz"), { timeoutMs: 30_000 });
  expect(health.status).toBe(500);
  expect(health.json()).toMatchObject({
    errorCode: "ERR_HEALTH_NOT_READY",
    message: expect.stringContaining("nats"),
  });
  expect((await sidecar.get("/v1.0/healthz/outbound")).json()).toMatchObject({
    errorCode: "ERR_OUTBOUND_HEALTH_NOT_READY",
  });
  expect((await sidecar.get("/v1.0/metadata")).status).toBe(200);
  const invoke = await sidecar.get("/v1.0/invoke/other/method/x");
  expect(invoke.status).toBe(500);
  expect(invoke.json()).toMatchObject({ message: expect.stringContaining("NATS is away") });
  expect(await sidecar.stop()).toBe(0);
});
