// Publish and subscribe over gRPC, and streaming subscriptions, through real sidecars on pubsub.nats.
import { expect, test } from "vitest";
import * as appcallback from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  type GrpcClient,
  type GrpcError,
  grpcClient,
  grpcStatus,
  startApp,
  startGrpcApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { pubsubComponent, subscription } from "./resources.ts";

const { TopicEventResponse_TopicEventResponseStatus: Status } = appcallback;
type Status = appcallback.TopicEventResponse_TopicEventResponseStatus;

const resources = {
  "p.yaml": pubsubComponent("pubsub.nats", { backOff: "50ms", protectedTopics: "secret" }),
};

function publish(
  client: GrpcClient,
  topic: string,
  data: string,
  metadata: Record<string, string> = {},
): Promise<unknown> {
  const request = {
    pubsubName: "pubsub",
    topic,
    data: Buffer.from(data),
    dataContentType: "application/json",
    metadata,
  };
  return client.unary(Dapr.method.publishEvent, request);
}

async function refusal(call: Promise<unknown>): Promise<[number, string]> {
  const error = await call.then(
    () => undefined,
    (thrown: GrpcError) => thrown,
  );
  return [error?.code ?? 0, error?.details ?? ""];
}

test("a gRPC app gets events of its own and of declared topics, and says what becomes of them", async () => {
  await using nats = await startNats();
  await using app = await startGrpcApp({ subscriptions: [{ pubsubName: "pubsub", topic: "own" }] });
  await using sidecar = await startSidecar({
    appId: "mail",
    nats,
    resources: { ...resources, "s.yaml": subscription("declared", "/path", "  deadLetterTopic: own\n") },
    appPort: app.port,
    appProtocol: "grpc",
  });
  await sidecar.subscribed("own");
  using client = grpcClient(sidecar.grpcPort);
  const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const request = {
    pubsubName: "pubsub",
    topic: "own",
    data: Buffer.from('{"b":1.0,"a":2}'),
    dataContentType: "application/json",
  };
  await client.unary(
    Dapr.method.publishEvent,
    { ...request, metadata: { note: "n" } },
    { metadata: { traceparent: trace } },
  );
  const [first] = await app.received(1);
  expect(first!.request).toMatchObject({
    source: "mail",
    type: "com.dapr.event.sent",
    specVersion: "1.0",
    dataContentType: "application/json",
    topic: "own",
    pubsubName: "pubsub",
    path: "",
    extensions: { topic: "own", pubsubname: "pubsub", traceid: trace, traceparent: trace, tracestate: "" },
  });
  expect(Buffer.from(first!.request.data).toString()).toBe('{"a":2,"b":1}');
  expect(first!.metadata.getMap()).toMatchObject({ note: "n", pubsubname: "pubsub", traceparent: trace });

  let answers: (Status | Error)[] = [Status.RETRY, grpcStatus(14, "busy"), Status.SUCCESS];
  app.handlers.onTopicEvent = () => {
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  };
  await publish(client, "own", '"again"');
  const again = (await app.received(4)).slice(1);
  expect(new Set(again.map((event) => event.request.id)).size).toBe(1);

  answers = [Status.DROP];
  await publish(client, "declared", '"dropped"');
  const [dropped, dead] = (await app.received(6)).slice(4);
  expect(dropped!.request).toMatchObject({ topic: "declared", path: "/path" });
  expect(dead!.request).toMatchObject({ topic: "own", id: dropped!.request.id });
});

test("refusals are statuses with the words of the API", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  using client = grpcClient(sidecar.grpcPort);
  const send = (request: object): Promise<[number, string]> =>
    refusal(client.unary(Dapr.method.publishEvent, request));
  expect(await send({ topic: "t" })).toEqual([3, "pubsub name is empty"]);
  expect(await send({ pubsubName: "nope", topic: "t" })).toEqual([3, "pubsub nope is not found"]);
  expect(await send({ pubsubName: "pubsub" })).toEqual([3, "topic is empty in pubsub pubsub"]);
  expect(await send({ pubsubName: "pubsub", topic: "secret" })).toEqual([
    7,
    "topic secret is not allowed for app id shop",
  ]);
  const entries = [{ entryId: "1", event: Buffer.from("1"), contentType: "application/json" }];
  const bulk = { pubsubName: "pubsub", topic: "t" };
  expect(await client.unary(Dapr.method.bulkPublishEvent, { ...bulk, entries })).toMatchObject({
    failedEntries: [],
  });
  const twice = { ...bulk, entries: [...entries, ...entries] };
  expect((await refusal(client.unary(Dapr.method.bulkPublishEvent, twice)))[0]).toBe(3);
});

test("a stream gets events, redelivers what it fails, and ends with the sidecar", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  using client = grpcClient(sidecar.grpcPort);
  const stream = client.stream(Dapr.method.subscribeTopicEventsAlpha1);
  const next = async (): Promise<{ id: string; data: string } | undefined> => {
    const said = (await stream.next())?.subscribeTopicEventsResponseType;
    if (said?.case !== "eventMessage") return undefined;
    return { id: said.value.id, data: Buffer.from(said.value.data).toString() };
  };
  const answer = (id: string, status: Status): void =>
    stream.send({
      subscribeTopicEventsRequestType: { case: "eventProcessed", value: { id, status: { status } } },
    });
  stream.send({
    subscribeTopicEventsRequestType: {
      case: "initialRequest",
      value: { pubsubName: "pubsub", topic: "orders" },
    },
  });
  expect(await next()).toBeUndefined();
  expect((await sidecar.get("/v1.0/metadata")).json()).toMatchObject({
    subscriptions: [{ topic: "orders", rules: [{ path: "/" }], type: "STREAMING" }],
  });
  await publish(client, "orders", "1");
  const first = await next();
  expect(first?.data).toBe("1");
  answer(first!.id, Status.RETRY);
  expect(await next()).toEqual(first);
  answer(first!.id, Status.SUCCESS);
  await publish(client, "orders", "2");
  const second = await next();
  expect(second?.data).toBe("2");
  answer(second!.id, Status.SUCCESS);
  const ended = refusal(next());
  await sidecar.stop();
  expect(await ended).toEqual([2, "stream closed"]);
});

test("an event that a stream leaves unanswered goes to the next one", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  using client = grpcClient(sidecar.grpcPort);
  const begin = () => {
    const stream = client.stream(Dapr.method.subscribeTopicEventsAlpha1);
    const value = { pubsubName: "pubsub", topic: "orders" };
    stream.send({ subscribeTopicEventsRequestType: { case: "initialRequest", value } });
    return stream;
  };
  const first = begin();
  await first.next();
  await publish(client, "orders", "1");
  expect((await first.next())?.subscribeTopicEventsResponseType.case).toBe("eventMessage");
  first.cancel();
  const second = begin();
  await second.next();
  expect((await second.next())?.subscribeTopicEventsResponseType).toMatchObject({ case: "eventMessage" });
  second.end();
  expect(await refusal(second.next())).toEqual([2, "EOF"]);
});

test("each stream gets all events of its topic, also while the app is ill; raw ones are bytes", async () => {
  await using nats = await startNats();
  await using app = await startApp({ routes: { "GET /healthz": () => ({ status: 503 }) } });
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    appPort: app.port,
    flags: ["--enable-app-health-check=true", "--app-health-probe-interval=1", "--app-health-threshold=1"],
    wait: "outbound",
    resources: { "p.yaml": pubsubComponent("pubsub.in-memory") },
  });
  using client = grpcClient(sidecar.grpcPort);
  const open = async (metadata: Record<string, string>) => {
    const stream = client.stream(Dapr.method.subscribeTopicEventsAlpha1);
    const value = { pubsubName: "pubsub", topic: "orders", metadata };
    stream.send({ subscribeTopicEventsRequestType: { case: "initialRequest", value } });
    expect((await stream.next())?.subscribeTopicEventsResponseType.case).toBe("initialResponse");
    return stream;
  };
  const streams = [await open({}), await open({}), await open({ rawPayload: "true" })];
  await publish(client, "orders", '{"n":1}');
  for (const [index, stream] of streams.entries()) {
    const got = (await stream.next())?.subscribeTopicEventsResponseType;
    if (got?.case !== "eventMessage") throw new Error(`the stream gave ${got?.case}`);
    const { dataContentType, data, path } = got.value;
    const isRaw = index === 2;
    expect([dataContentType, path]).toEqual([isRaw ? "application/octet-stream" : "application/json", "/"]);
    const text = Buffer.from(data).toString();
    expect(isRaw ? JSON.parse(text) : text).toEqual(
      isRaw ? expect.objectContaining({ data: { n: 1 }, topic: "orders" }) : '{"n":1}',
    );
  }
  expect((await sidecar.get("/v1.0/metadata")).json()).toMatchObject({
    subscriptions: [
      { topic: "orders", type: "STREAMING" },
      { topic: "orders", type: "STREAMING" },
      { topic: "orders", type: "STREAMING", metadata: { rawPayload: "true" } },
    ],
  });
  for (const stream of streams) stream.cancel();
});
