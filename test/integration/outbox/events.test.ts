// The outbox: events of state transactions over HTTP and gRPC, on pubsub.nats and state.nats.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type App,
  eventually,
  type GrpcClient,
  grpcClient,
  type Nats,
  type Sidecar,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { pubsubComponent } from "../pubsub/resources.ts";
import { stateComponent } from "../state/resources.ts";
import { eventsOf, outboxStore, type Published, relays, startTaker, transact } from "./events.ts";

let nats: Nats;
let app: App;
let shop: Sidecar;
let mail: Sidecar;
let grpc: GrpcClient;

beforeAll(async () => {
  [nats, app] = await Promise.all([startNats(), startTaker()]);
  const pubsub = pubsubComponent("pubsub.nats");
  // The same store without key prefix: it sees markers.
  const bare = stateComponent("store", "state.nats", { keyPrefix: "none" });
  mail = await startSidecar({
    appId: "mail",
    nats,
    resources: { "p.yaml": pubsub, "s.yaml": bare },
    appPort: app.port,
  });
  const resources = { "p.yaml": pubsub, "s.yaml": outboxStore("state.nats") };
  shop = await startSidecar({ appId: "shop", nats, resources });
  grpc = grpcClient(shop.grpcPort);
  await Promise.all([relays(shop), mail.subscribed("orders")]);
});

afterAll(async () => {
  grpc?.[Symbol.dispose]();
  for (const it of [shop, mail, app, nats]) await it?.[Symbol.asyncDispose]();
});

let seen = 0;
beforeEach(() => void (seen = eventsOf(app).length));

/** The next events, once there are so many of them. */
async function next(count: number): Promise<Published[]> {
  return eventually(
    () => {
      const events = eventsOf(app).slice(seen);
      expect(events).toHaveLength(count);
      return events;
    },
    { timeoutMs: 20_000 },
  );
}

async function status(reply: ReturnType<typeof transact>): Promise<[number, string]> {
  const { status: code, text } = await reply;
  return [code, text];
}

async function stored(key: string): Promise<string> {
  return (await shop.get(`/v1.0/state/store/${key}`)).text;
}

test("every upsert is an event with all attributes, a delete is none, and the markers go", async () => {
  const value = { z: 1, a: "<b>" };
  const upsert = { key: "one", value, contentType: "application/json" };
  expect(await status(transact(shop, [upsert, "gone", { key: "two", value: "text" }]))).toEqual([204, ""]);
  const events = await next(2);
  const json = events.find(({ datacontenttype }) => datacontenttype === "application/json")!;
  expect(json).toEqual({
    data: value,
    datacontenttype: "application/json",
    id: expect.stringMatching(/^outbox-[0-9a-f-]{36}$/) as string,
    pubsubname: "pubsub",
    source: "shop",
    specversion: "1.0",
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$/) as string,
    topic: "orders",
    traceid: "",
    traceparent: "",
    tracestate: "",
    type: "com.dapr.event.sent",
  });
  const text = events.find((event) => event !== json);
  expect(text).toMatchObject({ datacontenttype: "text/plain", data: "text" });
  expect(await stored("one")).toBe(String.raw`{"a":"\u003cb\u003e","z":1}`);
  for (const { id } of events)
    await eventually(async () => expect((await mail.get(`/v1.0/state/store/${id}`)).status).toBe(204));
});

test("the same over gRPC: bytes as they are, the content type from the metadata", async () => {
  const upsert = (key: string, value: string | Buffer, metadata: Record<string, string> = {}): object => ({
    operationType: "upsert",
    request: { key, value: Buffer.from(value), metadata },
  });
  await grpc.unary(Dapr.method.executeStateTransaction, {
    storeName: "store",
    operations: [
      upsert("json", '{"n":1.0,"long":12345678901234567890}', { contentType: "application/json" }),
      upsert("bytes", Buffer.from([0, 255]), { contentType: "application/octet-stream" }),
      upsert("plain", '{"a":1}'),
      { operationType: "delete", request: { key: "gone" } },
    ] as never,
  });
  const events = await next(3);
  const of = (type: string): Published => events.find(({ datacontenttype }) => datacontenttype === type)!;
  const raw = app.requestsTo("/orders").find(({ body }) => body.includes("12345678901234567890"));
  expect(raw!.body.toString()).toContain('"data":{"long":12345678901234567890,"n":1.0}');
  expect(of("application/octet-stream")).toMatchObject({ data_base64: "AP8=" });
  expect(of("text/plain").data).toBe('{"a":1}');
  expect(await stored("plain")).toBe('{"a":1}');
});

test("metadata of the operation are attributes under their literal names", async () => {
  const metadata = {
    id: "mine",
    data: "mine",
    type: "order.placed",
    source: "till",
    subject: "S",
    "cloudevent.type": "only an attribute",
    topic: "elsewhere",
    __proto__x: "p",
    Note: "body",
  };
  const query = "?metadata.Note=url&metadata.contentType=application/json";
  expect(await status(transact(shop, [{ key: "attributes", value: [1], metadata }], query))).toEqual([
    204,
    "",
  ]);
  const [event] = await next(1);
  expect(event).toMatchObject({
    id: expect.stringMatching(/^outbox-/) as string,
    data: [1],
    type: "order.placed",
    source: "till",
    subject: "S",
    "cloudevent.type": "only an attribute",
    contentType: "application/json",
    datacontenttype: "application/json",
    topic: "orders",
    pubsubname: "pubsub",
    __proto__x: "p",
    Note: "url",
  });
});

test("values without a content type are text: strings as they are, all else as JSON", async () => {
  const values = ['a "text"', 12.5, 1234567, true, null, { a: 1 }, [1, "x"]];
  await transact(
    shop,
    values.map((value, index) => ({ key: `text-${index}`, value, metadata: { index: String(index) } })),
  );
  const events = await next(values.length);
  const data = values.map((_, index) => events.find((event) => event["index"] === String(index))!.data);
  expect(data).toEqual(['a "text"', "12.5", "1234567", "true", "null", '{"a":1}', '[1,"x"]']);
});

test("a projection is published in place of the value and not stored", async () => {
  const projection = { "outbox.projection": "true" };
  const operations = [
    { key: "p", value: { all: "of it" }, metadata: { subject: "of the stored" } },
    {
      key: "p",
      value: { shown: 1 },
      contentType: "application/json",
      metadata: { ...projection, subject: "of the projection" },
    },
    { key: "alone", value: "nobody's", metadata: projection },
  ];
  expect(await status(transact(shop, operations))).toEqual([204, ""]);
  const [event] = await next(1);
  expect(event).toMatchObject({ data: { shown: 1 }, subject: "of the stored" });
  expect(await stored("p")).toBe('{"all":"of it"}');
  expect(await stored("alone")).toBe("");
  expect(await status(transact(shop, [operations[2]!]))).toEqual([204, ""]);
  expect((await next(1)).length).toBe(1);
});

test("an event carries the trace of the request that made it", async () => {
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  await shop.http("/v1.0/state/store/transaction", {
    method: "POST",
    headers: { traceparent, tracestate: "a=1" },
    body: JSON.stringify({ operations: [{ operation: "upsert", request: { key: "t", value: 1 } }] }),
  });
  const [event] = await next(1);
  expect(event).toMatchObject({ traceid: traceparent, traceparent: "", tracestate: "a=1" });
});

test("failed transactions publish nothing and hold nobody back", async () => {
  await transact(shop, [{ key: "guarded", value: 1 }]);
  await next(1);
  const startMs = Date.now();
  const failed = { key: "guarded", value: 2, etag: "999999" };
  const replies = await Promise.all(
    Array.from({ length: 40 }, () => status(transact(shop, [failed, { key: "beside", value: 1 }]))),
  );
  for (const [code, text] of replies) {
    expect(code).toBe(500);
    expect(text).toMatch(/ERR_STATE_TRANSACTION.*etag mismatch/);
  }
  await transact(shop, [{ key: "after", value: "after" }]);
  const events = await next(2);
  expect(events.map(({ data }) => data)).toEqual(["1", "after"]);
  expect(Date.now() - startMs).toBeLessThan(10_000);
  expect(await stored("beside")).toBe("");
});

test("more writes than the store takes, markers included, are refused before anything is published", async () => {
  const many = Array.from({ length: 501 }, (_, index) => ({ key: `many-${index}`, value: index }));
  const [code, text] = await status(transact(shop, many));
  expect(code).toBe(400);
  expect(text).toMatch(/ERR_STATE_STORE_TOO_MANY_TRANSACTIONS.*contains 1002 operations/);
  expect(await status(transact(shop, many.slice(0, 200)))).toEqual([204, ""]);
  expect(await next(200)).toHaveLength(200);
});
