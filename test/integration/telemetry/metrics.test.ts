// The metrics port as Prometheus reads it: its own parser takes the page, dashboards find their series.
import { expect, it } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  eventually,
  grpcClient,
  runPython,
  type Sidecar,
  startApp,
  startGrpcApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { nativeComponents } from "../../kit/native-components.ts";

type Sample = {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
};
type Page = {
  readonly contentType: string;
  readonly types: Readonly<Record<string, string>>;
  readonly samples: readonly Sample[];
};

const resources = { "components.yaml": nativeComponents };

async function pageOf(sidecar: Sidecar): Promise<Page> {
  const url = `http://127.0.0.1:${sidecar.metricsPort}/any/path`;
  const output = await runPython("test/integration/telemetry/parse_metrics.py", [url]);
  return JSON.parse(output) as Page;
}

/** Samples of a name that have these labels at least. */
function find(page: Page, name: string, labels: Readonly<Record<string, string>> = {}): Sample[] {
  const wanted = Object.entries(labels);
  return page.samples.filter(
    (it) => it.name === name && wanted.every(([key, value]) => it.labels[key] === value),
  );
}

/** What the sidecar dashboard that Dapr publishes asks for; its panels of actors and mTLS have nothing here yet. */
const dashboardSeries: readonly (readonly [name: string, ...labels: string[]])[] = [
  ["process_start_time_seconds"],
  ["process_virtual_memory_bytes"],
  ["go_goroutines"],
  ["go_memstats_alloc_bytes"],
  ["dapr_http_server_latency_bucket", "app_id", "method", "path", "le"],
  ["dapr_http_server_response_count", "app_id", "method", "path"],
  ["dapr_http_client_roundtrip_latency_bucket", "app_id", "method", "path", "le"],
  ["dapr_http_client_completed_count", "app_id", "method", "path"],
  ["dapr_grpc_io_server_server_latency_bucket", "app_id", "grpc_server_method", "le"],
  ["dapr_grpc_io_server_completed_rpcs", "app_id", "grpc_server_method", "grpc_server_status"],
  ["dapr_runtime_component_loaded", "app_id"],
  ["dapr_runtime_component_init_total", "app_id"],
];

it("is taken by Prometheus' parser, and a published dashboard finds its series", async () => {
  await using nats = await startNats();
  await using app = await startApp({ routes: { "POST /price": () => ({ body: { price: 1 } }) } });
  app.subscribe({ pubsubname: "pubsub", topic: "orders", route: "/orders" });
  const env = { NAMESPACE: "prod" };
  await using callee = await startSidecar({ appId: "pricing", appPort: app.port, nats, resources, env });
  await using caller = await startSidecar({ appId: "shop", nats, resources, env });
  await callee.subscribed("orders");
  using client = grpcClient(caller.grpcPort);
  await caller.post("/v1.0/invoke/pricing/method/price?q=1", { a: 1 });
  await caller.post("/v1.0/state/statestore", [{ key: "a", value: 1 }]);
  await caller.get("/v1.0/state/statestore/a%22%5C");
  await caller.post("/v1.0/publish/pubsub/orders", { n: 1 });
  await caller.post(
    "/v1.0/publish/bulk/pubsub/orders",
    [1, 2].map((n) => ({ entryId: String(n), event: { n }, contentType: "application/json" })),
  );
  await client.unary(Dapr.method.getMetadata, {});
  await expect(client.unary(Dapr.method.getState, { storeName: "nowhere", key: "a" })).rejects.toThrow();
  await app.received("/orders", 3);
  const ingress = { process_status: "success", status: "success", topic: "orders", namespace: "prod" };
  // The app has an event before the sidecar has its answer.
  const pricing = await eventually(
    async () => {
      const page = await pageOf(callee);
      expect(find(page, "dapr_component_pubsub_ingress_count", ingress)[0]?.value).toBe(3);
      return page;
    },
    { timeoutMs: 30_000 },
  );

  const shop = await pageOf(caller);
  expect(shop.contentType).toBe("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
  const missing = dashboardSeries.filter(([name, ...labels]) => {
    const found = [...find(shop, name), ...find(pricing, name)];
    return found.length === 0 || !found.every((sample) => labels.every((label) => label in sample.labels));
  });
  expect(missing).toEqual([]);

  const invoke = { method: "POST", path: "/v1.0/invoke/pricing/method/price", status: "200", app_id: "shop" };
  expect(find(shop, "dapr_http_server_request_count", invoke)[0]?.value).toBe(1);
  expect(find(shop, "dapr_http_server_latency_count", invoke)[0]?.value).toBe(1);
  const get = { method: "GET", path: "/v1.0/state/statestore", status: "204" };
  expect(find(shop, "dapr_http_server_response_count", get)[0]?.value).toBe(1);
  expect(find(shop, "dapr_http_server_request_bytes_count")[0]?.value).toBeGreaterThanOrEqual(5);
  expect(find(shop, "dapr_http_server_response_bytes_bucket", { le: "1024" })).toHaveLength(1);
  const sent = { dst_app_id: "pricing", type: "unary" };
  expect(find(shop, "dapr_runtime_service_invocation_req_sent_total", sent)[0]?.value).toBe(1);
  expect(
    find(shop, "dapr_component_state_count", { operation: "get", success: "true", namespace: "prod" }),
  ).toHaveLength(1);
  const egress = { component: "pubsub", namespace: "prod", success: "true", topic: "orders" };
  expect(find(shop, "dapr_component_pubsub_egress_count", egress)[0]?.value).toBe(1);
  expect(find(shop, "dapr_component_pubsub_egress_bulk_count", egress)[0]?.value).toBe(1);
  const method = "/dapr.proto.runtime.v1.Dapr/GetMetadata";
  const server = { grpc_server_method: method, grpc_server_status: "OK" };
  expect(find(shop, "dapr_grpc_io_server_completed_rpcs", server)[0]?.value).toBe(1);
  expect(
    find(shop, "dapr_grpc_io_server_sent_bytes_per_rpc_count", { grpc_server_method: method })[0]?.value,
  ).toBe(1);
  expect(
    find(shop, "dapr_grpc_io_server_completed_rpcs", { grpc_server_status: "InvalidArgument" }),
  ).toHaveLength(1);

  const asked = { method: "POST", path: "price", status: "200", app_id: "pricing" };
  expect(find(pricing, "dapr_http_client_completed_count", asked)[0]?.value).toBe(1);
  expect(find(pricing, "dapr_http_client_sent_bytes_count", { path: "price", status: "" })[0]?.value).toBe(1);
  expect(find(pricing, "dapr_http_client_completed_count", { path: "/orders" })[0]?.value).toBe(3);
  expect(
    find(pricing, "dapr_runtime_service_invocation_req_recv_total", { src_app_id: "shop" })[0]?.value,
  ).toBe(1);
  expect(pricing.types["dapr_http_client_roundtrip_latency"]).toBe("histogram");
  expect(find(pricing, "dapr_error_code_total")).toEqual([]);
});

it("obeys spec.metrics: buckets, patterns, verbs, rules and error codes", async () => {
  await using nats = await startNats();
  await using app = await startApp({ fallback: ({ path }) => (path === "/no" ? { status: 404 } : {}) });
  const config = `apiVersion: dapr.io/v1alpha1
kind: Configuration
spec:
  metrics:
    recordErrorCodes: true
    latencyDistributionBuckets: [5, 500]
    http:
      increasedCardinality: false
      excludeVerbs: true
      pathMatching: ["/orders/{id}"]
    rules:
    - name: dapr_runtime_service_invocation_req_sent_total
      labels: [{name: dst_app_id, regex: {"team-": "pri"}}]
`;
  await using callee = await startSidecar({ appId: "pricing", appPort: app.port, nats, config });
  await using caller = await startSidecar({ appId: "shop", nats, config });
  for (const method of ["orders/1", "orders/2", "no"])
    await caller.get(`/v1.0/invoke/pricing/method/${method}`);
  await caller.get("/v1.0/state/nowhere/a");
  const [shop, pricing] = [await pageOf(caller), await pageOf(callee)];
  const path = "/v1.0/invoke/{app_id}/method/orders/{id}";
  expect(find(shop, "dapr_http_server_request_count", { path, method: "" })[0]?.value).toBe(2);
  expect(find(shop, "dapr_http_server_request_count", { path: "", status: "404" })[0]?.value).toBe(1);
  expect(find(shop, "dapr_http_server_response_count")).toEqual([]);
  expect(find(pricing, "dapr_http_client_completed_count", { path: "/orders/{id}" })[0]?.value).toBe(2);
  expect(find(shop, "dapr_http_server_latency_bucket", { path }).map((it) => it.labels["le"])).toEqual([
    "5",
    "500",
    "+Inf",
  ]);
  const sent = { dst_app_id: "team-cing" };
  expect(find(shop, "dapr_runtime_service_invocation_req_sent_total", sent)[0]?.value).toBe(3);
  const codes = find(shop, "dapr_error_code_total").map(
    ({ labels }) => `${labels["category"]} ${labels["error_code"]}`,
  );
  expect(codes).toContain("service-invocation ERR_DIRECT_INVOKE");
  expect(codes.some((code) => code.startsWith("state ERR_STATE_STORE"))).toBe(true);
});

it("counts calls and probes of a gRPC app apart", async () => {
  await using nats = await startNats();
  await using app = await startGrpcApp({
    onInvoke: () => ({ data: { value: Buffer.from("ok") } }),
  });
  const flags = ["--enable-app-health-check", "--app-health-probe-interval=1"];
  await using sidecar = await startSidecar({
    appId: "g",
    appPort: app.port,
    appProtocol: "grpc",
    nats,
    flags,
  });
  // Calls are refused until the first good probe.
  await eventually(async () => expect((await sidecar.get("/v1.0/invoke/g/method/m")).status).toBe(200));
  const page = await pageOf(sidecar);
  const method = "/dapr.proto.runtime.v1.AppCallback/OnInvoke";
  const ended = { grpc_client_method: method, grpc_client_status: "OK" };
  expect(find(page, "dapr_grpc_io_client_completed_rpcs", ended)[0]?.value).toBe(1);
  expect(find(page, "dapr_grpc_io_client_roundtrip_latency_count", ended)[0]?.value).toBe(1);
  expect(
    find(page, "dapr_grpc_io_client_sent_bytes_per_rpc_count", { grpc_client_method: method }),
  ).toHaveLength(1);
  expect(
    find(page, "dapr_grpc_io_healthprobes_completed_count", { grpc_client_status: "OK" })[0]?.value,
  ).toBeGreaterThan(0);
  const health = { grpc_client_method: "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck" };
  expect(find(page, "dapr_grpc_io_client_completed_rpcs", health)).toEqual([]);
});
