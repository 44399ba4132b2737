// State stores on real servers, through a sidecar: the same rules over HTTP and gRPC, whatever the store.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type GrpcClient,
  type Nats,
  type Sidecar,
  grpcClient,
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
import { type Postgres, startPostgres } from "../../kit/servers/postgres.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import type { Server } from "../../kit/servers/server.ts";
import { stateComponent } from "./resources.ts";

const names = ["lite", "red", "pg1", "pg2"];
let nats: Nats;
let redis: Server;
let postgres: Postgres;
let sidecar: Sidecar;
let grpc: GrpcClient;
const folder = tempDir("sqlite");

beforeAll(async () => {
  [nats, redis, postgres] = await Promise.all([startNats(), startRedis(), startPostgres()]);
  const pg = { connectionString: postgres.url };
  const resources = {
    "lite.yaml": stateComponent("lite", "state.sqlite3", { connectionString: folder.join("s.db") }),
    "red.yaml": stateComponent("red", "state.redis", { redisHost: redis.address, queryIndexes: "[]" }),
    "pg1.yaml": stateComponent("pg1", "state.postgres", pg),
    "pg2.yaml": stateComponent("pg2", "state.postgresql", { ...pg, tablePrefix: "v2_" }).replace(
      "version: v1",
      "version: v2",
    ),
  };
  sidecar = await startSidecar({ appId: "shop", nats, resources });
  grpc = grpcClient(sidecar.grpcPort);
});

afterAll(async () => {
  grpc?.[Symbol.dispose]();
  await sidecar?.[Symbol.asyncDispose]();
  for (const server of [nats, redis, postgres]) await server?.[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

test("the metadata API lists what each store can do", async () => {
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{
    components: { name: string; type: string; version: string; capabilities: string[] }[];
  }>();
  const common = ["ETAG", "TRANSACTIONAL", "TTL", "KEYS_LIKE"];
  const known = Object.fromEntries(components.map((it) => [it.name, it.capabilities]));
  expect(known).toEqual({
    lite: [...common, "ACTOR"],
    red: [...common, "ACTOR"],
    pg1: [...common, "QUERY_API", "ACTOR"],
    pg2: [...common, "ACTOR"],
  });
});

test("a query answers page by page over both protocols", async () => {
  const path = "/v1.0-alpha1/state/pg1/query";
  const people = ["Ann", "Bob", "Cem"].map((name, age) => ({ key: name, value: { team: "q", name, age } }));
  await sidecar.post("/v1.0/state/pg1", people);
  const query = {
    filter: { AND: [{ EQ: { team: "q" } }, { GTE: { age: 1 } }] },
    sort: [{ key: "name", order: "DESC" }],
    page: { limit: 1 },
  };
  const first = (await sidecar.post(path, query)).json<{
    results: { key: string; data: object }[];
    token: string;
  }>();
  expect(first).toMatchObject({ results: [{ key: "Cem", data: { name: "Cem", age: 2 } }], token: "1" });
  const next = JSON.stringify({ ...query, page: { limit: 1, token: first.token } });
  const { message } = await grpc.call(Dapr.method.queryStateAlpha1, { storeName: "pg1", query: next });
  expect(message.results.map(({ key }) => key)).toEqual(["Bob"]);
  const last = await sidecar.post(path, { ...query, page: { limit: 1, token: "2" } });
  expect(last.status).toBe(204);
});

test("Redis minds the ETag of a save unless it is last-write, and remembers every first-write", async () => {
  const save = async (value: number, more: object): Promise<number> =>
    (await sidecar.post("/v1.0/state/red", [{ key: "marked", value, ...more }])).status;
  const first = { options: { concurrency: "first-write" } };
  const last = { options: { concurrency: "last-write" } };
  expect(await save(1, {})).toBe(204);
  expect(await save(2, { etag: "9" })).toBe(409);
  expect(await save(2, { etag: "9", ...last })).toBe(204);
  expect(await save(3, { etag: "none", ...last })).toBe(204);
  expect(await save(4, { etag: "3", ...first })).toBe(204);
  expect(await save(5, first)).toBe(500);
  expect(await save(5, {})).toBe(500);
  expect((await sidecar.get("/v1.0/state/red/marked")).text).toBe("4");
  const upsert = (more: object) => ({ operation: "upsert", request: { key: "unmarked", value: 1, ...more } });
  const transact = (more: object) =>
    sidecar.post("/v1.0/state/red/transaction", { operations: [upsert(more)] });
  for (const more of [first, { etag: "9", ...last }, {}]) expect((await transact(more)).status).toBe(204);
});

test("Redis tells that it answers no queries", async () => {
  const answer = await sidecar.post("/v1.0-alpha1/state/red/query", {});
  expect([answer.status, answer.json()]).toMatchObject([
    500,
    { errorCode: "ERR_STATE_STORE_NOT_SUPPORTED", message: "state store does not support querying" },
  ]);
  await sidecar.logged(/queryIndexes has no effect: this store answers no queries/);
});

describe.each(names)("store %s", (store) => {
  const path = `/v1.0/state/${store}`;

  test("an ETag guards over both protocols", async () => {
    await sidecar.post(path, [{ key: "k", value: { total: 1 } }]);
    const read = await sidecar.get(`${path}/k`);
    expect(read.json()).toEqual({ total: 1 });
    const etag = read.headers["etag"] as string;
    const overGrpc = await grpc.call(Dapr.method.getState, { storeName: store, key: "k" });
    expect(overGrpc.message.etag).toBe(etag);
    expect((await sidecar.post(path, [{ key: "k", value: 2, etag }])).status).toBe(204);
    expect((await sidecar.post(path, [{ key: "k", value: 3, etag }])).status).toBe(409);
    const states = [{ key: "k", value: Buffer.from("3"), etag: { value: etag } }];
    await expect(grpc.call(Dapr.method.saveState, { storeName: store, states })).rejects.toMatchObject({
      code: 10,
    });
    expect((await sidecar.get(`${path}/k`)).text).toBe("2");
  });

  test("a transaction is all or nothing, and names the key that failed", async () => {
    await sidecar.post(path, [{ key: "a", value: 1 }]);
    const etag = (await sidecar.get(`${path}/a`)).headers["etag"];
    await sidecar.post(path, [{ key: "a", value: 2 }]);
    const upsert = (key: string, more = {}) => ({ operation: "upsert", request: { key, value: 9, ...more } });
    const refused = await sidecar.post(`${path}/transaction`, {
      operations: [upsert("b"), upsert("a", { etag })],
    });
    expect(refused.status).toBe(500);
    expect(refused.json<{ message: string }>().message).toContain("key 'a' was changed or deleted");
    expect((await sidecar.get(`${path}/b`)).status).toBe(204);
    const done = await sidecar.post(`${path}/transaction`, {
      operations: [upsert("b"), { operation: "delete", request: { key: "a" } }],
    });
    expect(done.status).toBe(204);
    const bulk = await sidecar.post(`${path}/bulk`, { keys: ["a", "b"] });
    expect(bulk.json()).toMatchObject([{ key: "a" }, { key: "b", data: 9 }]);
  });

  test("an option that is none is refused, but for deletes in PostgreSQL", async () => {
    const item = { key: "odd", value: 1, options: { consistency: "x" } };
    expect((await sidecar.post(path, [item])).json()).toMatchObject({
      errorCode: "ERR_STATE_SAVE",
      message: `failed saving state in state store ${store}: unrecognized consistency model 'x'`,
    });
    const deleted = await sidecar.http(`${path}/odd?concurrency=x`, { method: "DELETE" });
    expect(deleted.status).toBe(store.startsWith("pg") ? 204 : 500);
  });

  test("bytes over gRPC come back untouched", async () => {
    const value = Uint8Array.of(0, 255, 10, 34);
    await grpc.call(Dapr.method.saveState, { storeName: store, states: [{ key: "bytes", value }] });
    const { message } = await grpc.call(Dapr.method.getState, { storeName: store, key: "bytes" });
    expect([...message.data]).toEqual([...value]);
  });

  test("a time to live that is none is refused", async () => {
    for (const ttlInSeconds of store === "red" ? ["soon"] : ["soon", "-2", "2147483648"]) {
      const answer = await sidecar.post(path, [{ key: "ttl", value: 1, metadata: { ttlInSeconds } }]);
      const words = store === "red" ? "" : "error parsing TTL: ";
      const fault = `${words}incorrect value for metadata 'ttlInSeconds': `;
      expect([answer.status, answer.json<{ message: string }>().message]).toEqual([
        500,
        expect.stringContaining(`failed saving state in state store ${store}: ${fault}`),
      ]);
    }
  });
});
