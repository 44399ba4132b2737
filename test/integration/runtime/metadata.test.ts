// Readiness in its order and the metadata document in its exact shape, over HTTP and gRPC.
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { freePort, grpcClient, startApp, startGrpcApp, startNats, startSidecar } from "../../kit/index.ts";
import { nativeComponents, ordersSubscription } from "./resources.ts";

const others = `apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: { name: github }
spec: { baseUrl: "https://github.example" }
`;
const resiliency = `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: patience }
spec: { policies: { timeouts: { broken: soon } } }
`;
const memory = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: memory }
spec: { type: state.in-memory, version: v1 }
`;
const resources = {
  "a.yaml": nativeComponents,
  "b.yaml": ordersSubscription,
  "c.yaml": others,
  "d.yaml": memory,
  "e.yaml": resiliency,
};

test("the whole document, members in order, empty ones left out", async () => {
  await using nats = await startNats();
  await using app = await startApp({ routes: { "/health": () => ({}), "/orders": () => undefined } });
  const flags = [
    "--enable-app-health-check=true",
    "--app-health-check-path=/health",
    "--app-health-threshold=7",
    "--app-max-concurrency=4",
  ];
  await using sidecar = await startSidecar({ appId: "meta", appPort: app.port, nats, resources, flags });
  // Ready is a sidecar also without a good probe of its app.
  await sidecar.subscribed("orders", 30_000);
  await sidecar.http("/v1.0/metadata/a%20key", { method: "PUT", body: "<text>" });
  const { text, headers, status } = await sidecar.get("/v1.0/metadata");
  expect(status).toBe(200);
  expect(headers["content-type"]).toBe("application/json");
  expect(text.endsWith("}\n")).toBe(true);
  const document = JSON.parse(text) as Record<string, unknown>;
  expect(Object.keys(document)).toEqual([
    "id",
    "runtimeVersion",
    "enabledFeatures",
    "components",
    "extended",
    "subscriptions",
    "httpEndpoints",
    "appConnectionProperties",
    "actorRuntime",
    "scheduler",
    "workflows",
    "resiliencies",
  ]);
  expect(document).toMatchObject({
    id: "meta",
    extended: { "a key": "<text>", daprRuntimeVersion: "1.18.3" },
    httpEndpoints: [{ name: "github" }],
    resiliencies: [{ name: "patience" }],
    actorRuntime: { runtimeStatus: "DISABLED", hostReady: false, placement: "placement: disconnected" },
  });
  expect(document["subscriptions"]).toEqual([
    {
      pubsubname: "pubsub",
      topic: "orders",
      rules: [{ path: "/orders" }],
      deadLetterTopic: "",
      type: "DECLARATIVE",
    },
  ]);
  expect(JSON.stringify(document["appConnectionProperties"])).toBe(
    `{"port":${app.port},"protocol":"http","channelAddress":"127.0.0.1","maxConcurrency":4,"health":` +
      '{"healthCheckPath":"/health","healthProbeInterval":"5s","healthProbeTimeout":"500ms","healthThreshold":7}}',
  );
  expect(text).toContain('"a key":"\\u003ctext\\u003e"');
  const components = document["components"] as { name: string; capabilities?: string[] }[];
  const capabilities = (name: string) =>
    components.find((component) => component.name === name)?.capabilities;
  for (const name of ["statestore", "memory"]) {
    expect(capabilities(name)).toEqual(expect.arrayContaining(["ETAG", "TRANSACTIONAL"]));
    expect(capabilities(name)?.at(-1)).toBe("ACTOR");
  }
  expect(capabilities("pubsub") ?? []).not.toContain("ACTOR");
  using client = grpcClient(sidecar.grpcPort);
  expect(await client.unary(Dapr.method.getMetadata, {})).toMatchObject({
    id: "meta",
    runtimeVersion: "1.18.3",
    extendedMetadata: { "a key": "<text>" },
    httpEndpoints: [{ name: "github" }],
    subscriptions: [{ pubsubName: "pubsub", topic: "orders", rules: { rules: [{ path: "/orders" }] } }],
    appConnectionProperties: {
      port: app.port,
      protocol: "http",
      channelAddress: "127.0.0.1",
      maxConcurrency: 4,
      health: {
        healthCheckPath: "/health",
        healthProbeInterval: "5s",
        healthProbeTimeout: "500ms",
        healthThreshold: 7,
      },
    },
    actorRuntime: { hostReady: false, placement: "placement: disconnected" },
  });
  // A Resiliency with an error is listed, and has no effect.
  expect(sidecar.logs()).toMatch(
    /Could not read resiliency policy patience: \S*e\.yaml:4:\d+: spec\.policies\.timeouts\.broken: time: invalid/,
  );
});

test("before the app is up: outbound is ready, healthz names the app, actors are initializing", async () => {
  await using nats = await startNats();
  const appPort = await freePort();
  const options = {
    appId: "early",
    appPort,
    appProtocol: "grpc",
    nats,
    resources,
    wait: "outbound",
  } as const;
  await using sidecar = await startSidecar({
    ...options,
    flags: ["--enable-app-health-check=true", "--app-health-check-path=/health"],
  });
  expect(await sidecar.get("/v1.0/healthz")).toMatchObject({
    status: 500,
    headers: { "content-type": "application/json" },
    text: '{"errorCode":"ERR_HEALTH_NOT_READY","message":"dapr is not ready: [app]"}',
  });
  const document = (await sidecar.get("/v1.0/metadata")).json<Record<string, object>>();
  expect(document["actorRuntime"]).toEqual({ runtimeStatus: "INITIALIZING", hostReady: false });
  // A gRPC app is probed by a method, which has no path.
  expect(document["appConnectionProperties"]).toMatchObject({
    protocol: "grpc",
    health: { healthThreshold: 3 },
  });
  expect(document["appConnectionProperties"]).not.toHaveProperty("health.healthCheckPath");
  expect((await sidecar.post("/v1.0/state/statestore", [{ key: "k", value: 1 }])).status).toBe(204);
  expect(sidecar.logs()).not.toContain("dapr initialized");
  await using app = await startGrpcApp({ port: appPort });
  await sidecar.ready();
  expect(sidecar.logs()).toMatch(/dapr initialized\. Status: Running\. Init Elapsed \d+ms/);
  const after = (await sidecar.get("/v1.0/metadata")).json<Record<string, object>>();
  expect(after["actorRuntime"]).toMatchObject({ runtimeStatus: "DISABLED" });
  void app;
});

test("NATS away: neither health is good, and both say so", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "alone", nats });
  await nats.stop();
  await expect
    .poll(async () => (await sidecar.get("/v1.0/healthz")).text, { timeout: 20_000 })
    .toContain("dapr is not ready: [nats]");
  expect(await sidecar.get("/v1.0/healthz/outbound")).toMatchObject({
    status: 500,
    text: '{"errorCode":"ERR_OUTBOUND_HEALTH_NOT_READY","message":"dapr outbound is not ready"}',
  });
});
