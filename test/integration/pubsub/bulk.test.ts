// The form of bulk deliveries over HTTP and gRPC, batches of pubsub.in-memory, and apps with the older gRPC method.
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { eventually, grpcClient, startApp, startGrpcApp, startNats, startSidecar } from "../../kit/index.ts";
import { pubsubComponent } from "./resources.ts";

const resources = { "p.yaml": pubsubComponent("pubsub.in-memory") };
const json = { "content-type": "application/json" };
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const id = expect.stringMatching(uuid) as string;

type Bulk = { readonly entries: readonly { readonly entryId: string }[] };

test("an HTTP app: memory gives batches of one after the whole wait; raw events are base64", async () => {
  await using nats = await startNats();
  const rawPayload = { rawPayload: "true" };
  await using app = await startApp({
    subscriptions: [
      { pubsubname: "pubsub", topic: "a", route: "a", bulkSubscribe: { enabled: true } },
      {
        pubsubname: "pubsub",
        topic: "r",
        route: "/r",
        metadata: rawPayload,
        bulkSubscribe: { enabled: true },
      },
    ],
    fallback: (request) => ({
      body: {
        STATUSES: request
          .json<Bulk>()
          .entries.map(({ entryId }) => ({ EntryId: entryId, Status: "SUCCESS" })),
      },
    }),
  });
  await using sidecar = await startSidecar({ appId: "shop", nats, appPort: app.port, resources });
  await sidecar.logged(/app is subscribed to topic r through/);
  const startMs = Date.now();
  const publish = async (path: string, body: string): Promise<void> => {
    const { status } = await sidecar.http(`/v1.0/publish/pubsub/${path}`, {
      method: "POST",
      headers: json,
      body,
    });
    expect(status).toBe(204);
  };
  await Promise.all([publish("a", '{"n":1.0}'), publish("r?metadata.rawPayload=true&metadata.k=v", "x")]);
  await publish("a", "[2]");
  const [first, second] = await app.received("/a", 2);
  expect(first!.atMs - startMs).toBeGreaterThanOrEqual(990);
  expect(second!.atMs - first!.atMs).toBeGreaterThanOrEqual(990);
  expect(first!.headers["content-type"]).toBe("application/json");
  const event = {
    datacontenttype: "application/json",
    id,
    pubsubname: "pubsub",
    source: "shop",
    specversion: "1.0",
    time: expect.any(String) as string,
    topic: "a",
    traceid: "",
    traceparent: "",
    tracestate: "",
    type: "com.dapr.event.sent",
  };
  const batch = (topic: string, entry: object): object => ({
    entries: [{ entryId: id, ...entry }],
    id,
    metadata: { pubsubName: "pubsub" },
    pubsubname: "pubsub",
    topic,
    type: "com.dapr.event.sent.bulk",
  });
  const type = "application/cloudevents+json";
  const told = (data: unknown): object =>
    batch("a", { contentType: type, event: { data, ...event }, metadata: null });
  expect([first!.json(), second!.json()]).toEqual([told({ n: 1 }), told([2])]);
  expect(first!.body.toString()).toContain('"data":{"n":1}');
  const [raw] = await app.received("/r", 1);
  const rawEntry = {
    contentType: "application/octet-stream",
    event: "eA==",
    metadata: { k: "v", ...rawPayload },
  };
  expect(raw!.json()).toEqual(batch("r", rawEntry));
});

test("a gRPC app may have the older method only; what neither takes is dropped", async () => {
  await using nats = await startNats();
  const bulkSubscribe = { enabled: true, maxAwaitDurationMs: 50 };
  await using app = await startGrpcApp({
    subscriptions: [
      { pubsubName: "pubsub", topic: "a", deadLetterTopic: "dead", bulkSubscribe },
      { pubsubName: "pubsub", topic: "dead" },
      { pubsubName: "pubsub", topic: "end" },
    ],
    onBulkTopicEventAlpha: ({ entries }) => entries.map(({ entryId }) => ({ entryId })),
  });
  const own = { appId: "shop", nats, appPort: app.port, appProtocol: "grpc", resources };
  await using sidecar = await startSidecar(own);
  using client = grpcClient(sidecar.grpcPort);
  await sidecar.logged(/app is subscribed to topic end through/);
  const publish = (topic: string, data: string, dataContentType: string): Promise<unknown> =>
    client.unary(Dapr.method.publishEvent, {
      pubsubName: "pubsub",
      topic,
      data: Buffer.from(data),
      dataContentType,
      metadata: { k: "v" },
    });
  await publish("a", '{"n":1.0}', "application/json");
  await publish("a", "bytes", "application/octet-stream");
  await eventually(() => expect(app.bulkEvents).toHaveLength(2));
  const [first, second] = app.bulkEvents.map(({ request }) => request);
  expect(first).toMatchObject({
    id,
    pubsubName: "pubsub",
    topic: "a",
    type: "com.dapr.event.sent.bulk",
    path: "",
    metadata: { pubsubName: "pubsub" },
    entries: [{ entryId: id, contentType: "application/cloudevents+json", metadata: { k: "v" } }],
  });
  const dataOf = ({ entries }: typeof first & object): string => {
    const { event } = entries[0]!;
    return event.case === "cloudEvent" ? Buffer.from(event.value.data).toString() : "";
  };
  expect([dataOf(first!), dataOf(second!)]).toEqual(['{"n":1}', "bytes"]);
  app.handlers.onBulkTopicEventAlpha = undefined;
  await publish("a", "3", "application/json");
  await sidecar.logged(/event of topic a of pubsub is dropped: the app does not take it/);
  await publish("end", "4", "application/json");
  expect((await app.received(1)).map(({ request }) => request.topic)).toEqual(["end"]);
});
