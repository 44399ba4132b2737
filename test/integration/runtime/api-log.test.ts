// The API log: its fields over both protocols, what turns it on, what it hides.
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { eventually, grpcClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { Sidecar } from "../../kit/index.ts";
import { nativeComponents } from "./resources.ts";

type Line = Record<string, string | number>;

const lines = (sidecar: Sidecar): Line[] =>
  sidecar
    .logs()
    .split("\n")
    .filter((line) => line.includes("API Called"))
    .map((line) => JSON.parse(line) as Line);

const configuration = (settings: string): string => `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: c }
spec: { logging: { apiLogging: ${settings} } }
`;

const resources = { "c.yaml": nativeComponents };

test("one line per call, whatever the log level; not of refused ones; the flag beats the Configuration", async () => {
  await using nats = await startNats();
  await using app = await startApp({ fallback: () => ({ status: 418, body: "short and stout" }) });
  await using sidecar = await startSidecar({
    appId: "logged",
    appPort: app.port,
    nats,
    resources,
    config: configuration("{ enabled: false }"),
    flags: ["--enable-api-logging=true", "--log-as-json", "--log-level=error"],
    env: { DAPR_API_TOKEN: "secret" },
  });
  const token = { "dapr-api-token": "secret", "user-agent": "tests/1" };
  await sidecar.get("/v1.0/metadata");
  await sidecar.get("/v1.0/invoke/logged/method/tea%20pot?q=1", token);
  await sidecar.http("/v1.0/state/statestore/k%2Fx", { headers: { "dapr-api-token": "secret" } });
  using client = grpcClient(sidecar.grpcPort);
  await client.unary(Dapr.method.getMetadata, {}, { metadata: { "dapr-api-token": "secret" } });
  const found = await eventually(() => {
    const all = lines(sidecar).filter(({ method }) => !String(method).includes("healthz"));
    expect(all.length).toBe(3);
    return all;
  });
  expect(found[0]).toMatchObject({
    level: "info",
    msg: "HTTP API Called",
    scope: "dapr.runtime.http-info",
    method: "GET /v1.0/invoke/logged/method/tea pot",
    code: 418,
    size: 15,
    duration: expect.any(Number),
    useragent: "tests/1",
  });
  expect(found[1]).toMatchObject({ method: "GET /v1.0/state/statestore/k/x", code: 204, size: 0 });
  expect(found[1]).not.toHaveProperty("useragent");
  expect(found[2]).toMatchObject({
    msg: "gRPC API Called",
    scope: "dapr.runtime.grpc.api-info",
    method: "/dapr.proto.runtime.v1.Dapr/GetMetadata",
    code: 0,
  });
  expect(lines(sidecar).some(({ method }) => method === "GET /v1.0/healthz")).toBe(true);
});

test("names in place of paths, and no health checks, when the Configuration says so", async () => {
  await using nats = await startNats();
  await using app = await startApp({ fallback: () => ({ body: "ok" }) });
  await using sidecar = await startSidecar({
    appId: "hidden",
    appPort: app.port,
    nats,
    resources,
    config: configuration("{ enabled: true, obfuscateURLs: true, omitHealthChecks: true }"),
    flags: ["--log-as-json"],
  });
  await sidecar.get("/v1.0/healthz");
  await sidecar.get("/v1.0/state/statestore/my-secret-key");
  await sidecar.get("/v1.0/invoke/hidden/method/my-secret-path");
  await eventually(() =>
    expect(lines(sidecar).map(({ method }) => method)).toEqual(["GetState", "InvokeService/hidden"]),
  );
});
