// How a sidecar ends and begins again: held back, forced, for ever patient, during its start, and SIGHUP.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { eventually, grpcClient, httpClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { nativeComponents, ordersSubscription } from "./resources.ts";

const resources = { "c.yaml": nativeComponents, "s.yaml": ordersSubscription };

test("--dapr-block-shutdown-duration: events stop at the signal, all else works until the time is over", async () => {
  await using nats = await startNats();
  await using app = await startApp({ routes: { "/hi": () => ({ body: "hi" }), "/orders": () => undefined } });
  // All that follows has to happen before it is over.
  const flags = ["--dapr-block-shutdown-duration=12s"];
  await using held = await startSidecar({ appId: "held", appPort: app.port, nats, resources, flags });
  await using other = await startSidecar({ appId: "other", nats, resources });
  await held.subscribed("orders");
  await other.post("/v1.0/publish/pubsub/orders", { n: 1 });
  await app.received("/orders", 1);
  held.signal("SIGTERM");
  await held.logged(/Blocking graceful shutdown for 12s or until the app reports unhealthy/);
  expect(await held.get("/v1.0/healthz")).toMatchObject({
    status: 500,
    text: '{"errorCode":"ERR_HEALTH_NOT_READY","message":"dapr is not ready: [security-provider]"}',
  });
  expect((await held.get("/v1.0/healthz/outbound")).status).toBe(204);
  expect((await held.post("/v1.0/publish/pubsub/orders", { n: 2 })).status).toBe(204);
  expect((await held.post("/v1.0/state/statestore", [{ key: "k", value: 1 }])).status).toBe(204);
  expect((await other.get("/v1.0/invoke/held/method/hi")).text).toBe("hi");
  expect((await held.get("/v1.0/invoke/held/method/hi")).text).toBe("hi");
  expect(app.requestsTo("/orders").length).toBe(1);
  expect(await held.exited).toBe(0);
  expect(held.logs()).toMatch(/Block shutdown period expired[\s\S]*Daprd shutdown gracefully/);
  expect(app.requestsTo("/orders").length).toBe(1);
  await held.restart();
  await app.received("/orders", 2);
});

test("the block ends early: the app is ill, the shutdown API is called, or a second signal comes", async () => {
  await using nats = await startNats();
  let well = true;
  await using app = await startApp({ routes: { "/health": () => ({ status: well ? 200 : 500 }) } });
  const block = ["--dapr-block-shutdown-duration=60s"];
  const checks = [
    "--enable-app-health-check=true",
    "--app-health-check-path=/health",
    "--app-health-probe-interval=1",
  ];
  await using ill = await startSidecar({
    appId: "ill",
    appPort: app.port,
    nats,
    flags: [...block, ...checks],
  });
  await using called = await startSidecar({ appId: "called", nats, flags: block });
  await using twice = await startSidecar({ appId: "twice", nats, flags: block });
  await using direct = await startSidecar({ appId: "direct", nats, flags: block });
  await ill.logged(/App entered healthy status/);
  for (const sidecar of [ill, called, twice]) sidecar.signal("SIGTERM");
  await Promise.all([ill, called, twice].map((sidecar) => sidecar.logged(/Blocking graceful shutdown/)));
  well = false;
  expect(await ill.exited).toBe(0);
  expect(ill.logs()).toContain("App reported unhealthy");
  expect((await called.post("/v1.0/shutdown")).status).toBe(204);
  expect(await called.exited).toBe(0);
  twice.signal("SIGINT");
  expect(await twice.exited).toBe(1);
  // Without a signal there is no block.
  expect((await direct.post("/v1.0/shutdown")).status).toBe(204);
  expect(await direct.exited).toBe(0);
  expect(direct.logs()).not.toContain("Blocking");
});

test("--dapr-graceful-shutdown-seconds=0 waits for ever, a second signal ends it", async () => {
  await using nats = await startNats();
  const release = Promise.withResolvers<void>();
  await using app = await startApp({
    routes: { "/slow": () => release.promise.then(() => ({ body: "done" })) },
  });
  const flags = ["--dapr-graceful-shutdown-seconds=0"];
  await using callee = await startSidecar({ appId: "callee", appPort: app.port, nats, flags });
  await using stuck = await startSidecar({ appId: "stuck", appPort: app.port, nats, flags });
  await using caller = await startSidecar({ appId: "caller", nats });
  const call = caller.get("/v1.0/invoke/callee/method/slow");
  const lost = stuck.get("/v1.0/invoke/stuck/method/slow").catch(() => "broken off");
  await app.received("/slow", 2);
  for (const sidecar of [callee, stuck]) sidecar.signal("SIGTERM");
  await stuck.logged(/dapr shutting down/);
  stuck.signal("SIGTERM");
  expect(await stuck.exited).toBe(1);
  expect(await lost).toBe("broken off");
  // Longer than the default of five seconds and what is allowed beyond it.
  await new Promise((resolve) => setTimeout(resolve, 6_500));
  expect(callee.running()).toBe(true);
  release.resolve();
  expect((await call).text).toBe("done");
  expect(await callee.exited).toBe(0);
});

test("past the grace period the end is forced: calls are told, the exit code is 1", async () => {
  await using nats = await startNats();
  await using app = await startApp({ routes: { "/stuck": () => new Promise(() => {}) } });
  const flags = ["--dapr-graceful-shutdown-seconds=1"];
  await using callee = await startSidecar({ appId: "callee", appPort: app.port, nats, flags });
  await using caller = await startSidecar({ appId: "caller", nats });
  const call = caller.get("/v1.0/invoke/callee/method/stuck");
  await app.received("/stuck", 1);
  expect(await callee.stop()).toBe(1);
  expect(callee.logs()).toContain("Graceful shutdown timeout exceeded, forcing shutdown");
  expect((await call).status).toBe(500);
});

test("open connections without calls do not hold the end, calls of HTTP/2 clients finish", async () => {
  await using nats = await startNats();
  const release = Promise.withResolvers<void>();
  await using app = await startApp({
    routes: { "/slow": () => release.promise.then(() => ({ body: "done" })) },
  });
  await using sidecar = await startSidecar({ appId: "a", appPort: app.port, nats });
  await using other = await startSidecar({ appId: "b", nats });
  const idle = connectHttp2(other.httpUrl);
  const busy = connectHttp2(sidecar.httpUrl);
  await Promise.all([idle, busy].map((session) => once(session, "remoteSettings")));
  const silent = [sidecar, other].map(({ httpPort }) => connect(httpPort, "127.0.0.1"));
  await Promise.all(silent.map((socket) => once(socket, "connect")));
  await other.get("/v1.0/healthz");
  expect(await other.stop()).toBe(0);
  const call = busy.request({ ":path": "/v1.0/invoke/a/method/slow" });
  await app.received("/slow", 1);
  sidecar.signal("SIGTERM");
  await sidecar.logged(/dapr shutting down/);
  release.resolve();
  let text = "";
  for await (const chunk of call) text += String(chunk);
  expect(text).toBe("done");
  expect(await sidecar.exited).toBe(0);
  for (const open of [idle, busy, ...silent]) open.destroy();
});

test("a signal during the start ends it", async () => {
  const away = { url: "nats://127.0.0.1:1" };
  await using sidecar = await startSidecar({ appId: "early", nats: away, resources, wait: "none" });
  await sidecar.logged(/Starting Weft/);
  expect(await sidecar.stop()).toBe(0);
  expect(sidecar.logs()).toContain("Daprd shutdown gracefully");
});

test("a signal that comes while the program is still being loaded ends it", async () => {
  const nats = { url: "nats://127.0.0.1:1" };
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    await using sidecar = await startSidecar({ appId: "early", nats, wait: "none" });
    // Node names the process first, then we do: signals are heard from then on.
    const name = (): string => readFileSync(`/proc/${sidecar.pid}/comm`, "utf8").trim();
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
    while (name() !== "MainThread" && sidecar.logs() === "") await turn();
    while (name() !== "weftd") await turn();
    sidecar.signal(signal);
    expect(await sidecar.exited).toBe(0);
    expect(sidecar.logs()).toContain("Daprd shutdown gracefully");
  }
});

test("Shutdown over gRPC: graceful, and by force", async () => {
  await using nats = await startNats();
  await using graceful = await startSidecar({ appId: "g", nats });
  await using forced = await startSidecar({ appId: "f", nats });
  using one = grpcClient(graceful.grpcPort);
  await one.unary(Dapr.method.shutdown, {});
  expect(await graceful.exited).toBe(0);
  using two = grpcClient(forced.grpcPort);
  await two.unary(Dapr.method.shutdown, {}, { metadata: { "dapr-force-shutdown": "true" } });
  expect(await forced.exited).toBe(1);
});

test("SIGHUP reads everything again in the same process, on the same ports", async () => {
  await using nats = await startNats();
  await using app = await startApp({ routes: { "/orders": () => undefined } });
  const files = { "c.yaml": nativeComponents };
  await using sidecar = await startSidecar({ appId: "again", appPort: app.port, nats, resources: files });
  await sidecar.http("/v1.0/metadata/k", { method: "PUT", body: "v" });
  const { pid } = sidecar;
  await writeFile(join(sidecar.resourcesPath, "s.yaml"), ordersSubscription);
  await writeFile(
    join(sidecar.resourcesPath, "c.yaml"),
    nativeComponents.replace("name: statestore", "name: renamed"),
  );
  for (const round of [1, 2]) {
    sidecar.signal("SIGHUP");
    const lines = new RegExp(`(Init Elapsed[\\s\\S]*){${round + 1}}`);
    await sidecar.logged(lines, 30_000);
  }
  await sidecar.ready();
  expect(sidecar.pid).toBe(pid);
  const document = (await sidecar.get("/v1.0/metadata")).json<{
    extended: object;
    components: { name: string }[];
  }>();
  expect(document.components.map(({ name }) => name)).toEqual(["renamed", "pubsub"]);
  expect(Object.keys(document.extended)).toEqual(["daprRuntimeVersion"]);
  await sidecar.subscribed("orders");
  await sidecar.post("/v1.0/publish/pubsub/orders", { n: 1 });
  await app.received("/orders", 1);
  using client = grpcClient(sidecar.grpcPort);
  expect(await client.unary(Dapr.method.getMetadata, {})).toMatchObject({ id: "again" });
  expect((await fetch(`http://127.0.0.1:${sidecar.metricsPort}/metrics`)).status).toBe(200);
  expect(await sidecar.stop()).toBe(0);
});

test("SIGHUP with files that cannot be used ends the sidecar and says why", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({
    appId: "again",
    nats,
    resources: { "c.yaml": nativeComponents },
  });
  await rm(join(sidecar.resourcesPath, "c.yaml"));
  await writeFile(
    join(sidecar.resourcesPath, "d.yaml"),
    nativeComponents.replace("state.nats", "state.natz"),
  );
  sidecar.signal("SIGHUP");
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toMatch(/Fatal error from runtime: .*did you mean state\.nats\?/);
});

test("a connection whose answer is on its way at the stop does not hold up the end", async () => {
  await using nats = await startNats();
  const arrived = Promise.withResolvers<() => void>();
  await using app = await startApp({
    routes: { "/slow": () => new Promise((resolve) => arrived.resolve(() => resolve({ body: "done" }))) },
  });
  await using sidecar = await startSidecar({ appId: "busy", appPort: app.port, nats });
  const call = sidecar.get("/v1.0/invoke/busy/method/slow");
  const answer = await arrived.promise;
  sidecar.signal("SIGTERM");
  await sidecar.logged(/dapr shutting down/);
  await eventually(async () => {
    await expect(httpClient(sidecar.httpUrl).get("/v1.0/healthz")).rejects.toThrow("ECONNREFUSED");
  });
  answer();
  expect((await call).text).toBe("done");
  expect(await sidecar.exited).toBe(0);
});
