// The life of one sidecar: readiness, metadata, token, hostile requests, shutdown and its exit codes.
import { connect } from "node:net";
import { createServer } from "node:http";
import { once } from "node:events";
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { freePort, grpcClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { nativeComponents } from "./resources.ts";

test("metadata over HTTP and gRPC, and free text attached to it", async () => {
  await using nats = await startNats();
  await using app = await startApp();
  const resources = { "c.yaml": nativeComponents };
  await using sidecar = await startSidecar({ appId: "meta", appPort: app.port, nats, resources });
  expect((await sidecar.http("/v1.0/metadata/cliPID", { method: "PUT", body: "42" })).status).toBe(204);
  const document = (await sidecar.get("/v1.0/metadata")).json<Record<string, unknown>>();
  expect(document).toMatchObject({
    id: "meta",
    runtimeVersion: "1.18.3",
    extended: { cliPID: "42" },
    appConnectionProperties: { port: app.port, protocol: "http", channelAddress: "127.0.0.1" },
  });
  expect(document["components"]).toMatchObject([
    { name: "statestore", type: "state.nats", version: "v1" },
    { name: "pubsub", type: "pubsub.nats", version: "v1" },
  ]);
  using client = grpcClient(sidecar.grpcPort);
  const reply = await client.unary(Dapr.method.getMetadata, {});
  expect(reply).toMatchObject({ id: "meta", extendedMetadata: { cliPID: "42" } });
  expect(reply.registeredComponents.map(({ name }) => name)).toEqual(["statestore", "pubsub"]);
  const metrics = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/metrics`);
  expect(await metrics.text()).toContain('dapr_runtime_component_loaded{app_id="meta"} 2');
});

test("outbound health comes before the app, health after it", async () => {
  await using nats = await startNats();
  const appPort = await freePort();
  await using sidecar = await startSidecar({ appId: "early", appPort, nats, wait: "outbound" });
  expect((await sidecar.get("/v1.0/healthz")).status).toBe(500);
  await using app = await startApp({ port: appPort });
  await sidecar.ready();
  expect((await sidecar.get("/v1.0/healthz?appid=early")).status).toBe(204);
  for (const query of ["appid=other", "appid=", "appid"]) {
    const answer = await sidecar.get(`/v1.0/healthz?${query}`);
    expect(answer.status).toBe(500);
    expect(answer.json()).toEqual({
      errorCode: "ERR_HEALTH_APPID_NOT_MATCH",
      message: "dapr app-id does not match",
    });
  }
  void app;
});

test("with an API token every call but health needs it, on both ports", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "guarded", nats, env: { DAPR_API_TOKEN: "secret" } });
  const refused = await sidecar.get("/v1.0/metadata");
  expect(refused).toMatchObject({ status: 401, text: "invalid api token\n" });
  expect((await sidecar.get("/v1.0/metadata", { "dapr-api-token": "secret" })).status).toBe(200);
  using client = grpcClient(sidecar.grpcPort);
  await expect(client.unary(Dapr.method.getMetadata, {})).rejects.toMatchObject({ code: 16 });
  await client.unary(Dapr.method.getMetadata, {}, { metadata: { "dapr-api-token": "secret" } });
});

test("the app's token goes to the app, the caller's does not", async () => {
  await using nats = await startNats();
  await using app = await startApp({ fallback: () => ({}) });
  await using sidecar = await startSidecar({
    appId: "tokens",
    appPort: app.port,
    nats,
    env: { APP_API_TOKEN: "for-app" },
  });
  await sidecar.get("/v1.0/invoke/tokens/method/x", { "dapr-api-token": "mine" });
  expect(app.requestsTo("/x")[0]!.headers["dapr-api-token"]).toBe("for-app");
});

test.each([
  ["an oversized body", () => `POST /v1.0/state/s HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n`],
  ["a header section without end", () => `GET / HTTP/1.1\r\nX: ${"a".repeat(70_000)}`],
  ["no HTTP at all", () => `\u0016\u0003\u0001 not http\r\n\r\n`],
  ["a negative length", () => `POST /v1.0/state/s HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n`],
])("%s is refused and the sidecar lives on", async (_name, bytes) => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({
    appId: "tough",
    nats,
    resources: { "c.yaml": nativeComponents },
  });
  const socket = connect(sidecar.httpPort, "127.0.0.1");
  socket.write(bytes(), "latin1");
  const [first] = (await once(socket, "data")) as [Buffer];
  expect(first.toString()).toMatch(/^HTTP\/1\.1 4\d\d /);
  socket.destroy();
  expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
});

test("a body above --max-body-size is told by number and flag", async () => {
  await using nats = await startNats();
  const resources = { "c.yaml": nativeComponents };
  await using sidecar = await startSidecar({
    appId: "small",
    nats,
    resources,
    flags: ["--max-body-size=1Ki"],
  });
  const answer = await sidecar.post("/v1.0/publish/pubsub/t", "x".repeat(5_000));
  expect(answer.status).toBe(400);
  expect(answer.json()).toMatchObject({
    errorCode: "ERR_BODY_READ",
    message: expect.stringContaining("1024 bytes"),
  });
});

test("SIGTERM finishes the call in flight and exits 0", async () => {
  await using nats = await startNats();
  const release = Promise.withResolvers<void>();
  await using app = await startApp({
    routes: { "/slow": () => release.promise.then(() => ({ body: "done" })) },
  });
  await using callee = await startSidecar({ appId: "callee", appPort: app.port, nats });
  await using caller = await startSidecar({ appId: "caller", nats });
  const call = caller.get("/v1.0/invoke/callee/method/slow");
  await app.received("/slow", 1);
  callee.signal("SIGTERM");
  await callee.logged(/dapr shutting down/);
  release.resolve();
  expect(await call).toMatchObject({ status: 200, text: "done" });
  expect(await callee.exited).toBe(0);
  expect(callee.logs()).toContain("Daprd shutdown gracefully");
  // It has left: the next call is told so at once.
  expect((await caller.get("/v1.0/invoke/callee/method/slow")).json()).toMatchObject({
    message: "failed to invoke, id: callee, err: couldn't find service: callee",
  });
});

test("the shutdown API ends gracefully, by force with exit code 1", async () => {
  await using nats = await startNats();
  await using graceful = await startSidecar({ appId: "g", nats });
  await using forced = await startSidecar({ appId: "f", nats });
  expect((await graceful.post("/v1.0/shutdown")).status).toBe(204);
  expect(await graceful.exited).toBe(0);
  expect((await forced.post("/v1.0/shutdown", undefined, { "dapr-force-shutdown": "true" })).status).toBe(
    204,
  );
  expect(await forced.exited).toBe(1);
});

test("a taken metrics port fails at once and says what to do", async () => {
  await using nats = await startNats();
  const other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  const { port } = other.address() as { port: number };
  await using sidecar = await startSidecar({
    appId: "m",
    nats,
    flags: [`--metrics-port=${port}`],
    wait: "none",
  });
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toMatch(/metrics: .*choose another --metrics-port/);
  other.close();
});

test("a taken API port is waited for", async () => {
  await using nats = await startNats();
  const other = createServer();
  await using sidecar = await startSidecar({ appId: "p", nats, wait: "none", flags: [] });
  await sidecar.ready();
  await sidecar.stop();
  other.listen(sidecar.httpPort, "127.0.0.1");
  await once(other, "listening");
  await sidecar.start();
  await sidecar.logged(/is taken; trying for 10 s/, 30_000);
  other.close();
  await sidecar.ready();
  expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
});

test("logs as JSON and to a file", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "j", nats, flags: ["--log-as-json"] });
  const line = JSON.parse(sidecar.logs().split("\n")[0]!) as Record<string, unknown>;
  expect(line).toMatchObject({ app_id: "j", level: "info", scope: "dapr.runtime", type: "log" });
  expect(Object.keys(line)).toEqual(Object.keys(line).sort());
});
