// What clients and apps see of tracing in each of its modes, and of baggage.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type App,
  grpcClient,
  type Nats,
  type Sidecar,
  startApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const parent = `00-${traceId}-b7ad6b7169203331-01`;
const zero = `00-${"0".repeat(32)}-${"0".repeat(16)}-00`;

let nats: Nats;
let app: App;
beforeAll(async () => {
  nats = await startNats();
  app = await startApp({ fallback: () => ({ body: "ok" }) });
});
afterAll(async () => {
  await app[Symbol.asyncDispose]();
  await nats[Symbol.asyncDispose]();
});

/** A sidecar of an app of its own name, so that calls to it go straight to the app. */
function start(appId: string, tracing?: string, env: Record<string, string> = {}): Promise<Sidecar> {
  const config =
    tracing === undefined
      ? {}
      : { config: `apiVersion: dapr.io/v1alpha1\nkind: Configuration\nspec:\n  tracing: ${tracing}\n` };
  return startSidecar({ appId, appPort: app.port, nats, env, ...config });
}

async function invoke(sidecar: Sidecar, headers: Record<string, string | readonly string[]> = {}) {
  const answer = await sidecar.get(`/v1.0/invoke/${sidecar.appId}/method/m`, headers);
  return { answer, asked: app.requestsTo("/m").at(-1)!.headers };
}

describe("without settings", () => {
  it("passes contexts on unchanged, and says none with zeros", async () => {
    await using sidecar = await start("plain");
    const none = await invoke(sidecar);
    expect(none.asked["traceparent"]).toBe(zero);
    expect(none.answer.headers["traceparent"]).toBe(zero);
    const given = await invoke(sidecar, { traceparent: parent, tracestate: "a=1" });
    expect(given.asked).toMatchObject({ traceparent: parent, tracestate: "a=1" });
    expect(given.answer.headers).toMatchObject({ traceparent: parent, tracestate: "a=1" });
    const health = await sidecar.get("/v1.0/healthz", { traceparent: parent });
    expect(health.headers["traceparent"]).toBeUndefined();
  });

  it("forwards and echoes baggage, and refuses what is none", async () => {
    await using sidecar = await start("bags");
    const one = await invoke(sidecar, { baggage: "user=%20a;p" });
    expect(one.asked["baggage"]).toBe("user=%20a;p");
    expect(one.answer.headers["baggage"]).toBe("user=%20a;p");
    const two = await invoke(sidecar, { baggage: ["a=1", "b=2"] });
    expect(two.asked["baggage"]).toBe("a=1");
    expect(String(two.answer.headers["baggage"]).replace(" ", "")).toBe("a=1,b=2");
    const bad = await sidecar.get("/v1.0/metadata", { baggage: "no baggage" });
    expect(bad.status).toBe(400);
    expect(bad.headers["content-type"]).toContain("text/plain");
    expect(bad.text).toMatch(/^invalid baggage header:/);
    using client = grpcClient(sidecar.grpcPort);
    const refused = client.unary(Dapr.method.getMetadata, {}, { metadata: { baggage: "no baggage" } });
    await expect(refused).rejects.toMatchObject({
      code: 3,
      message: expect.stringMatching(/invalid baggage header/),
    });
    const echoed = await client.call(Dapr.method.getMetadata, {}, { metadata: { baggage: "a=1" } });
    expect(echoed.headers.get("baggage")).toEqual(["a=1"]);
  });
});

it("does nothing at a rate of 0", async () => {
  await using sidecar = await start("off", '{samplingRate: "0", stdout: true}');
  const { asked, answer } = await invoke(sidecar, {
    traceparent: "mine",
    tracestate: "x",
    baggage: "none at all",
  });
  expect(asked).toMatchObject({ traceparent: "mine", tracestate: "x", baggage: "none at all" });
  expect(answer.status).toBe(200);
  expect(answer.headers["traceparent"]).toBeUndefined();
  expect(answer.headers["baggage"]).toBeUndefined();
  expect(sidecar.logs()).not.toContain("dapr.runtime.trace");
});

it("makes ids at a rate without an exporter, sampled by the parent's flag", async () => {
  await using sidecar = await start("rated", '{samplingRate: "0.000001"}');
  const root = await invoke(sidecar);
  expect(root.asked["traceparent"]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
  expect(root.answer.headers["traceparent"]).toBe(root.asked["traceparent"]);
  const child = await invoke(sidecar, { traceparent: parent });
  expect(child.asked["traceparent"]).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-01$`));
  expect(child.asked["traceparent"]).not.toBe(parent);
});

it("writes spans to its log with stdout, at the default rate of none", async () => {
  await using sidecar = await start("logged", "{stdout: true}");
  await invoke(sidecar, { traceparent: parent });
  const [line] = await sidecar.logged(/.*scope=dapr\.runtime\.trace.*/);
  expect(line).toContain('msg="Span CallLocal/logged/m"');
  expect(line).toContain(`trace_id=${traceId}`);
  expect(line).toContain("parent_id=b7ad6b7169203331");
});

it("takes its exporter from the environment, and goes on when nobody is there", async () => {
  const env = {
    OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9",
    OTEL_EXPORTER_OTLP_INSECURE: "true",
    OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
    OTEL_BSP_SCHEDULE_DELAY: "20",
  };
  await using sidecar = await start("lonely", undefined, env);
  const { asked } = await invoke(sidecar);
  expect(asked["traceparent"]).toMatch(/-01$/);
  await sidecar.logged(
    /spans for otlp-http are lost: http:\/\/127\.0\.0\.1:9\/v1\/traces: .*ECONNREFUSED/,
    20_000,
  );
  const metrics = await fetch(`http://127.0.0.1:${sidecar.metricsPort}/metrics`);
  expect(await metrics.text()).toMatch(
    /dapr_runtime_trace_spans_dropped_total\{app_id="lonely",exporter="otlp-http",reason="export"\} [1-9]/,
  );
});

it("does not start with an exporter that cannot be one", async () => {
  const sidecar = start("wrong", "{zipkin: {endpointAddress: zipkin}}");
  await expect(sidecar).rejects.toThrow(
    /spec\.tracing\.zipkin\.endpointAddress is \\?"zipkin\\?", write a URL/,
  );
});
