import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { testPubSubBlock } from "../../../test/contract/pubsub-block.ts";
import type { TestedPubSub } from "../../../test/contract/pubsub-block.ts";
import { eventually } from "../../../test/kit/eventually.ts";
import {
  ListTopicSubscriptionsResponseSchema,
  TopicEventRequestSchema,
  TopicEventResponseSchema,
} from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import type { TopicEventRequest } from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import type { AppChannel, AppGrpcRequest, AppHttpRequest, AppHttpResponse } from "../../app/channel.ts";

const subscribePath = "/dapr/subscribe";

/** An app with a list of its own topics (404 when undefined, a number as status) that answers events as told. */
function appOf(
  list: unknown,
  onEvent: (request: AppHttpRequest) => Partial<AppHttpResponse> | Error = () => ({}),
) {
  return (request: AppHttpRequest): Partial<AppHttpResponse> | Error => {
    if (request.path !== subscribePath) return onEvent(request);
    if (list instanceof Error) return list;
    if (list === undefined) return { status: 404 };
    if (typeof list === "number") return { status: list };
    return { body: Buffer.from(typeof list === "string" ? list : JSON.stringify(list)) };
  };
}

function listed(tested: TestedPubSub): unknown {
  return tested.block.metadata!()["subscriptions"];
}

/** Lets retries run: moves the clock until the promise has settled. */
async function inTime<T>(tested: TestedPubSub, promise: Promise<T>): Promise<T> {
  let settled = false;
  const done = promise.finally(() => (settled = true));
  while (!settled) {
    await new Promise((resolve) => setImmediate(resolve));
    tested.clock.advance(100);
  }
  return done;
}

describe("the subscriptions of an app", () => {
  it("are asked for once, with its id", async () => {
    const tested = await testPubSubBlock({
      app: appOf([{ pubsubname: "pubsub", topic: "own", route: "/own" }]),
    });
    await tested.block.appReady!();
    expect(tested.asked).toEqual([
      {
        verb: "GET",
        path: subscribePath,
        headers: ["dapr-app-id", "app", "content-type", "application/json"],
        body: undefined,
      },
    ]);
    expect(tested.broker.subscribed).toEqual([{ topic: "own", metadata: {}, rawPayload: false, batch: 1 }]);
  });

  it("are chosen: the first declarative, unless the app names the topic itself", async () => {
    const path = (name: string): { match: string; path: string }[] => [{ match: "", path: name }];
    const tested = await testPubSubBlock({
      subscriptions: [
        { topic: "a", rules: path("/first"), deadLetterTopic: "dead" },
        { topic: "a", rules: path("/second") },
        { topic: "b", rules: path("/declared"), metadata: { rawPayload: "true" } },
        { topic: "c", pubsubname: "elsewhere", rules: [] },
      ],
      app: appOf([
        { pubsubname: "pubsub", topic: "b", route: "/one" },
        {
          pubsubname: "pubsub",
          topic: "b",
          routes: { rules: [{ match: "true", path: "/x" }], default: "/two" },
        },
      ]),
    });
    await tested.block.appReady!();
    expect(tested.broker.subscribed.map((it) => it.topic)).toEqual(["a", "b"]);
    expect(listed(tested)).toEqual([
      {
        pubsubname: "pubsub",
        topic: "a",
        rules: [{ path: "/first" }],
        deadLetterTopic: "dead",
        type: "DECLARATIVE",
      },
      {
        pubsubname: "pubsub",
        topic: "b",
        rules: [{ match: "true", path: "/x" }, { path: "/two" }],
        deadLetterTopic: "",
        type: "PROGRAMMATIC",
      },
      { pubsubname: "elsewhere", topic: "c", deadLetterTopic: "", type: "DECLARATIVE" },
    ]);
  });

  it("list metadata, and declarative ones before the app is there", async () => {
    const tested = await testPubSubBlock({ subscriptions: [{ metadata: { a: "b" } }] });
    expect(listed(tested)).toMatchObject([{ metadata: { a: "b" }, type: "DECLARATIVE" }]);
  });

  it.each([
    ["404", undefined, ["orders"]],
    ["500", 500, ["orders"]],
    ["an empty list", [], ["orders"]],
    ["nonsense", "nope", []],
    ["metadata that is no text", [{ metadata: { a: 1 } }], []],
  ])("after the app answers %s are the declarative ones, or none", async (_, list, topics) => {
    const tested = await testPubSubBlock({ subscriptions: [{}], app: appOf(list) });
    await tested.block.appReady!();
    expect(tested.broker.subscribed.map((it) => it.topic)).toEqual(topics);
  });

  it("do not start when the app cannot be asked, after three more tries", async () => {
    const tested = await testPubSubBlock({ subscriptions: [{}], app: appOf(new Error("refused")) });
    await inTime(tested, tested.block.appReady!());
    expect(tested.asked).toHaveLength(4);
    expect(tested.broker.subscribed).toEqual([]);
    expect(tested.logged.at(-1)).toContain("no subscription of the app starts: refused");
  });

  it("ask nobody when there is no app", async () => {
    const tested = await testPubSubBlock({ subscriptions: [{}] });
    await tested.block.appReady!();
    expect(tested.broker.subscribed).toEqual([]);
  });

  it("refuse rules that are no expressions, naming file and line", async () => {
    const rules = [{ match: "event.type ==", path: "/a" }];
    await expect(testPubSubBlock({ subscriptions: [{ rules }] })).rejects.toThrow(
      'subs.yaml:7: subscription sub: routing rule "event.type ==" is no CEL expression',
    );
  });

  it("start nothing when a rule of the app is no expression", async () => {
    const odd = { pubsubname: "pubsub", topic: "odd", routes: { rules: [{ match: "event.", path: "/a" }] } };
    const tested = await testPubSubBlock({
      app: appOf([odd, { pubsubname: "pubsub", topic: "fine", route: "/f" }]),
    });
    await tested.block.appReady!();
    expect(tested.broker.subscribed).toEqual([]);
    expect(tested.logged.join()).toContain("no subscription of the app starts: routing rule");
  });

  it("respect scopes and namespaces", async () => {
    const properties = { subscriptionScopes: "app=orders", x: "{namespace}" };
    const tested = await testPubSubBlock({
      properties,
      subscriptions: [{}, { topic: "secret" }],
      app: appOf(undefined),
    });
    await tested.block.appReady!();
    expect(tested.broker.subscribed.map((it) => it.topic)).toEqual(["prodorders"]);
    expect(tested.logged.join()).toContain(
      "subscription to topic 'secret' on pubsub 'pubsub' is not allowed",
    );
  });

  it("are tried again for ever when the broker refuses", async () => {
    const tested = await testPubSubBlock({ subscriptions: [{}], app: appOf(undefined) });
    tested.broker.failure = new Error("no broker");
    await tested.block.appReady!();
    const refused = (): number => tested.logged.filter((line) => line.includes("no broker")).length;
    for (const [waitMs, tries] of [
      [499, 1],
      [1, 2],
      [999, 2],
      [1, 3],
      [119_500, 9],
      [500, 10],
    ] as const) {
      for (let passed = 0; passed < waitMs; passed += 500) {
        tested.clock.advance(Math.min(500, waitMs - passed));
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(refused()).toBe(tries);
    }
    tested.broker.failure = undefined;
    tested.clock.advance(30_000);
    await eventually(() => expect(tested.broker.subscribed).toHaveLength(1));
  });

  it("end with the sidecar, within its grace", async () => {
    const tested = await testPubSubBlock({ subscriptions: [{}, { topic: "b" }], app: appOf(undefined) });
    await tested.block.appReady!();
    await tested.block.stop!(5000);
    expect(tested.broker.stops).toEqual([5000, 5000]);
  });
});

describe("an event", () => {
  const ingress = "component_pubsub_ingress_count pubsub prod";

  async function started(
    onEvent: (request: AppHttpRequest) => Partial<AppHttpResponse> | Error,
    subscription: object = {},
    options: object = {},
  ): Promise<TestedPubSub> {
    const tested = await testPubSubBlock({
      subscriptions: [subscription],
      app: appOf(undefined, onEvent),
      ...options,
    });
    await tested.block.appReady!();
    return tested;
  }

  it("reaches the app and is done", async () => {
    const tested = await started(() => ({}));
    const data = Buffer.from('{"id":"1"}');
    await tested.broker.deliver("orders", { data, metadata: { a: "b" } });
    expect(tested.asked[1]).toMatchObject({ verb: "POST", path: "/orders", body: data });
    expect(tested.asked[1]!.headers).toEqual([
      "A",
      "b",
      "Pubsubname",
      "pubsub",
      "Content-Type",
      "application/cloudevents+json",
    ]);
    expect(tested.counted).toEqual([`${ingress} success success orders`]);
  });

  it.each([
    ["RETRY", { body: Buffer.from('{"status":"RETRY"}') }, "retry retry", true],
    ["status 500", { status: 500 }, "retry retry", true],
    ["no answer", new Error("refused"), "retry retry", true],
    ["DROP", { body: Buffer.from('{"status":"DROP"}') }, "drop success", false],
    ["404", { status: 404 }, "drop drop", false],
  ])("with the answer %s goes back, or to the dead-letter topic", async (_, answer, counted, fails) => {
    const without = await started(() => answer);
    const outcome = await without.broker.deliver("orders", {}).then(
      () => "done",
      () => "back",
    );
    expect(outcome).toBe(fails ? "back" : "done");
    expect(without.counted).toEqual([`${ingress} ${counted} orders`]);

    const tested = await started(() => answer, { deadLetterTopic: "dead" });
    const message = {
      data: Buffer.from('{"id":"1"}'),
      metadata: { a: "b" },
      contentType: "application/cloudevents+json",
    };
    await tested.broker.deliver("orders", message);
    expect(tested.broker.published).toEqual([
      {
        topic: "dead",
        data: message.data,
        metadata: { a: "b", pubsubName: "pubsub", "content-type": "application/cloudevents+json" },
        contentType: "application/cloudevents+json",
        id: undefined,
        deadLetter: { of: expect.objectContaining(message), reason: expect.stringMatching(/./) },
      },
    ]);
  });

  it("goes back when the dead-letter topic does not take it", async () => {
    const tested = await started(() => ({ status: 404 }), { deadLetterTopic: "dead" });
    tested.broker.failure = new Error("no room");
    await expect(tested.broker.deliver("orders", {})).rejects.toThrow(
      "cannot dead-letter to topic dead: no room",
    );
    const scoped = await started(
      () => ({ status: 404 }),
      { deadLetterTopic: "dead" },
      { properties: { publishingScopes: "app=x" } },
    );
    await expect(scoped.broker.deliver("orders", {})).rejects.toThrow("is not allowed");
  });

  it("is not dead-lettered while the sidecar stops", async () => {
    const tested = await started(() => ({ status: 500 }), { deadLetterTopic: "dead" });
    await expect(tested.broker.deliver("orders", {}, AbortSignal.abort())).rejects.toThrow("status 500");
    expect(tested.broker.published).toEqual([]);
  });

  it("that has expired never reaches the app", async () => {
    const tested = await started(() => ({}), { deadLetterTopic: "dead" });
    const data = Buffer.from('{"expiration":"2024-01-01T00:00:00Z"}');
    await tested.broker.deliver("orders", { data });
    expect(tested.asked).toHaveLength(1);
    expect(tested.broker.published.map((it) => it.topic)).toEqual(["dead"]);
    expect(tested.counted[0]).toBe(`${ingress} drop drop orders`);
  });

  it("without a rule is dropped", async () => {
    const tested = await started(() => ({}), { rules: [] });
    await tested.broker.deliver("orders", {});
    expect(tested.asked).toHaveLength(1);
    expect(tested.counted).toEqual([`${ingress} drop drop orders`]);
  });

  it("that is no JSON object goes back", async () => {
    const tested = await started(() => ({}));
    await expect(tested.broker.deliver("orders", { data: Buffer.from("nope") })).rejects.toThrow();
    expect(tested.counted).toEqual([`${ingress} retry retry orders`]);
  });

  it("of a raw subscription is wrapped; a rawPayload that is no boolean fails each one", async () => {
    const tested = await started(() => ({}), { metadata: { rawPayload: "true" } });
    expect(tested.broker.subscribed[0]!.rawPayload).toBe(true);
    await tested.broker.deliver("orders", { data: Buffer.from("raw") });
    expect(JSON.parse(Buffer.from(tested.asked[1]!.body!).toString())).toMatchObject({
      data_base64: "cmF3",
      topic: "orders",
    });
    const odd = await started(() => ({}), { metadata: { rawPayload: "maybe" } });
    await expect(odd.broker.deliver("orders", {})).rejects.toThrow("rawPayload");
  });
});

describe("a gRPC app", () => {
  type Answer = MessageInitShape<typeof TopicEventResponseSchema> | Error;

  async function started(
    list: MessageInitShape<typeof ListTopicSubscriptionsResponseSchema> | Error,
    answer: Answer = {},
  ): Promise<TestedPubSub & { events: { request: TopicEventRequest; metadata: readonly string[] }[] }> {
    const events: { request: TopicEventRequest; metadata: readonly string[] }[] = [];
    const channel: Partial<AppChannel> = {
      protocol: "grpc",
      async grpc({ path, message, metadata }: AppGrpcRequest) {
        const known = { headers: [], trailers: [] };
        if (path.endsWith("/ListTopicSubscriptions")) {
          if (list instanceof Error) throw list;
          const schema = ListTopicSubscriptionsResponseSchema;
          return { message: toBinary(schema, create(schema, list)), ...known };
        }
        events.push({ request: fromBinary(TopicEventRequestSchema, message), metadata });
        if (answer instanceof Error) throw answer;
        return {
          message: toBinary(TopicEventResponseSchema, create(TopicEventResponseSchema, answer)),
          ...known,
        };
      },
    };
    const tested = await testPubSubBlock({ channel, subscriptions: [{ deadLetterTopic: "dead" }] });
    await tested.block.appReady!();
    return { ...tested, events };
  }

  it("lists its topics; none is fine", async () => {
    const subscriptions = [
      { pubsubName: "pubsub", topic: "own", metadata: { a: "b" } },
      {
        pubsubName: "pubsub",
        topic: "two",
        routes: {
          rules: [
            { match: " true\n", path: "x" },
            { match: " ", path: "z" },
          ],
          default: "y",
        },
      },
    ];
    const tested = await started({ subscriptions });
    expect(listed(tested)).toMatchObject([
      { topic: "orders", type: "DECLARATIVE" },
      { topic: "own", metadata: { a: "b" }, rules: [{}], type: "PROGRAMMATIC" },
      {
        topic: "two",
        rules: [{ match: "true", path: "x" }, { path: "z" }, { path: "y" }],
        type: "PROGRAMMATIC",
      },
    ]);
    const silent = await started(new GrpcStatusError(12, "unimplemented"));
    expect(silent.broker.subscribed.map((it) => it.topic)).toEqual(["orders"]);
  });

  it("gets the event as a message", async () => {
    const tested = await started({});
    const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const event = {
      id: "1",
      source: "s",
      type: "t",
      specversion: "1.0",
      datacontenttype: "application/json",
      data: { b: 1.0, a: "x" },
      topic: "orders",
      pubsubname: "pubsub",
      traceparent: trace,
      extra: { n: 5 },
    };
    await tested.broker.deliver("orders", {
      data: Buffer.from(JSON.stringify(event)),
      metadata: { Key: "v" },
    });
    const { request, metadata } = tested.events[0]!;
    expect(request).toMatchObject({
      id: "1",
      source: "s",
      type: "t",
      specVersion: "1.0",
      dataContentType: "application/json",
      topic: "orders",
      pubsubName: "pubsub",
      path: "/orders",
      extensions: { topic: "orders", pubsubname: "pubsub", traceparent: trace, extra: { n: 5 } },
    });
    expect(Buffer.from(request.data).toString()).toBe('{"a":"x","b":1}');
    expect(metadata.slice(0, 6)).toEqual(["key", "v", "pubsubname", "pubsub", "traceparent", trace]);
  });

  it.each([
    [{ data_base64: "AAE=" }, Buffer.from([0, 1])],
    [{ data: "text", datacontenttype: "text/plain" }, Buffer.from("text")],
    [{ data: [1e21], datacontenttype: "application/json; x=1" }, Buffer.from("[1e+21]")],
    [{ data: "{}", datacontenttype: "application/vnd.x+json" }, Buffer.from("{}")],
    [{ data: null }, Buffer.alloc(0)],
    [{}, Buffer.alloc(0)],
  ])("gets %j as bytes", async (event, data) => {
    const tested = await started({});
    await tested.broker.deliver("orders", { data: Buffer.from(JSON.stringify(event)) });
    expect(Buffer.from(tested.events[0]!.request.data)).toEqual(data);
  });

  it.each([{ data: 5, datacontenttype: "text/plain" }, { data_base64: "?" }, { data_base64: 5 }])(
    "never sees %j, which is dead-lettered",
    async (event) => {
      const tested = await started({});
      await tested.broker.deliver("orders", { data: Buffer.from(JSON.stringify(event)) });
      expect(tested.events).toEqual([]);
      expect(tested.broker.published).toHaveLength(1);
    },
  );

  it.each([
    [{ status: 0 }, "success success", 0],
    [{ status: 1 }, "retry retry", 1],
    [{ status: 2 }, "drop success", 1],
    [{ status: 9 }, "retry retry", 1],
    [new GrpcStatusError(12, "unimplemented"), "drop drop", 0],
    [new GrpcStatusError(14, "unavailable"), "retry retry", 1],
  ])("answers %j", async (answer, counted, dead) => {
    const tested = await started({}, answer as Answer);
    await tested.broker.deliver("orders", {});
    expect(tested.counted[0]).toBe(`component_pubsub_ingress_count pubsub prod ${counted} orders`);
    expect(tested.broker.published).toHaveLength(dead);
  });
});
