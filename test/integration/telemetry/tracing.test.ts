// Traces as a collector sees them: spans of two sidecars, an event and its delivery hang together, over every exporter.
import { randomBytes } from "node:crypto";
import { expect, it } from "vitest";
import { HTTPExtension_Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type App,
  grpcClient,
  type Nats,
  type Sidecar,
  startApp,
  startGrpcApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { type ReceivedSpan, startOtlpReceiver, startZipkin } from "../../kit/collectors.ts";
import { nativeComponents } from "../../kit/native-components.ts";
import { binding } from "../bindings/resources.ts";

const resources = { "components.yaml": nativeComponents };
const env = { OTEL_BSP_SCHEDULE_DELAY: "100", OTEL_RESOURCE_ATTRIBUTES: "team=blue%20one,zone=z1" };

function configuration(tracing: string): string {
  return `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: tracing}
spec:
  tracing: ${tracing}
`;
}

const otlp = (protocol: string, port: number, more = ""): string =>
  configuration(
    `{samplingRate: "1", otel: {protocol: ${protocol}, endpointAddress: "127.0.0.1:${port}", isSecure: false${more}}}`,
  );

/** A context as a client would begin it. */
function newTrace(): { traceId: string; spanId: string; traceparent: string } {
  const [traceId, spanId] = [randomBytes(16).toString("hex"), randomBytes(8).toString("hex")];
  return { traceId, spanId, traceparent: `00-${traceId}-${spanId}-01` };
}

type Pair = AsyncDisposable & { readonly app: App; readonly caller: Sidecar; readonly callee: Sidecar };

/** `shop` calls `pricing`, whose app publishes an event that it is subscribed to. */
async function startPair(nats: Nats, config: string): Promise<Pair> {
  const stack = new AsyncDisposableStack();
  const app = stack.use(await startApp());
  app.subscribe({ pubsubname: "pubsub", topic: "orders", route: "/orders" });
  const shared = { nats, resources, config, env };
  const callee = stack.use(await startSidecar({ ...shared, appId: "pricing", appPort: app.port }));
  const caller = stack.use(await startSidecar({ ...shared, appId: "shop" }));
  app.on("POST /price", async ({ headers }) => {
    const published = await callee.post(
      "/v1.0/publish/pubsub/orders",
      { n: 1 },
      { traceparent: String(headers["traceparent"]) },
    );
    return { status: published.status === 204 ? 200 : 500, body: { price: 1 } };
  });
  await callee.subscribed("orders");
  return { app, caller, callee, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const named = (spans: readonly ReceivedSpan[], name: string, kind: string): ReceivedSpan =>
  spans.find((span) => span.name === name && span.kind === kind) ??
  expect.fail(`no ${kind} span ${name} among ${spans.map((span) => `${span.kind} ${span.name}`).join()}`);

it("joins caller, callee, published event and delivery in one trace (OTLP over HTTP)", async () => {
  await using receiver = await startOtlpReceiver();
  await using nats = await startNats();
  await using pair = await startPair(nats, otlp("http", receiver.httpPort, `, headers: ["x-key=secret"]`));
  const trace = newTrace();
  const answer = await pair.caller.post("/v1.0/invoke/pricing/method/price?q=1", "{}", {
    traceparent: trace.traceparent,
    tracestate: "a=1",
    "dapr-note": "hello",
  });
  expect(answer.status).toBe(200);
  const [delivered] = await pair.app.received("/orders", 1);
  const spans = await receiver.trace(trace.traceId, 4);

  const client = named(spans, "CallLocal/pricing/price", "client");
  const server = named(spans, "CallLocal/pricing/price", "server");
  const publish = named(spans, "/v1.0/publish/pubsub/orders", "client");
  const delivery = named(spans, "pubsub/orders", "client");
  expect([client, server, publish, delivery].map((span) => span.parentSpanId)).toEqual([
    trace.spanId,
    client.spanId,
    server.spanId,
    publish.spanId,
  ]);
  expect(
    spans.map((span) => String(span.resource["service.name"])).toSorted((a, b) => (a < b ? -1 : 1)),
  ).toEqual(["pricing", "pricing", "pricing", "shop"]);
  expect(client.resource).toEqual({ "service.name": "shop", team: "blue one", zone: "z1" });
  expect(client.scope).toBe("dapr-diagnostics");
  expect(client.headers).toMatchObject({ "x-key": "secret" });
  expect(client.traceState).toBe("a=1");
  expect(client.attributes).toMatchObject({
    "dapr.protocol": "http",
    "dapr.api": "POST /v1.0/invoke/pricing/method/price",
    "dapr.status_code": "200",
    "http.request.method": "POST",
    "url.full": "/v1.0/invoke/pricing/method/price?q=1",
    "server.address": "127.0.0.1",
    "rpc.service": "ServiceInvocation",
    "net.peer.name": "pricing",
    "dapr-note": "hello",
  });
  expect(server.attributes).toEqual({
    "rpc.service": "ServiceInvocation",
    "net.peer.name": "pricing",
    "dapr.invoke_method": "price",
  });
  expect(publish.attributes["messaging.system"]).toBe("pubsub");
  expect(delivery.attributes).toEqual({
    "messaging.system": "pubsub",
    "messaging.destination.name": "orders",
  });
  for (const span of spans) {
    expect(BigInt(span.endNs)).toBeGreaterThan(BigInt(span.startNs));
    expect(Math.abs(Number(BigInt(span.startNs) / 1_000_000n) - Date.now())).toBeLessThan(60_000);
    expect(span.error).toBeNull();
  }

  // What the app and the client see.
  const asked = pair.app.requestsTo("/price")[0]!;
  expect(asked.headers).toMatchObject({
    traceparent: `00-${trace.traceId}-${server.spanId}-01`,
    tracestate: "a=1",
  });
  expect(answer.headers["traceparent"]).toBe(`00-${trace.traceId}-${client.spanId}-01`);
  expect(answer.headers["tracestate"]).toBe("a=1");
  expect(delivered!.headers["traceparent"]).toBe(`00-${trace.traceId}-${delivery.spanId}-01`);
  const event = delivered!.json<Record<string, string>>();
  const published = `00-${trace.traceId}-${publish.spanId}-01`;
  expect(event).toMatchObject({ traceparent: published, traceid: published });
});

it("traces the gRPC API, errors and bulk entries too (OTLP over gRPC)", async () => {
  await using receiver = await startOtlpReceiver();
  await using nats = await startNats();
  await using pair = await startPair(nats, otlp("grpc", receiver.grpcPort));
  const trace = newTrace();
  using client = grpcClient(pair.caller.grpcPort);
  const metadata = { traceparent: trace.traceparent };
  const called = await client.call(
    Dapr.method.invokeService,
    { id: "pricing", message: { method: "price", httpExtension: { verb: HTTPExtension_Verb.POST } } },
    { metadata },
  );
  expect(called.headers.get("traceparent")[0]).toContain(trace.traceId);
  const saved = await client.call(
    Dapr.method.saveState,
    { storeName: "statestore", states: [{ key: "a", value: Buffer.from("1") }] },
    { metadata },
  );
  const binary = (saved.headers.get("grpc-trace-bin")[0] as Buffer).toString("hex");
  const failed = client.unary(Dapr.method.getState, { storeName: "nowhere", key: "a" }, { metadata });
  await expect(failed).rejects.toThrow("nowhere");
  const bulk = await pair.caller.post(
    "/v1.0/publish/bulk/pubsub/orders",
    [1, 2].map((n) => ({ entryId: String(n), event: { n }, contentType: "application/json" })),
    metadata,
  );
  expect(bulk.status).toBe(204);
  // Four of the invocation, state save and get, the bulk request with two entries and their deliveries.
  const spans = await receiver.trace(trace.traceId, 11);

  const save = named(spans, "/dapr.proto.runtime.v1.Dapr/SaveState", "client");
  expect(binary).toBe(`0000${trace.traceId}01${save.spanId}0201`);
  expect(save.attributes).toMatchObject({
    "dapr.protocol": "grpc",
    "dapr.api": "/dapr.proto.runtime.v1.Dapr/SaveState",
    "db.system": "state",
    "db.connection_string": "state",
    "db.name": "statestore",
    "db.statement": "/dapr.proto.runtime.v1.Dapr/SaveState",
    "rpc.service": "Dapr",
  });
  const get = named(spans, "/dapr.proto.runtime.v1.Dapr/GetState", "client");
  expect(get.error).toContain("nowhere");
  const call = named(spans, "CallLocal/pricing/price", "client");
  expect(named(spans, "CallLocal/pricing/price", "server").parentSpanId).toBe(call.spanId);
  const request = named(spans, "/v1.0/publish/bulk/pubsub/orders", "client");
  const entries = spans.filter((span) => span.kind === "producer");
  expect(entries.map((span) => [span.name, span.parentSpanId])).toEqual([
    [request.name, request.spanId],
    [request.name, request.spanId],
  ]);
  const deliveries = spans.filter((span) => span.name === "pubsub/orders").map((span) => span.parentSpanId);
  expect(deliveries).toEqual(expect.arrayContaining(entries.map((span) => span.spanId)));
});

it("traces proxied gRPC calls at both sidecars", async () => {
  await using receiver = await startOtlpReceiver();
  await using nats = await startNats();
  const config = otlp("http", receiver.httpPort);
  await using app = await startGrpcApp();
  await using callee = await startSidecar({
    appId: "callee",
    appPort: app.port,
    appProtocol: "grpc",
    nats,
    config,
    env,
  });
  await using caller = await startSidecar({ appId: "caller", nats, config, env });
  const trace = newTrace();
  using client = grpcClient(caller.grpcPort);
  const method = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck";
  const metadata = { "dapr-app-id": "callee", traceparent: trace.traceparent };
  await client.raw(method, new Uint8Array(), { metadata });
  const spans = await receiver.trace(trace.traceId, 2);
  const near = named(spans, method, "client");
  const far = named(spans, method, "server");
  expect([near.parentSpanId, far.parentSpanId]).toEqual([trace.spanId, near.spanId]);
  expect(far.resource["service.name"]).toBe("callee");
  void callee;
});

it("is seen whole by a real Zipkin server", { timeout: 400_000 }, async () => {
  await using zipkin = await startZipkin();
  await using nats = await startNats();
  const config = configuration(
    `{samplingRate: "1", zipkin: {endpointAddress: "${zipkin.url}/api/v2/spans"}}`,
  );
  await using pair = await startPair(nats, config);
  const trace = newTrace();
  const headers = { traceparent: trace.traceparent };
  await pair.caller.post("/v1.0/invoke/pricing/method/price", "{}", headers);
  await pair.caller.post("/v1.0/invoke/pricing/method/missing", "{}", headers);
  const spans = await zipkin.trace(trace.traceId, 6);
  const ids = new Map(spans.map((span) => [span.id, span]));
  const delivery = spans.find((span) => span.name === "pubsub/orders")!;
  const line = [delivery];
  for (let span = ids.get(delivery.parentId!); span !== undefined; span = ids.get(span.parentId!))
    line.push(span);
  expect(line.map((span) => `${span.localEndpoint.serviceName} ${span.kind} ${span.name}`)).toEqual([
    "pricing CLIENT pubsub/orders",
    "pricing CLIENT /v1.0/publish/pubsub/orders",
    "pricing SERVER calllocal/pricing/price",
    "shop CLIENT calllocal/pricing/price",
  ]);
  const missing = spans.filter((span) => span.name === "calllocal/pricing/missing");
  expect(missing.map((span) => span.tags["error"])).toEqual(["Code(404): Not Found", "Code(404): Not Found"]);
  expect(missing[0]!.tags).toMatchObject({
    "otel.status_code": "ERROR",
    "otel.scope.name": "dapr-diagnostics",
    "service.name": missing[0]!.localEndpoint.serviceName,
  });
});

it("traces what input and output bindings do", async () => {
  await using receiver = await startOtlpReceiver();
  await using nats = await startNats();
  await using outside = await startApp({ routes: { "POST /": () => undefined } });
  await using app = await startApp({ routes: { "POST /tick": () => ({ status: 503 }) } });
  await using sidecar = await startSidecar({
    appId: "ticker",
    appPort: app.port,
    nats,
    config: otlp("http", receiver.httpPort),
    env,
    resources: {
      "tick.yaml": binding("tick", "bindings.cron", { schedule: "@every 1s", direction: "input" }),
      "web.yaml": binding("web", "bindings.http", { url: outside.url }),
    },
  });
  const [event] = await app.received("/tick", 1);
  const [, inTrace, inSpan] = String(event!.headers["traceparent"]).split("-");
  const [delivery] = await receiver.trace(inTrace!, 1);
  expect(delivery).toMatchObject({ name: "bindings/tick", kind: "client", spanId: inSpan });
  expect(delivery!.error).toBe("Code(503): Service Unavailable");
  expect(delivery!.attributes).toEqual({
    "db.name": "tick",
    "db.system": "bindings",
    "db.connection_string": "POST /tick",
    "rpc.service": "Dapr",
  });

  const trace = newTrace();
  const headers = { traceparent: trace.traceparent };
  const sent = await sidecar.post("/v1.0/bindings/web", { operation: "post", data: 1 }, headers);
  expect(sent.status).toBe(200);
  const [call] = await receiver.trace(trace.traceId, 1);
  expect(call).toMatchObject({ name: "/v1.0/bindings/web", kind: "client", parentSpanId: trace.spanId });
  expect(call!.attributes).toMatchObject({
    "db.name": "web",
    "db.system": "bindings",
    "db.connection_string": "bindings",
    "db.statement": "POST /v1.0/bindings/web",
  });
  const [asked] = outside.requestsTo("/");
  expect(asked!.headers["traceparent"]).toBe(`00-${trace.traceId}-${call!.spanId}-01`);
});

it("every event of a bulk delivery has a span under its own trace", async () => {
  await using receiver = await startOtlpReceiver();
  await using nats = await startNats();
  await using app = await startApp();
  const bulkSubscribe = { enabled: true, maxMessagesCount: 2, maxAwaitDurationMs: 2_000 };
  let tries = 0;
  app.subscribe({ pubsubname: "pubsub", topic: "orders", route: "/orders", bulkSubscribe }, (request) => {
    const status = tries++ === 0 ? "DROP" : "SUCCESS";
    const { entries } = request.json<{ entries: { entryId: string }[] }>();
    return { body: { statuses: entries.map(({ entryId }) => ({ entryId, status })) } };
  });
  await using sidecar = await startSidecar({
    appId: "orders",
    appPort: app.port,
    nats,
    resources,
    config: otlp("http", receiver.httpPort),
    env,
  });
  await sidecar.subscribed("orders");
  const traces = [newTrace(), newTrace()];
  await Promise.all(
    traces.map(({ traceparent }) => sidecar.post("/v1.0/publish/pubsub/orders", { n: 1 }, { traceparent })),
  );
  for (const trace of traces) {
    const spans = await receiver.trace(trace.traceId, 2);
    const publish = named(spans, "/v1.0/publish/pubsub/orders", "client");
    expect(named(spans, "pubsub/orders", "client")).toMatchObject({
      parentSpanId: publish.spanId,
      attributes: { "messaging.system": "pubsub", "messaging.destination.name": "orders" },
    });
  }
});
