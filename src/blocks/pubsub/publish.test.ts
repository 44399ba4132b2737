import { describe, expect, it } from "vitest";
import { failure, testPubSubBlock } from "../../../test/contract/pubsub-block.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { httpErrorBody } from "../../api/errors.ts";

const json = { "content-type": "application/json" };
const cloudEvents = { "content-type": "application/cloudevents+json" };
const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

type Details = readonly (Readonly<Record<string, unknown>> & { readonly metadata?: unknown })[];
type ErrorBody = { readonly errorCode: string; readonly message: string; readonly details: Details };

describe("publish over HTTP", () => {
  it.each(["POST", "PUT"])("takes %s and answers 204 without a body", async (verb) => {
    const tested = await testPubSubBlock();
    const reply = await tested.http(verb, "/v1.0/publish/pubsub/orders", { body: '{"a":1}', headers: json });
    expect(reply).toEqual({ status: 204, headers: {}, text: "" });
    const [message] = tested.broker.published;
    expect(message).toMatchObject({
      topic: "orders",
      metadata: {},
      contentType: "application/cloudevents+json",
    });
    const event = JSON.parse(Buffer.from(message!.data).toString()) as Record<string, unknown>;
    expect(event).toMatchObject({
      data: { a: 1 },
      id: message!.id,
      source: "app",
      topic: "orders",
      pubsubname: "pubsub",
    });
    expect(tested.counted).toEqual(["component_pubsub_egress_count pubsub prod true orders"]);
  });

  it("takes topics with slashes and blanks", async () => {
    const tested = await testPubSubBlock();
    await tested.http("POST", "/v1.0/publish/pubsub/a/b%2Fc+d", { body: "x" });
    expect(tested.broker.published[0]!.topic).toBe("a/b/c d");
  });

  it("passes metadata to the component, and raw bytes untouched without any type", async () => {
    const tested = await testPubSubBlock();
    const path = "/v1.0/publish/pubsub/orders?metadata.rawPayload=true&metadata.ttl=5s&x=1";
    await tested.http("POST", path, { body: Buffer.from([0, 255]), headers: json });
    const message = {
      topic: "orders",
      data: Buffer.from([0, 255]),
      metadata: { rawPayload: "true", ttl: "5s" },
    };
    expect(tested.broker.published).toEqual([{ ...message, contentType: undefined, id: undefined }]);
  });

  it("takes the caller's trace over", async () => {
    const tested = await testPubSubBlock();
    const headers = { ...json, traceparent: parent, tracestate: "a=1" };
    await tested.http("POST", "/v1.0/publish/pubsub/orders", { body: "1", headers });
    const event = JSON.parse(Buffer.from(tested.broker.published[0]!.data).toString()) as unknown;
    expect(event).toMatchObject({ traceparent: parent, traceid: parent, tracestate: "a=1" });
  });

  it("prefixes topics of a namespaced component, but not in the envelope", async () => {
    const properties = { host: "{namespace}-redis", allowedTopics: "orders" };
    const tested = await testPubSubBlock({ properties });
    await tested.http("POST", "/v1.0/publish/pubsub/orders", { body: "1", headers: json });
    const [message] = tested.broker.published;
    expect(message!.topic).toBe("prodorders");
    expect(JSON.parse(Buffer.from(message!.data).toString())).toMatchObject({ topic: "orders" });
    expect(tested.counted).toEqual(["component_pubsub_egress_count pubsub prod true orders"]);
  });

  it.each([
    [[], "2025-01-01T00:00:05Z"],
    [["MESSAGE_TTL"], undefined],
  ])("with capabilities %j expires by the envelope: %s", async (capabilities, expiration) => {
    const tested = await testPubSubBlock({ capabilities });
    await tested.http("POST", "/v1.0/publish/pubsub/orders?metadata.ttlInSeconds=5", { body: "1" });
    const event = JSON.parse(Buffer.from(tested.broker.published[0]!.data).toString()) as Record<
      string,
      unknown
    >;
    expect(event["expiration"]).toBe(expiration);
  });

  const resource = (name: string, description: string): object => ({
    "@type": "type.googleapis.com/google.rpc.ResourceInfo",
    description,
    owner: "",
    resource_name: name,
    resource_type: "pubsub",
  });
  const info = (reason: string, metadata: object): object => ({
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    domain: "dapr.io",
    metadata,
    reason,
  });

  it("answers an unknown component", async () => {
    const reply = await (await testPubSubBlock()).http("POST", "/v1.0/publish/nope/orders?metadata.a=b");
    expect(reply.status).toBe(404);
    expect(JSON.parse(reply.text)).toEqual({
      errorCode: "ERR_PUBSUB_NOT_FOUND",
      message: "pubsub nope is not found",
      details: [info("DAPR_PUBSUB_NOT_FOUND", { a: "b" })],
    });
  });

  it("answers a rawPayload that is no boolean, before it looks at the body", async () => {
    const path = "/v1.0/publish/pubsub/orders?metadata.rawPayload=yes";
    const reply = await (await testPubSubBlock()).http("POST", path, { body: "nope", headers: cloudEvents });
    const message =
      "failed deserializing metadata. Error: rawPayload value must be a valid boolean: actual is 'yes'";
    expect(reply.status).toBe(400);
    expect(JSON.parse(reply.text)).toEqual({
      errorCode: "ERR_PUBSUB_REQUEST_METADATA",
      message,
      details: [
        resource("pubsub", message),
        info("DAPR_PUBSUB_METADATA_DESERIALIZATION", { rawPayload: "yes" }),
      ],
    });
  });

  it("answers a declared CloudEvent that is none, before scopes", async () => {
    const tested = await testPubSubBlock({ properties: { publishingScopes: "app=" } });
    const reply = await tested.http("POST", "/v1.0/publish/pubsub/orders", {
      body: "[",
      headers: cloudEvents,
    });
    expect(reply.status).toBe(500);
    const message = "cannot create cloudevent";
    expect(JSON.parse(reply.text)).toEqual({
      errorCode: "ERR_PUBSUB_CLOUD_EVENTS_SER",
      message,
      details: [
        resource("pubsub", message),
        info("DAPR_PUBSUB_CLOUD_EVENT_CREATION", { appID: "app", error: "unexpected EOF" }),
      ],
    });
  });

  it("survives the body null, which ends daprd", async () => {
    const reply = await (
      await testPubSubBlock()
    ).http("POST", "/v1.0/publish/pubsub/orders", {
      body: "null",
      headers: cloudEvents,
    });
    expect(reply.status).toBe(500);
  });

  it("answers a topic out of scope", async () => {
    const tested = await testPubSubBlock({ properties: { publishingScopes: "app=other" } });
    const reply = await tested.http("POST", "/v1.0/publish/pubsub/orders", { body: "1" });
    const message = "topic orders is not allowed for app id app";
    expect(reply.status).toBe(403);
    expect(JSON.parse(reply.text)).toEqual({
      errorCode: "ERR_PUBSUB_FORBIDDEN",
      message,
      details: [
        resource("pubsub", message),
        info("DAPR_PUBSUB_FORBIDDEN", { topic: "orders", error: message }),
      ],
    });
    expect(tested.broker.published).toEqual([]);
  });

  it("answers what the broker refused", async () => {
    const tested = await testPubSubBlock();
    tested.broker.failure = new Error("no room");
    const reply = await tested.http("POST", "/v1.0/publish/pubsub/orders", { body: "1" });
    const message = "error when publishing to topic orders in pubsub pubsub: no room";
    expect(reply.status).toBe(500);
    expect(JSON.parse(reply.text)).toEqual({
      errorCode: "ERR_PUBSUB_PUBLISH_MESSAGE",
      message,
      details: [
        resource("pubsub", message),
        info("DAPR_PUBSUB_PUBLISH_MESSAGE", { topic: "orders", error: "no room" }),
      ],
    });
    expect(tested.counted).toEqual(["component_pubsub_egress_count pubsub prod false orders"]);
  });
});

describe("publish over gRPC", () => {
  const publish = Dapr.method.publishEvent;

  it("wraps as over HTTP, with text/plain for no content type", async () => {
    const tested = await testPubSubBlock();
    await tested.grpc(publish, {
      pubsubName: "pubsub",
      topic: "orders",
      data: Buffer.from("hi"),
      metadata: { a: "b" },
    });
    const [message] = tested.broker.published;
    expect(message!.metadata).toEqual({ a: "b" });
    const event = JSON.parse(Buffer.from(message!.data).toString()) as unknown;
    expect(event).toMatchObject({ data: "hi", datacontenttype: "text/plain", topic: "orders" });
  });

  it("drops the caller's tracestate, and knows the binary form of the parent", async () => {
    const tested = await testPubSubBlock();
    const request = { pubsubName: "pubsub", topic: "orders" };
    await tested.grpc(publish, request, { traceparent: parent, tracestate: "a=1" });
    const binary = Buffer.from(`0000${parent.slice(3, 35)}01${parent.slice(36, 52)}0201`, "hex").toString(
      "latin1",
    );
    await tested.grpc(publish, request, { "grpc-trace-bin": binary, traceparent: "ignored" });
    for (const { data } of tested.broker.published) {
      expect(JSON.parse(Buffer.from(data).toString())).toMatchObject({ traceparent: parent, tracestate: "" });
    }
  });

  it("puts the trace of raw bytes into metadata", async () => {
    const tested = await testPubSubBlock();
    const request = {
      pubsubName: "pubsub",
      topic: "orders",
      data: Buffer.from("x"),
      metadata: { rawPayload: "1" },
    };
    await tested.grpc(publish, request);
    expect(tested.broker.published[0]!.metadata).toEqual({ rawPayload: "1", traceid: "", tracestate: "" });
  });

  it.each([
    [{ topic: "t" }, 3, "pubsub name is empty", "DAPR_PUBSUB_NAME_EMPTY"],
    [{ pubsubName: "nope", topic: "t" }, 3, "pubsub nope is not found", "DAPR_PUBSUB_NOT_FOUND"],
    [{ pubsubName: "nope" }, 3, "pubsub nope is not found", "DAPR_PUBSUB_NOT_FOUND"],
    [{ pubsubName: "pubsub" }, 3, "topic is empty in pubsub pubsub", "DAPR_PUBSUB_TOPIC_NAME_EMPTY"],
    [
      { pubsubName: "pubsub", topic: "secret" },
      7,
      "topic secret is not allowed for app id app",
      "DAPR_PUBSUB_FORBIDDEN",
    ],
  ])("answers %j with code %i", async (request, code, message, reason) => {
    const tested = await testPubSubBlock({ properties: { protectedTopics: "secret" } });
    const error = await failure(tested.grpc(publish, { ...request, metadata: { a: "b" } }));
    expect([error.grpcCode, error.message]).toEqual([code, message]);
    expect(error.grpcDetails.at(-1)!.fields["reason"]).toBe(reason);
    const emptyName = error.code === "ERR_PUBSUB_NOT_FOUND" ? null : undefined;
    if (emptyName === null) expect(error.grpcDetails).toMatchObject([{ fields: { metadata: null } }]);
  });
});

describe("bulk publish", () => {
  const path = "/v1.0/publish/bulk/pubsub/orders";
  const entry = (entryId: string, event: unknown, contentType?: string, metadata?: object): object => ({
    entryId,
    event,
    ...(contentType === undefined ? {} : { contentType }),
    ...(metadata === undefined ? {} : { metadata }),
  });

  it.each([path, path.replace("v1.0", "v1.0-alpha1")])(
    "at %s publishes every entry on its own",
    async (where) => {
      const tested = await testPubSubBlock();
      const entries = [
        entry("1", { b: 1.5, a: 2 }, "application/json"),
        entry("2", "text", "text/plain"),
        entry("3", "AA\nE=", "application/octet-stream"),
        entry("4", { id: "mine" }, "application/cloudevents+json"),
      ];
      const reply = await tested.http("POST", where, { body: JSON.stringify(entries), headers: json });
      expect(reply).toEqual({ status: 204, headers: {}, text: "" });
      const events = tested.broker.published.map(
        (it) => JSON.parse(Buffer.from(it.data).toString()) as { data: unknown },
      );
      expect(events).toMatchObject([
        { data: { a: 2, b: 1.5 } },
        { data: "text" },
        { data_base64: "AAE=" },
        { id: "mine" },
      ]);
    },
  );

  it("merges request metadata only under entries that have some", async () => {
    const tested = await testPubSubBlock();
    const entries = [
      entry("1", "a", "text/plain"),
      entry("2", "b", "text/plain", {}),
      entry("3", "c", "text/plain", { x: "own" }),
    ];
    await tested.http("POST", `${path}?metadata.x=all`, { body: JSON.stringify(entries) });
    expect(tested.broker.published.map((it) => it.metadata)).toEqual([{}, { x: "all" }, { x: "own" }]);
  });

  const place = "topic orders pubsub pubsub";
  const unmarshaling = `error when unmarshaling the request for ${place}: `;
  const ids = `error marshaling events to bytes for ${place}. error: `;
  const marshalling = `error when marshalling cloud event envelope for ${place}: `;
  const entry1 = '{"entryId":"1","event":"a","contentType":"text/plain"}';

  it.each([
    ["nope", "UNMARSHAL_EVENTS", unmarshaling + "invalid character 'o' in literal null (expecting 'u')"],
    ["{}", "UNMARSHAL_EVENTS", unmarshaling + "the body must be an array, but is of type object"],
    [
      '[{"event":"a","contentType":"text/plain"}]',
      "MARSHAL_EVENTS",
      ids + "entryId is duplicated or not present for entry",
    ],
    [`[${entry1},${entry1}]`, "MARSHAL_EVENTS", ids + "entryId is duplicated or not present for entry"],
    ["[1]", "UNMARSHAL_EVENTS", unmarshaling + "entry 0 must be an object, but is of type number"],
    [
      `[{"event":{}},{"entryId":2}]`,
      "UNMARSHAL_EVENTS",
      unmarshaling + '"entryId" of entry 1 must be a string, but is of type number',
    ],
    [
      '[{"entryId":"1","event":"a","contentType":"text/plain","metadata":["x"]}]',
      "UNMARSHAL_EVENTS",
      unmarshaling + "entry 0's metadata must be an object, but is an array",
    ],
    [
      '[{"entryId":"1","event":"a"}]',
      "MARSHAL_ENVELOPE",
      marshalling + "error: mismatch between contentType and event",
    ],
    [
      '[{"entryId":"1","event":{},"contentType":"text/plain"}]',
      "MARSHAL_ENVELOPE",
      marshalling + "error: mismatch between contentType and event",
    ],
    [
      '[{"entryId":"1","event":{},"contentType":"application/x+json"}]',
      "MARSHAL_ENVELOPE",
      marshalling + "error: mismatch between contentType and event",
    ],
    [
      '[{"entryId":"1","event":"?","contentType":"application/octet-stream"}]',
      "MARSHAL_ENVELOPE",
      marshalling +
        "error: unable to decode base64 application/octect-stream data: illegal base64 data at input byte 0",
    ],
  ])("refuses %s", async (body, reason, message) => {
    const tested = await testPubSubBlock();
    const reply = await tested.http("POST", path, { body });
    expect(reply.status).toBe(400);
    const { errorCode, message: said, details } = JSON.parse(reply.text) as ErrorBody;
    expect([errorCode, said]).toEqual(["ERR_PUBSUB_EVENTS_SER", message]);
    expect(details.at(-1)!["reason"]).toBe(`DAPR_PUBSUB_${reason}`);
    expect(tested.broker.published).toEqual([]);
  });

  it("lists what the broker refused", async () => {
    const tested = await testPubSubBlock();
    tested.broker.failure = new Error("no room");
    const reply = await tested.http("POST", path, { body: JSON.stringify([entry("1", "a", "text/plain")]) });
    expect(reply.status).toBe(500);
    expect(reply.text).toBe(
      '{"failedEntries":[{"entryId":"1","error":"no room"}],"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE"}',
    );
    expect(reply.headers).toMatchObject({
      "Metadata.responsedata": reply.text,
      "Metadata.error":
        "api error: code = Internal desc = error when publishing to topic orders in pubsub pubsub: no room",
    });
  });

  it("answers gRPC with an empty list or a status", async () => {
    const tested = await testPubSubBlock();
    const entries = [{ entryId: "1", event: Buffer.from("1.0"), contentType: "application/json" }];
    const request = { pubsubName: "pubsub", topic: "orders", entries };
    for (const method of [Dapr.method.bulkPublishEvent, Dapr.method.bulkPublishEventAlpha1]) {
      expect(await tested.grpc(method, request)).toEqual({ failedEntries: [] });
    }
    expect(Buffer.from(tested.broker.published[0]!.data).toString()).toContain('{"data":1.0,');
    tested.broker.failure = new Error("no room");
    const error = await failure(tested.grpc(Dapr.method.bulkPublishEvent, request));
    expect([error.grpcCode, error.code]).toEqual([13, "ERR_PUBSUB_PUBLISH_MESSAGE"]);
    const twice = await failure(
      tested.grpc(Dapr.method.bulkPublishEvent, { ...request, entries: [...entries, ...entries] }),
    );
    expect([twice.grpcCode, twice.code]).toEqual([3, "ERR_PUBSUB_EVENTS_SER"]);
    expect(httpErrorBody(twice)).toContain("DAPR_PUBSUB_MARSHAL_EVENTS");
  });
});
