// The lock API over HTTP and gRPC through real sidecars: who gets a lock, where it is kept, every error.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type GrpcClient,
  GrpcError,
  type HttpReply,
  type Nats,
  type Sidecar,
  grpcClient,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import { type Server, askSocket } from "../../kit/servers/server.ts";
import { binding as component } from "../bindings/resources.ts";

const { method } = Dapr;

let nats: Nats;
let redis: Server;
let sidecar: Sidecar;
let other: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  nats = await startNats();
  redis = await startRedis();
  const redisHost = redis.address;
  const resources = {
    "redis.yaml": component("redis", "lock.redis", { redisHost }),
    "named.yaml": component("named", "lock.redis", { redisHost, keyPrefix: "Name" }),
    "none.yaml": component("none", "lock.redis", { redisHost, keyPrefix: "none" }),
    "team.yaml": component("team", "lock.redis", { redisHost, keyPrefix: "Namespace" }),
    "nats.yaml": component("nats", "lock.nats", { keyPrefix: "shared" }),
  };
  sidecar = await startSidecar({ appId: "shop", nats, resources });
  other = await startSidecar({ appId: "desk", nats, resources });
  grpc = grpcClient(other.grpcPort);
}, 90_000);

afterAll(async () => {
  grpc?.[Symbol.dispose]();
  await sidecar?.[Symbol.asyncDispose]();
  await other?.[Symbol.asyncDispose]();
  await redis?.[Symbol.asyncDispose]();
  await nats?.[Symbol.asyncDispose]();
});

const lock = (store: string, body: unknown, at = sidecar): Promise<HttpReply> =>
  at.post(`/v1.0-alpha1/lock/${store}`, JSON.stringify(body));
const unlock = (store: string, body: unknown, at = sidecar): Promise<HttpReply> =>
  at.post(`/v1.0-alpha1/unlock/${store}`, JSON.stringify(body));

const order = { resourceId: "order 1", lockOwner: "w1", expiryInSeconds: 60 };

test.each(["named", "nats"])("two apps share the lock store %s over both protocols", async (store) => {
  const taken = await lock(store, order);
  expect([taken.status, taken.json(), taken.headers["content-type"]]).toEqual([
    200,
    { success: true },
    "application/json",
  ]);
  const request = { storeName: store, resourceId: "order 1", lockOwner: "w2", expiryInSeconds: 60 };
  expect((await grpc.unary(method.tryLockAlpha1, request)).success).toBe(false);
  expect((await grpc.unary(method.unlockAlpha1, request)).status).toBe(2);
  expect((await unlock(store, { resource_id: "order 1", lock_owner: "w2" })).json()).toEqual({ status: 2 });
  expect((await unlock(store, { resourceId: "order 1", lockOwner: "w1", unknown: 1 })).json()).toEqual({
    status: 0,
  });
  expect((await unlock(store, order)).json()).toEqual({ status: 1 });
  expect((await grpc.unary(method.tryLockAlpha1, request)).success).toBe(true);
  expect((await lock(store, { ...order, expiryInSeconds: "6e1" })).json()).toEqual({ success: false });
  expect((await grpc.unary(method.unlockAlpha1, request)).status).toBe(0);
  expect((await grpc.unary(method.unlockAlpha1, request)).status).toBe(1);
});

test("lock.nats tells a fencing number that grows, over both protocols", async () => {
  const request = { storeName: "nats", resourceId: "fenced", lockOwner: "w", expiryInSeconds: 60 };
  const first = await lock("nats", { resourceId: "fenced", lockOwner: "w", expiryInSeconds: 60 });
  await unlock("nats", { resourceId: "fenced", lockOwner: "w" });
  const second = await grpc.call(method.tryLockAlpha1, request);
  const fence = Number(first.headers["weft-fence"]);
  expect(fence).toBeGreaterThan(0);
  expect(Number(second.headers.get("weft-fence")[0])).toBeGreaterThan(fence);
  const refused = await lock("nats", { resourceId: "fenced", lockOwner: "w", expiryInSeconds: 60 });
  expect([refused.json(), refused.headers["weft-fence"]]).toEqual([{ success: false }, undefined]);
});

test("keys in Redis are those of Dapr", async () => {
  const body = { resourceId: "k", lockOwner: "me", expiryInSeconds: 60 };
  for (const store of ["redis", "named", "none", "team"]) {
    expect((await lock(store, body)).json()).toEqual({ success: true });
  }
  expect((await lock("redis", body, other)).json()).toEqual({ success: true });
  const keys = ["lock||shop||k", "lock||desk||k", "lock||named||k", "lock||k", "lock||namespace||k"];
  for (const key of keys) {
    expect((await askSocket("127.0.0.1", redis.port, `GET ${key}\r\n`)).toString()).toContain("me");
  }
});

const missing = { resourceId: "r", lockOwner: "o", expiryInSeconds: 5 };
const illegal = "input key/keyPrefix 'a||b' can't contain '||'";
test.each([
  [
    "redis",
    { ...missing, expiryInSeconds: 0 },
    400,
    "ERR_MALFORMED_REQUEST",
    3,
    "ExpiryInSeconds is not positive in lock store redis",
  ],
  [
    "redis",
    { ...missing, resourceId: "" },
    400,
    "ERR_MALFORMED_REQUEST",
    3,
    "ResourceId is empty in lock store redis",
  ],
  [
    "nowhere",
    { ...missing, lockOwner: "" },
    400,
    "ERR_MALFORMED_REQUEST",
    3,
    "LockOwner is empty in lock store nowhere",
  ],
  ["nowhere", missing, 400, "ERR_LOCK_STORE_NOT_FOUND", 3, "lock store nowhere not found"],
  [
    "nats",
    { ...missing, resourceId: "a||b" },
    500,
    "ERR_TRY_LOCK",
    13,
    `failed to try acquiring lock: ${illegal}`,
  ],
] as const)("%s %j fails with %i %s", async (storeName, body, status, errorCode, code, message) => {
  const answer = await lock(storeName, body);
  expect([answer.status, answer.text]).toEqual([status, JSON.stringify({ errorCode, message })]);
  const failure = await grpc
    .unary(method.tryLockAlpha1, { storeName, ...body })
    .catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(GrpcError);
  expect(failure).toMatchObject({ code, details: message });
  expect((failure as GrpcError).status()).toBeUndefined();
});

test("errors of unlock and of bodies that are none", async () => {
  const failed = await unlock("redis", { resourceId: "a||b", lockOwner: "o" });
  const message = `failed to release lock: ${illegal}`;
  expect([failed.status, failed.json()]).toEqual([500, { errorCode: "ERR_UNLOCK", message }]);
  for (const body of ["{", "[]", "null", '{"resourceId":1}', '{"expiryInSeconds":3e9}']) {
    const answer = await sidecar.post("/v1.0-alpha1/lock/redis", body);
    expect([answer.status, answer.json<{ message: string }>().message]).toEqual([
      400,
      expect.stringMatching(/^failed deserializing HTTP body: proto: /),
    ]);
  }
  const empty = await sidecar.post("/v1.0-alpha1/lock/redis");
  expect(empty.json<{ message: string }>().message).toBe(
    "ExpiryInSeconds is not positive in lock store redis",
  );
});

test("without any store, and with a key prefix that cannot be", async () => {
  await using bare = await startSidecar({ appId: "bare", nats, resources: {} });
  const message = "lock store is not configured";
  const text = JSON.stringify({ errorCode: "ERR_LOCK_STORE_NOT_CONFIGURED", message });
  for (const answer of [
    await lock("redis", { ...missing, resourceId: "" }, bare),
    await unlock("redis", {}, bare),
  ])
    expect([answer.status, answer.text]).toEqual([500, text]);
  const unlimited = await lock("redis", {}, bare);
  expect([unlimited.status, unlimited.json<{ message: string }>().message]).toEqual([
    400,
    "ExpiryInSeconds is not positive in lock store redis",
  ]);
  const wrong = component("bad", "lock.nats", { keyPrefix: "a||b" });
  await using ended = await startSidecar({
    appId: "bad",
    nats,
    resources: { "a.yaml": wrong },
    wait: "none",
  });
  expect(await ended.exited).toBe(1);
  const failed = "Failed to init component bad (lock.nats/v1): [INIT_COMPONENT_FAILURE]: ";
  expect(ended.logs()).toContain(`${failed}initialization error occurred for bad (lock.nats/v1): ${illegal}`);
}, 60_000);
