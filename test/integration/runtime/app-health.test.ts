// App health checks: an ill app gets no calls and no events, its replicas get them, and it comes back.
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  eventually,
  grpcClient,
  grpcStatus,
  startApp,
  startGrpcApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import type { App, AppHandler, Sidecar } from "../../kit/index.ts";
import { pubsubComponent } from "../pubsub/resources.ts";
import { nativeComponents } from "./resources.ts";

const checked = ["--enable-app-health-check=true", "--app-health-check-path=/health", "--log-level=debug"];
const checks = [...checked, "--app-health-probe-interval=1", "--app-health-threshold=2"];
/** A few failures more: an app that is to stay well may stand still for a while. */
const patientChecks = [
  ...checked,
  "--app-health-probe-interval=5",
  "--app-health-threshold=4",
  "--app-health-probe-timeout=4000",
];
const resources = { "c.yaml": nativeComponents };
const channel = "rpc error: code = Internal desc = error invoking app channel:";
const notHealthy = "rpc error: code = Internal desc = app is not in a healthy state";

/** What a caller of another app gets while all its instances are ill. */
function remotely(app: string): string {
  const message = `failed to invoke, id: ${app}, err: ${channel} ${notHealthy}`;
  return `{"errorCode":"ERR_DIRECT_INVOKE","message":"${message}"}`;
}

type Patient = App & { well: boolean; asked: number };

/** An app with a health path, one subscription, and a name that its answers tell. */
async function startPatient(
  name: string,
  routes: Readonly<Record<string, AppHandler>> = {},
): Promise<Patient> {
  const state = { well: true, asked: 0 };
  const app = await startApp({
    routes: {
      "/health": () => ({ status: state.well ? 204 : 503 }),
      "/who": () => ({ body: name }),
      "/events": () => undefined,
      "/dapr/subscribe": () => {
        state.asked++;
        return { body: [{ pubsubname: "pubsub", topic: "t", route: "/events" }] };
      },
      ...routes,
    },
  });
  return Object.defineProperties(app, {
    well: {
      get: () => state.well,
      set(well: boolean) {
        state.well = well;
      },
    },
    asked: { get: () => state.asked },
  }) as Patient;
}

const patient = { timeoutMs: 20_000 };

/** Waits for this answer: an app that stood still meanwhile is ill until its next good probe. */
const answers = (sidecar: Sidecar, path: string, text: string): Promise<void> =>
  eventually(async () => expect((await sidecar.get(path)).text).toBe(text), patient);

const last = (logs: string): string | undefined => logs.match(/App entered [\w-]+ status/g)?.at(-1);

/** Waits until the app is withdrawn, whatever was before. */
const withdrawn = (sidecar: Sidecar): Promise<void> =>
  eventually(() => {
    const states = sidecar.logs().match(/App entered healthy status|the app is withdrawn/g);
    expect(states?.at(-1)).toBe("the app is withdrawn");
  }, patient);

test("an app gets nothing until its first good probe, though the sidecar is ready", async () => {
  await using nats = await startNats();
  await using app = await startPatient("a");
  app.well = false;
  await using sidecar = await startSidecar({ appId: "a", appPort: app.port, nats, resources, flags: checks });
  await using other = await startSidecar({ appId: "b", nats, resources });
  expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
  const message = `failed to invoke, id: a, err: ${notHealthy}`;
  expect(await sidecar.get("/v1.0/invoke/a/method/who")).toMatchObject({
    status: 500,
    text: `{"errorCode":"ERR_DIRECT_INVOKE","message":"${message}"}`,
  });
  using client = grpcClient(sidecar.grpcPort);
  const call = client.unary(Dapr.method.invokeService, {
    id: "a",
    message: { method: "who", httpExtension: { verb: 1 } },
  });
  await expect(call).rejects.toMatchObject({ code: 13, details: message });
  expect(await other.get("/v1.0/invoke/a/method/who")).toMatchObject({ status: 500, text: remotely("a") });
  expect(app.requestsTo("/who")).toEqual([]);
  expect(app.asked).toBe(0);
  app.well = true;
  await sidecar.logged(/App entered healthy status/);
  await sidecar.subscribed("t");
  await answers(other, "/v1.0/invoke/a/method/who", "a");
  expect(app.asked).toBe(1);
});

test("a sidecar that is ready has begun the subscriptions of an app that is well", async () => {
  await using nats = await startNats();
  await using app = await startPatient("a");
  // Keeps nothing for a subscriber that comes later.
  const memory = { "p.yaml": pubsubComponent("pubsub.in-memory") };
  for (let round = 1; round <= 5; round++) {
    await using sidecar = await startSidecar({
      appId: "a",
      appPort: app.port,
      nats,
      resources: memory,
      flags: patientChecks,
    });
    expect((await sidecar.post("/v1.0/publish/pubsub/t", {})).status).toBe(204);
    await app.received("/events", round);
  }
});

test("an ill app is withdrawn, its replica gets everything, calls in flight finish; then it is back", async () => {
  await using nats = await startNats();
  const release = Promise.withResolvers<void>();
  await using one = await startPatient("one", {
    "/slow": () => release.promise.then(() => ({ body: "one was slow" })),
  });
  const start = (appPort: number) => startSidecar({ appId: "a", appPort, nats, resources, flags: checks });
  await using first = await start(one.port);
  await first.subscribed("t");
  await using caller = await startSidecar({ appId: "caller", nats, resources });
  const slow = caller.http("/v1.0/invoke/a/method/slow", { timeoutMs: 100_000 });
  await one.received("/slow", 1);
  await using two = await startPatient("two", {
    "/slow": () => release.promise.then(() => ({ body: "two was slow" })),
  });
  await using second = await start(two.port);
  await second.subscribed("t");

  one.well = false;
  await withdrawn(first);
  expect(last(first.logs())).toBe("App entered un-healthy status");
  await eventually(async () => {
    const calls = Array.from({ length: 20 }, () => caller.get("/v1.0/invoke/a/method/who"));
    const names = (await Promise.all(calls)).map(({ text }) => text);
    expect(new Set(names)).toEqual(new Set(["two"]));
  }, patient);
  expect(one.requestsTo("/who")).toEqual([]);
  const before = one.requestsTo("/events").length;
  for (let n = 0; n < 10; n++) await caller.post("/v1.0/publish/pubsub/t", { n });
  await two.received("/events", 10, 20_000);
  expect(one.requestsTo("/events").length).toBe(before);
  release.resolve();
  expect((await slow).text).toBe("one was slow");

  two.well = false;
  await withdrawn(second);
  const nowhere = async (): Promise<void> => {
    expect(await caller.get("/v1.0/invoke/a/method/who")).toMatchObject({ status: 500, text: remotely("a") });
  };
  await eventually(nowhere, patient);
  using client = grpcClient(caller.grpcPort);
  const call = client.unary(Dapr.method.invokeService, {
    id: "a",
    message: { method: "who", httpExtension: { verb: 1 } },
  });
  await expect(call).rejects.toMatchObject({ code: 13, details: expect.stringContaining(notHealthy) });
  one.well = true;
  await expect.poll(() => last(first.logs()), { timeout: 20_000 }).toBe("App entered healthy status");
  await caller.post("/v1.0/publish/pubsub/t", { back: true });
  await one.received("/events", before + 1, 20_000);
  await answers(caller, "/v1.0/invoke/a/method/who", "one");
  expect(one.asked).toBe(1);
});

test("events of the time of illness come after it", async () => {
  await using nats = await startNats();
  await using app = await startPatient("a");
  await using sidecar = await startSidecar({ appId: "a", appPort: app.port, nats, resources, flags: checks });
  await sidecar.subscribed("t");
  app.well = false;
  await withdrawn(sidecar);
  for (let n = 0; n < 5; n++) {
    expect((await sidecar.post("/v1.0/publish/pubsub/t", { n })).status).toBe(204);
  }
  expect(app.requestsTo("/events")).toEqual([]);
  app.well = true;
  await app.received("/events", 5, 20_000);
  expect(app.asked).toBe(1);
});

test("a gRPC app is probed by its own method", async () => {
  await using nats = await startNats();
  let well = false;
  await using app = await startGrpcApp({
    onInvoke: () => ({ contentType: "text/plain", data: { value: Buffer.from("hello") } }),
    onHealthCheck: () => {
      if (!well) throw grpcStatus(14, "not now");
    },
    subscriptions: [{ pubsubName: "pubsub", topic: "t" }],
  });
  const options = { appId: "g", appPort: app.port, appProtocol: "grpc", nats, resources, flags: checks };
  await using sidecar = await startSidecar(options);
  await using caller = await startSidecar({ appId: "caller", nats, resources });
  expect((await sidecar.get("/v1.0/invoke/g/method/hi")).text).toContain(notHealthy);
  well = true;
  await sidecar.logged(/App entered healthy status/);
  await sidecar.subscribed("t");
  await answers(caller, "/v1.0/invoke/g/method/hi", "hello");
  well = false;
  await withdrawn(sidecar);
  await eventually(async () => {
    expect(await caller.get("/v1.0/invoke/g/method/hi")).toMatchObject({ status: 500, text: remotely("g") });
  }, patient);
  await caller.post("/v1.0/publish/pubsub/t", "late");
  expect(app.events).toEqual([]);
  well = true;
  await app.received(1, 20_000);
  await answers(caller, "/v1.0/invoke/g/method/hi", "hello");
});

test("an app that is gone, hangs or answers too slowly falls ill", async () => {
  await using nats = await startNats();
  await using app = await startPatient("a");
  await using sidecar = await startSidecar({ appId: "a", appPort: app.port, nats, resources, flags: checks });
  await sidecar.logged(/App entered healthy status/);
  for (const failure of ["hang", "refuse", "reset"] as const) {
    await app.fail(failure);
    await expect.poll(() => last(sidecar.logs()), { timeout: 20_000 }).toBe("App entered un-healthy status");
    await app.heal();
    await expect.poll(() => last(sidecar.logs()), { timeout: 20_000 }).toBe("App entered healthy status");
  }
  await answers(sidecar, "/v1.0/invoke/a/method/who", "a");
});
