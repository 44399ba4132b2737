import { describe, expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { createWrapEvent, localTime } from "./envelope.ts";
import type { Envelope, EventInput } from "./envelope.ts";
import { noTrace } from "../../telemetry/tracing/trace-context.ts";

const clock = manualClock();
const now = localTime(clock.nowMs());
const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

function wrap(input: Partial<Omit<EventInput, "data">> & { data?: string | Buffer } = {}): Envelope {
  return createWrapEvent(
    "app",
    clock,
  )({
    pubsub: "pubsub",
    topic: "orders",
    contentType: "application/json",
    metadata: {},
    trace: noTrace,
    expires: true,
    ...input,
    data: Buffer.from(input.data ?? '{"a":1}'),
  });
}

function parsed(input: Parameters<typeof wrap>[0]): Record<string, unknown> {
  return JSON.parse(wrap(input).data.toString()) as Record<string, unknown>;
}

describe("an envelope", () => {
  it("has sorted keys, no blanks, and every attribute clients rely on", () => {
    const { data, id } = wrap();
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(data.toString()).toBe(
      `{"data":{"a":1},"datacontenttype":"application/json","id":"${id}","pubsubname":"pubsub","source":"app",` +
        `"specversion":"1.0","time":"${now}","topic":"orders","traceid":"","traceparent":"","tracestate":"",` +
        `"type":"com.dapr.event.sent"}`,
    );
  });

  it.each([
    [
      "application/json",
      ' { "b" : 1.0, "a" : [1e5, 12345678901234567890] } trailing',
      '"data":{"a":[1e5,12345678901234567890],"b":1.0}',
    ],
    ["application/json; charset=utf-8", "[]", '"data":[]'],
    ["APPLICATION/JSON", "null", '"data":null'],
    ["application/json", "{broken", '"data":"{broken"'],
    ["application/json", "", '"data":""'],
    ["application/json", '"<a&b>\u2028"', '"data":"\\u003ca\\u0026b\\u003e\\u2028"'],
    ["text/plain", 'say "hi" <now>', '"data":"say \\"hi\\" \\u003cnow\\u003e"'],
    ["", "text by default", '"data":"text by default"'],
    ["application/xml", "<a/>", '"data":"\\u003ca/\\u003e"'],
    ["application/vnd.x+json", "{}", '"data":"{}"'],
    ["application/octet-stream", Buffer.from([0, 255, 1]), '"data_base64":"AP8B"'],
    ["application/octet-stream;x=1", "", '"data_base64":""'],
    ["application/cloudevents+protobuf", "x", '"data_base64":"eA=="'],
    ["application/x-protobuf", "not a message", '"data":"not a message"'],
    // Fields 1 to 4 of a CloudEvent: id, source, spec_version, type.
    ["application/x-protobuf", Buffer.from("0a01311203617070", "hex"), '"data_base64":"CgExEgNhcHA="'],
    ["application/x-protobuf", Buffer.from("3201ff", "hex"), '"data_base64":"MgH/"'],
    ["application/x-protobuf", Buffer.from("0a05313233", "hex"), '"data":"\\n\\u0005123"'],
    ["application/x-protobuf", Buffer.from("0a02ff00", "hex"), '"data":"\\n\\u0002\uFFFD\\u0000"'],
  ])("of %s carries %j as %s", (contentType, data, member) => {
    expect(wrap({ contentType, data }).data.toString()).toContain(`{${member},"datacontenttype":`);
  });

  it("keeps the content type as it was declared", () => {
    expect(parsed({ contentType: "Application/JSON; charset=UTF-8" })["datacontenttype"]).toBe(
      "Application/JSON; charset=UTF-8",
    );
    expect(parsed({ contentType: "" })["datacontenttype"]).toBe("text/plain");
  });

  it("carries the caller's trace, or what metadata says", () => {
    const trace = { traceparent: parent, tracestate: "a=1" };
    expect(parsed({ trace })).toMatchObject({ traceid: parent, traceparent: parent, tracestate: "a=1" });
    const byId = parsed({ trace, metadata: { "cloudevent.traceid": "t1", "cloudevent.tracestate": "s" } });
    expect(byId).toMatchObject({ traceid: "t1", traceparent: "t1", tracestate: "s" });
    const both = parsed({ metadata: { "CloudEvent.TraceID": "t1", "cloudevent.traceparent": "p1" } });
    expect(both).toMatchObject({ traceid: "p1", traceparent: "p1" });
  });

  it("takes overrides in any case, where empty means default", () => {
    const metadata = {
      "cloudevent.ID": "7",
      "CLOUDEVENT.source": "s",
      "cloudevent.Type": "t",
      "cloudevent.subject": "x<y",
    };
    expect(parsed({ metadata })).toMatchObject({ id: "7", source: "s", type: "t", subject: "x<y" });
    const empty = parsed({
      metadata: { "cloudevent.id": "", "cloudevent.type": "", "cloudevent.subject": "" },
    });
    expect(empty["id"]).toMatch(/^[0-9a-f-]{36}$/);
    expect(empty).toMatchObject({ type: "com.dapr.event.sent", source: "app" });
    expect(empty).not.toHaveProperty("subject");
    expect(parsed({ metadata: { "cloudevent.source": "" } })["source"]).toBe("Dapr");
    expect(parsed({ metadata: { "cloudevent.topic": "z", "cloudevent.data": "z" } })).toMatchObject({
      topic: "orders",
      data: { a: 1 },
    });
  });

  it.each([
    [{ ttl: "10s" }, 10],
    [{ TTLInSeconds: "60" }, 60],
    [{ ttlInSeconds: "1m30s" }, 90],
    [{ ttl: "0" }, 0],
    [{ ttl: "-5s" }, -5],
    [{ ttl: "-5" }, undefined],
    [{ ttl: "1.5" }, undefined],
    [{ ttl: "abc" }, undefined],
    [{}, undefined],
  ])("of metadata %j expires after %s seconds", (metadata, seconds) => {
    const at =
      seconds === undefined
        ? undefined
        : new Date(clock.nowMs() + seconds * 1000).toISOString().replace(".000", "");
    expect(parsed({ metadata: metadata })["expiration"]).toBe(at);
    expect(parsed({ metadata: metadata, expires: false })["expiration"]).toBeUndefined();
  });

  it("tells events apart by source and id when the app names them", () => {
    const first = wrap({ metadata: { "cloudevent.id": "1" } }).id;
    expect(wrap({ metadata: { "cloudevent.id": "1" } }).id).toBe(first);
    expect(wrap({ metadata: { "cloudevent.id": "1", "cloudevent.source": "other" } }).id).not.toBe(first);
    const own = (data: string): string | undefined =>
      wrap({ contentType: "application/cloudevents+json", data }).id;
    expect(own('{"id":"1","source":"app"}')).toBe(first);
    expect(own('{"source":"app"}')).toBeUndefined();
    expect(own('{"id":1,"source":"app"}')).toBeUndefined();
  });
});

describe("an event that already is a CloudEvent", () => {
  const contentType = "application/CloudEvents+json; charset=utf-8";
  const trace = { traceparent: parent, tracestate: "a=1" };

  it("is completed and otherwise kept", () => {
    const data = '{"z":1.0, "data":{"b":1,"a":2}, "id":"1", "topic":"other", "pubsubname":"other"} trailing';
    expect(wrap({ contentType, data, trace }).data.toString()).toBe(
      `{"data":{"a":2,"b":1},"id":"1","pubsubname":"pubsub","source":"Dapr","specversion":"1.0","time":"${now}",` +
        `"topic":"orders","traceid":"${parent}","traceparent":"${parent}","tracestate":"a=1",` +
        `"type":"com.dapr.event.sent","z":1.0}`,
    );
  });

  it.each([
    ["{}", { source: "Dapr", type: "com.dapr.event.sent", specversion: "1.0", traceid: parent }],
    [
      '{"source":null,"type":null,"specversion":null}',
      { source: "Dapr", type: "com.dapr.event.sent", specversion: "1.0" },
    ],
    ['{"source":"","type":"","specversion":""}', { source: "", type: "", specversion: "" }],
    [
      '{"time":null,"traceid":null,"tracestate":null}',
      { time: null, traceid: null, tracestate: null, traceparent: undefined },
    ],
    ['{"traceparent":"mine"}', { traceid: parent, traceparent: parent }],
    ['{"traceid":"mine","traceparent":"own"}', { traceid: "mine", traceparent: "own", tracestate: "a=1" }],
  ])("%s becomes %j", (data, expected) => {
    const event = parsed({ contentType, data, trace, metadata: { "cloudevent.source": "ignored" } });
    for (const [name, value] of Object.entries(expected))
      expect({ [name]: event[name] }).toEqual({ [name]: value });
  });

  it("expires by ttl as well", () => {
    expect(parsed({ contentType, data: "{}", metadata: { ttlInSeconds: "1" } })["expiration"]).toBe(
      "2025-01-01T00:00:01Z",
    );
  });

  it.each([
    ["", "EOF"],
    ["{", "unexpected EOF"],
    ["nope", "invalid character 'o' in literal null (expecting 'u')"],
    ["[1]", "json: cannot unmarshal array into Go value of type map[string]interface {}"],
    ["null", "json: cannot unmarshal null into Go value of type map[string]interface {}"],
    ["1.0", "json: cannot unmarshal number into Go value of type map[string]interface {}"],
  ])("cannot be %j", (data, message) => {
    expect(() => wrap({ contentType, data })).toThrow(message);
  });
});

describe("the time of an envelope", () => {
  it("moves with the clock, in whole seconds", () => {
    const moving = manualClock();
    const wrapEvent = createWrapEvent("app", moving);
    const time = (): unknown =>
      (
        JSON.parse(
          wrapEvent({
            pubsub: "p",
            topic: "t",
            contentType: "",
            data: Buffer.from(""),
            metadata: {},
            trace: noTrace,
            expires: true,
          }).data.toString(),
        ) as { time: string }
      ).time;
    const first = time();
    moving.advance(999);
    expect(time()).toBe(first);
    moving.advance(1);
    expect(time()).toBe(localTime(Date.UTC(2025, 0, 1) + 1000));
    expect(first).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)$/);
  });
});
