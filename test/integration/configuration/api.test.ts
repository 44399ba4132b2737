// The configuration API over HTTP and gRPC through a real sidecar: items, changes to both kinds of apps, every error.
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { createClient } from "redis";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { ErrorInfoSchema } from "../../../proto/gen/google/rpc/error_details_pb.ts";
import {
  type App,
  type GrpcClient,
  type GrpcError,
  type Nats,
  type Sidecar,
  eventually,
  grpcClient,
  startApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { type Postgres, startPostgres } from "../../kit/servers/postgres.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import type { Server } from "../../kit/servers/server.ts";
import { binding as component } from "../bindings/resources.ts";
import { put } from "../reload/place.ts";

const { method } = Dapr;
const connect = (address: string) => createClient({ url: `redis://${address}` }).connect();

let nats: Nats;
let server: Server;
let postgres: Postgres;
let redis: Awaited<ReturnType<typeof connect>>;
let app: App;
let sidecar: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  [nats, server, postgres, app] = await Promise.all([startNats(), startRedis(), startPostgres(), startApp()]);
  await postgres.query("CREATE TABLE settings (key text, value text, version text, metadata json)");
  redis = await connect(server.address);
  sidecar = await startSidecar({
    appId: "shop",
    nats,
    appPort: app.port,
    resources: {
      "redis.yaml": component("redis", "configuration.redis", { redisHost: server.address }),
      "postgres.yaml": component("postgres", "configuration.postgresql", {
        connectionString: postgres.url,
        table: "settings",
      }),
      "nats.yaml": component("nats", "configuration.nats", { pollInterval: "100ms" }),
    },
  });
  grpc = grpcClient(sidecar.grpcPort);
}, 120_000);

afterAll(async () => {
  grpc?.[Symbol.dispose]();
  await sidecar?.[Symbol.asyncDispose]();
  redis?.destroy();
  for (const it of [app, postgres, server, nats]) await it?.[Symbol.asyncDispose]();
});

const base = ["/v1.0/configuration", "/v1.0-alpha1/configuration"] as const;
const told = (path: string): unknown[] =>
  app.requests.filter((request) => request.path === path).map((request) => request.json());

test.each(base)("items over HTTP, %s", async (path) => {
  await redis.set("b", "blue||2");
  await redis.set("10", "<ten>");
  const found = await sidecar.get(`${path}/redis?key=b&key=10&key=none`);
  const text = '{"10":{"value":"\\u003cten\\u003e"},"b":{"value":"blue","version":"2"}}\n';
  expect([found.status, found.text, found.headers["content-type"]]).toEqual([200, text, "application/json"]);
  expect((await sidecar.get(`${path}/redis`)).json()).toMatchObject({ b: { value: "blue", version: "2" } });
  const none = await sidecar.get(`${path}/redis?key=none`);
  expect([none.status, none.text]).toEqual([204, ""]);
  expect((await sidecar.get(`${path}/nats?key=none`)).status).toBe(204);
});

test.each(["getConfiguration", "getConfigurationAlpha1"] as const)("items over gRPC, %s", async (name) => {
  await postgres.query("TRUNCATE settings");
  await postgres.query(`INSERT INTO settings VALUES ('k', 'v', '3', '{"who":"me"}')`);
  const { items } = await grpc.unary(method[name], { storeName: "postgres", keys: ["k", "none"] });
  expect(Object.keys(items)).toEqual(["k"]);
  expect(items["k"]).toMatchObject({ value: "v", version: "3", metadata: { who: "me" } });
});

test("changes reach an HTTP app until it unsubscribes", async () => {
  const subscribed = await sidecar.get(`${base[0]}/redis/subscribe?key=a%2Fb%20c%3F`);
  const { id } = subscribed.json<{ id: string }>();
  expect(subscribed.text).toBe(`{"id":"${id}"}\n`);
  const path = "/configuration/redis/a/b%20c%3F";
  await redis.set("a/b c?", "one||1");
  await redis.set("unheard", "x");
  const one = { id, items: { "a/b c?": { value: "one", version: "1" } } };
  await eventually(() => expect(told(path)).toEqual([one]));
  await redis.set("a/b c?", "one||1");
  await eventually(() => expect(told(path)).toEqual([one, one]));
  await redis.del("a/b c?");
  await eventually(() => expect(told(path).at(-1)).toEqual({ id, items: { "a/b c?": {} } }));
  const request = app.requests.find((it) => it.path === path)!;
  expect([request.method, request.headers["content-type"], request.body.at(-1)]).toEqual([
    "POST",
    "application/json",
    10,
  ]);
  const ended = await sidecar.get(`${base[1]}/redis/${id}/unsubscribe`);
  expect([ended.status, ended.text]).toEqual([200, '{"ok":true}\n']);
  const again = await sidecar.get(`${base[0]}/redis/${id}/unsubscribe`);
  const failed = `failed to unsubscribe to configuration request ${id}`;
  const message = `${failed}: subscription with id ${id} does not exist`;
  expect([again.status, again.text]).toEqual([500, `${JSON.stringify({ message })}\n`]);
});

test.each([
  ["subscribeConfiguration", "unsubscribeConfiguration"],
  ["subscribeConfigurationAlpha1", "unsubscribeConfigurationAlpha1"],
] as const)("changes come on a gRPC stream, %s", async (subscribe, unsubscribe) => {
  const stream = grpc.stream(method[subscribe]);
  const metadata = { pgNotifyChannel: "changes" };
  stream.send({ storeName: "postgres", keys: ["k"], metadata });
  stream.end();
  const first = (await stream.next())!;
  expect(Object.keys(first.items)).toEqual([]);
  const notify = (key: string): Promise<unknown> =>
    postgres.query("SELECT pg_notify('changes', $1)", [
      JSON.stringify({ Data: { Key: key, value: "new", version: "4", metadata: { a: "b" } } }),
    ]);
  await notify("other");
  await notify("k");
  const change = (await stream.next())!;
  expect(change.id).toBe(first.id);
  expect(change.items["k"]).toMatchObject({ value: "new", version: "4", metadata: { a: "b" } });
  const unknown = await grpc.unary(method[unsubscribe], { storeName: "x", id: "nobody" });
  const message = "failed to unsubscribe to configuration request nobody: subscription does not exist";
  expect([unknown.ok, unknown.message]).toEqual([false, message]);
  expect((await grpc.unary(method[unsubscribe], { storeName: "x", id: first.id })).ok).toBe(true);
  expect(await stream.next()).toBeUndefined();
});

test("errors", async () => {
  const unknown = await sidecar.get(`${base[0]}/nowhere?key=a`);
  const message = "configuration store nowhere not found";
  const errorCode = "ERR_CONFIGURATION_STORE_NOT_FOUND";
  expect([unknown.status, unknown.text]).toEqual([400, JSON.stringify({ errorCode, message })]);
  const failed = await sidecar.get(`${base[0]}/postgres?key=a&key=b%20c`);
  expect([failed.status, failed.json()]).toEqual([
    500,
    {
      errorCode: "ERR_CONFIGURATION_GET",
      message: "failed to get [a b c] from Configuration store postgres: invalid key : 'b c'",
    },
  ]);
  const refused = await sidecar.get(`${base[0]}/postgres/subscribe?key=k`);
  expect([refused.status, refused.json<{ errorCode: string }>().errorCode]).toEqual([
    500,
    "ERR_CONFIGURATION_SUBSCRIBE",
  ]);
  const stream = grpc.stream(method.subscribeConfiguration);
  stream.send({ storeName: "postgres", keys: ["k"] });
  await expect(stream.next()).rejects.toMatchObject({
    code: 3,
    details: expect.stringMatching(
      /^failed to subscribe \[k\] from Configuration store postgres: /,
    ) as unknown,
  });
  const failure = await grpc.unary(method.getConfiguration, { storeName: "nowhere" }).catch((error) => error);
  expect(failure).toMatchObject({ code: 3, details: message });
  const [info] = (failure as GrpcError).status()!.details;
  expect(anyUnpack(info!, ErrorInfoSchema)).toMatchObject({ reason: errorCode, domain: "dapr.io" });
});

test("a stream that its client leaves is no subscription any more", async () => {
  const stream = grpc.stream(method.subscribeConfiguration);
  stream.send({ storeName: "redis", keys: ["left"] });
  const { id } = (await stream.next())!;
  const listeners = async (): Promise<unknown> =>
    (await redis.sendCommand(["PUBSUB", "NUMSUB", "__keyspace@0__:left"])) as unknown;
  expect(await listeners()).toEqual(["__keyspace@0__:left", 1]);
  stream.cancel();
  await eventually(async () => expect(await listeners()).toEqual(["__keyspace@0__:left", 0]));
  expect((await grpc.unary(method.unsubscribeConfiguration, { storeName: "redis", id })).ok).toBe(false);
});

test("a replaced component takes its subscriptions along", async () => {
  const { id } = (await sidecar.get(`${base[0]}/redis/subscribe?key=moved`)).json<{ id: string }>();
  const other = component("redis", "configuration.redis", { redisHost: server.address, redisDB: "1" });
  put(sidecar, "redis.yaml", other);
  const path = "/configuration/redis/moved";
  await eventually(
    async () => {
      await redis.sendCommand(["EVAL", "redis.call('SELECT', 1) redis.call('SET', 'moved', 'here')", "0"]);
      await eventually(() => expect(told(path).at(-1)).toEqual({ id, items: { moved: { value: "here" } } }), {
        timeoutMs: 500,
      });
    },
    { timeoutMs: 20_000 },
  );
  expect((await sidecar.get(`${base[0]}/redis/${id}/unsubscribe`)).status).toBe(200);
}, 30_000);

test("without an app, and without any store", async () => {
  await using bare = await startSidecar({
    appId: "bare",
    nats,
    resources: { "nats.yaml": component("nats", "configuration.nats") },
  });
  const refused = await bare.get(`${base[0]}/nats/subscribe`);
  const nil = "app channel is not initialized. cannot subscribe to configuration updates";
  expect([refused.status, refused.text]).toEqual([
    500,
    `${JSON.stringify({ errorCode: "ERR_APP_CHANNEL_NIL", message: nil })}\n`,
  ]);
  await using empty = await startSidecar({ appId: "empty", nats, resources: {} });
  const message = "configuration stores not configured";
  const text = JSON.stringify({ errorCode: "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", message });
  for (const path of ["", "/subscribe", "/id/unsubscribe"]) {
    const answer = await empty.get(`${base[0]}/redis${path}`);
    expect([answer.status, answer.text]).toEqual([500, text]);
  }
}, 60_000);
