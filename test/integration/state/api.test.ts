// Every state call over HTTP and gRPC, through a real sidecar, on both stores.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type GrpcClient,
  GrpcError,
  type Nats,
  type Sidecar,
  eventually,
  grpcClient,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { stateComponent } from "./resources.ts";

const { method } = Dapr;
let nats: Nats;
let sidecar: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  nats = await startNats();
  sidecar = await startSidecar({
    appId: "shop",
    nats,
    resources: {
      "a.yaml": stateComponent("durable", "state.nats"),
      "b.yaml": stateComponent("fleeting", "state.in-memory"),
    },
  });
  grpc = grpcClient(sidecar.grpcPort);
});

afterAll(async () => {
  grpc?.[Symbol.dispose]();
  await sidecar?.[Symbol.asyncDispose]();
  await nats?.[Symbol.asyncDispose]();
});

describe.each(["durable", "fleeting"])("store %s", (storeName) => {
  const path = `/v1.0/state/${storeName}`;
  const readText = async (key: string): Promise<string> => {
    const found = await grpc.unary(method.getState, { storeName, key });
    return Buffer.from(found.data).toString();
  };

  test("saves, reads and deletes over HTTP", async () => {
    const saved = await sidecar.post(path, [{ key: "order", value: { total: 42, by: "Zoë" } }]);
    expect([saved.status, saved.text, saved.headers["content-type"]]).toEqual([204, "", undefined]);
    const found = await sidecar.get(`${path}/order`);
    expect(found.status).toBe(200);
    expect(found.text).toBe('{"by":"Zoë","total":42}');
    expect(found.headers["content-type"]).toBe("application/json");
    expect(found.headers["etag"]).toMatch(/^[0-9a-f-]+$/);
    expect((await sidecar.http(`${path}/order`, { method: "DELETE" })).status).toBe(204);
    const gone = await sidecar.get(`${path}/order`);
    expect([gone.status, gone.text]).toEqual([204, ""]);
  });

  test("saves over one protocol and reads over the other", async () => {
    await sidecar.post(path, [{ key: "from-http", value: "text" }]);
    expect(await readText("from-http")).toBe('"text"');
    const value = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    await grpc.unary(method.saveState, { storeName, states: [{ key: "from-grpc", value }] });
    expect(Buffer.compare((await sidecar.get(`${path}/from-grpc`)).bytes, value)).toBe(0);
  });

  test("keeps ETags over both protocols", async () => {
    await sidecar.post(path, [{ key: "tagged", value: 1 }]);
    const etag = String((await sidecar.get(`${path}/tagged`)).headers["etag"]);
    expect((await grpc.unary(method.getState, { storeName, key: "tagged" })).etag).toBe(etag);
    expect((await sidecar.post(path, [{ key: "tagged", value: 2, etag }])).status).toBe(204);
    const conflict = await sidecar.post(path, [{ key: "tagged", value: 3, etag }]);
    expect(conflict.status).toBe(409);
    expect(conflict.json()).toMatchObject({ errorCode: "ERR_STATE_SAVE" });
    const item = { key: "tagged", value: Buffer.from("4"), etag: { value: etag } };
    await expect(grpc.unary(method.saveState, { storeName, states: [item] })).rejects.toMatchObject({
      code: 10,
    });
    const headers = { "If-Match": etag };
    expect((await sidecar.http(`${path}/tagged`, { method: "DELETE", headers })).status).toBe(409);
    expect(await readText("tagged")).toBe("2");
  });

  test("creates with first-write only when the key is absent", async () => {
    const body = [{ key: "once", value: 1, options: { concurrency: "first-write" } }];
    expect((await sidecar.post(path, body)).status).toBe(204);
    expect((await sidecar.post(path, body)).status).toBe(409);
    await sidecar.http(`${path}/once`, { method: "DELETE" });
    expect((await sidecar.post(path, body)).status).toBe(204);
  });

  test("forgets what has a time to live", async () => {
    const save = (key: string, ttlInSeconds: number) =>
      sidecar.post(`${path}?metadata.ttlInSeconds=${ttlInSeconds}`, [{ key, value: 1 }]);
    expect((await save("long", 600)).status).toBe(204);
    const found = await sidecar.get(`${path}/long`);
    expect(found.headers["metadata.ttlexpiretime"]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    expect((await save("short", 1)).status).toBe(204);
    await eventually(async () => (await sidecar.get(`${path}/short`)).status === 204);
  });

  test("reads many", async () => {
    await sidecar.post(path, [
      { key: "m1", value: { a: "<b>" } },
      { key: "m2", value: 2 },
    ]);
    const found = await sidecar.post(`${path}/bulk`, { keys: ["m2", "absent", "m1"] });
    expect(found.text.replace(/"etag":"[^"]+"/g, '"etag":"E"')).toBe(
      '[{"key":"m2","data":2,"etag":"E"},{"key":"absent"},{"key":"m1","data":{"a":"\\u003cb\\u003e"},"etag":"E"}]\n',
    );
    const { items } = await grpc.unary(method.getBulkState, { storeName, keys: ["m1", "absent"] });
    expect(items.map(({ key, data }) => [key, Buffer.from(data).toString()])).toEqual([
      ["m1", '{"a":"\\u003cb\\u003e"}'],
      ["absent", ""],
    ]);
  });

  test("does transactions whole or not at all", async () => {
    await sidecar.post(path, [{ key: "t-old", value: 1 }]);
    const operations = [
      { operation: "upsert", request: { key: "t-new", value: 1 } },
      { operation: "delete", request: { key: "t-old" } },
    ];
    expect((await sidecar.post(`${path}/transaction`, { operations })).status).toBe(204);
    expect([await readText("t-new"), await readText("t-old")]).toEqual(["1", ""]);
    const failing = [
      { operation: "upsert", request: { key: "t-new", value: 2 } },
      { operation: "upsert", request: { key: "t-x", value: 2, etag: "987654321" } },
    ];
    const failed = await sidecar.post(`${path}/transaction`, { operations: failing });
    expect(failed.status).toBe(500);
    expect(failed.json()).toMatchObject({ errorCode: "ERR_STATE_TRANSACTION" });
    expect([await readText("t-new"), await readText("t-x")]).toEqual(["1", ""]);
    const wire = [{ operationType: "upsert", request: { key: "t-g", value: Buffer.from("g") } }];
    await grpc.unary(method.executeStateTransaction, { storeName, operations: wire });
    expect(await readText("t-g")).toBe("g");
  });

  test("deletes many over gRPC", async () => {
    await sidecar.post(path, [
      { key: "d1", value: 1 },
      { key: "d2", value: 2 },
    ]);
    await grpc.unary(method.deleteBulkState, { storeName, states: [{ key: "d1" }, { key: "d2" }] });
    expect([await readText("d1"), await readText("d2")]).toEqual(["", ""]);
  });

  test("sends the details of an error over gRPC", async () => {
    const call = grpc.unary(method.getState, { storeName, key: "a||b" });
    const error: unknown = await call.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(GrpcError);
    const status = (error as GrpcError).status();
    expect(status?.message).toBe("input key/keyPrefix 'a||b' can't contain '||'");
    expect(status?.details.map(({ typeUrl }) => typeUrl.split(".").at(-1))).toEqual([
      "BadRequest",
      "ResourceInfo",
      "ErrorInfo",
    ]);
  });
});

test("lists both stores with what they can do", async () => {
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{ components: unknown[] }>();
  const listed = (name: string, type: string): object => ({
    name,
    type,
    version: "v1",
    capabilities: expect.arrayContaining(["ETAG", "TRANSACTIONAL", "TTL"]),
  });
  expect(components).toEqual([listed("durable", "state.nats"), listed("fleeting", "state.in-memory")]);
});
