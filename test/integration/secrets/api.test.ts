// The secrets API over HTTP and gRPC through a real sidecar: values, scopes, every error.
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type GrpcClient,
  GrpcError,
  type Nats,
  type Sidecar,
  type TempDir,
  grpcClient,
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
import { component, fileStore } from "./resources.ts";

const { method } = Dapr;
const config = `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: scopes }
spec:
  secrets:
    scopes:
    - storeName: listed
      defaultAccess: Allow
      allowedSecrets: [db, "bulk"]
    - storeName: shut
      defaultAccess: deny
    - storeName: nowhere
`;

let nats: Nats;
let folder: TempDir;
let sidecar: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  nats = await startNats();
  folder = tempDir("secrets");
  const path = folder.join("secrets.json");
  writeFileSync(path, JSON.stringify({ db: "p<w>d", "a/b c": "slash", redis: { user: "u", port: 6379 } }));
  sidecar = await startSidecar({
    appId: "shop",
    nats,
    config,
    env: { SHOP_TOKEN: "t", SHOP_DAPR: "d" },
    resources: {
      "flat.yaml": fileStore("flat", path),
      "fields.yaml": fileStore("fields", path, { multiValued: "true" }),
      "listed.yaml": fileStore("listed", path),
      "shut.yaml": fileStore("shut", path),
      "env.yaml": component("env", "secretstores.local.env", { prefix: "SHOP_" }),
    },
  });
  grpc = grpcClient(sidecar.grpcPort);
});

afterAll(async () => {
  grpc?.[Symbol.dispose]();
  await sidecar?.[Symbol.asyncDispose]();
  await folder?.[Symbol.asyncDispose]();
  await nats?.[Symbol.asyncDispose]();
});

const bulkOf = (secrets: Record<string, string>): Record<string, Record<string, string>> =>
  Object.fromEntries(Object.entries(secrets).map(([name, value]) => [name, { [name]: value }]));
const port = "%!s(float64=6379)";

test("one secret over HTTP", async () => {
  const found = await sidecar.get("/v1.0/secrets/flat/db");
  expect([found.status, found.text]).toEqual([200, '{"db":"p\\u003cw\\u003ed"}\n']);
  expect(found.headers["content-type"]).toBe("application/json");
  expect((await sidecar.get("/v1.0/secrets/flat/a%2Fb+c")).json()).toEqual({ "a/b c": "slash" });
  expect((await sidecar.get("/v1.0/secrets/flat/redis%3Aport")).json()).toEqual({ "redis:port": port });
  expect((await sidecar.get("/v1.0/secrets/fields/redis")).json()).toEqual({ user: "u", port });
  expect((await sidecar.get("/v1.0/secrets/env/TOKEN")).json()).toEqual({ TOKEN: "t" });
});

test("all secrets over HTTP", async () => {
  const flat = { db: "p<w>d", "a/b c": "slash", "redis:user": "u", "redis:port": port };
  expect((await sidecar.get("/v1.0/secrets/flat/bulk")).json()).toEqual(bulkOf(flat));
  const env = (await sidecar.get("/v1.0/secrets/env/bulk")).json();
  expect(env).toEqual(bulkOf({ TOKEN: "t", DAPR: "d" }));
});

test("both over gRPC", async () => {
  const one = await grpc.unary(method.getSecret, { storeName: "fields", key: "redis" });
  expect({ ...one.data }).toEqual({ user: "u", port });
  const all = await grpc.unary(method.getBulkSecret, { storeName: "listed" });
  expect(Object.keys(all.data)).toEqual(["db"]);
  expect({ ...all.data["db"]!.secrets }).toEqual({ db: "p<w>d" });
});

test("scopes keep secrets from the app", async () => {
  expect((await sidecar.get("/v1.0/secrets/listed/bulk")).json()).toEqual(bulkOf({ db: "p<w>d" }));
  expect((await sidecar.get("/v1.0/secrets/shut/bulk")).text).toBe("{}\n");
  expect((await sidecar.get("/v1.0/secrets/listed/db")).status).toBe(200);
  expect(sidecar.logs()).toMatch(/spec\.secrets\.scopes names the secret store nowhere, which is not loaded/);
  expect(sidecar.logs()).not.toMatch(/p<w>d/);
});

test.each([
  ["nowhere", "db", 401, "ERR_SECRET_STORE_NOT_FOUND", 3, "failed finding secret store with key nowhere"],
  ["shut", "db", 403, "ERR_PERMISSION_DENIED", 7, 'access denied by policy to get "db" from "shut"'],
  [
    "listed",
    "redis:user",
    403,
    "ERR_PERMISSION_DENIED",
    7,
    'access denied by policy to get "redis:user" from "listed"',
  ],
  [
    "flat",
    "nobody",
    500,
    "ERR_SECRET_GET",
    13,
    "failed getting secret with key nobody from secret store flat: secret nobody not found",
  ],
])("%s/%s fails with %i %s", async (store, key, status, errorCode, code, message) => {
  const answer = await sidecar.get(`/v1.0/secrets/${store}/${encodeURIComponent(key)}`);
  expect([answer.status, answer.text]).toEqual([status, JSON.stringify({ errorCode, message })]);
  const failure = await grpc
    .unary(method.getSecret, { storeName: store, key })
    .catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(GrpcError);
  expect(failure).toMatchObject({ code, details: message });
  expect((failure as GrpcError).status()).toBeUndefined();
});

test("an unknown store has no secrets to list", async () => {
  const answer = await sidecar.get("/v1.0/secrets/nowhere/bulk");
  expect([answer.status, answer.json<{ errorCode: string }>().errorCode]).toEqual([
    401,
    "ERR_SECRET_STORE_NOT_FOUND",
  ]);
});

test("the metadata API lists stores before other components, with what they can", async () => {
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{ components: unknown[] }>();
  const type = "secretstores.local.file";
  expect(components).toContainEqual({ name: "flat", type, version: "v1" });
  const capabilities = ["MULTIPLE_KEY_VALUES_PER_SECRET"];
  expect(components).toContainEqual({ name: "fields", type, version: "v1", capabilities });
});

test("without any store", async () => {
  await using bare = await startSidecar({ appId: "bare", nats, resources: {} });
  const message = "secret store is not configured";
  for (const path of ["x", "bulk"]) {
    const answer = await bare.get(`/v1.0/secrets/vault/${path}`);
    const text = JSON.stringify({ errorCode: "ERR_SECRET_STORES_NOT_CONFIGURED", message });
    expect([answer.status, answer.text]).toEqual([500, text]);
  }
  using client = grpcClient(bare.grpcPort);
  const failure = await client
    .unary(method.getBulkSecret, { storeName: "vault" })
    .catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: 9, details: message });
});
