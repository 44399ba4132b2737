import { describe, expect, it } from "vitest";
import { eventTrace, hasExpired, readEvent } from "./event.ts";
import type { AppEvent } from "./event.ts";
import type { BrokerMessage } from "./port.ts";

function read(
  message: Omit<Partial<BrokerMessage>, "data"> & { data?: string | Buffer },
  raw?: boolean | "bad",
): AppEvent {
  const data = Buffer.from(message.data ?? "{}");
  const whole = { topic: "orders", metadata: {}, contentType: undefined, ...message, data };
  return readEvent(whole, {
    pubsub: "pubsub",
    topic: "orders",
    raw: raw === "bad" ? undefined : (raw ?? false),
  });
}

describe("an envelope from the broker", () => {
  it("goes to the app byte by byte, with the component's name in its metadata", () => {
    const data = Buffer.from('{ "id" : "1", "n": 1.0 }');
    const event = read({ data, metadata: { a: "b" } });
    expect(Buffer.from(event.body)).toEqual(data);
    expect(event.attributes).toEqual({ id: "1", n: 1 });
    expect(event.metadata).toEqual({ a: "b", pubsubName: "pubsub" });
  });

  it("gets missing trace attributes from metadata, for routing only", () => {
    const metadata = { TraceParent: "p", traceid: "t", tracestate: "s" };
    const event = read({ data: '{"traceid":"own"}', metadata });
    expect(event.attributes).toEqual({ traceid: "own", traceparent: "p", tracestate: "s" });
    expect(Buffer.from(event.body).toString()).toBe('{"traceid":"own"}');
  });

  it("may be null", () => expect(read({ data: "null", metadata: { traceid: "t" } }).attributes).toEqual({}));

  it.each(["", "nope", "{} trailing", "[1]", '"text"', "1"])("cannot be %j", (data) => {
    expect(() => read({ data })).toThrow();
  });

  it("cannot be read when the subscription's rawPayload is no boolean", () => {
    expect(() => read({}, "bad")).toThrow("rawPayload");
  });
});

describe("a raw subscription", () => {
  it("gets an envelope made for the bytes", () => {
    const event = read(
      { data: Buffer.from([0, 1]), metadata: { traceid: "t", traceparent: "p", tracestate: "s" } },
      true,
    );
    const { id, ...rest } = JSON.parse(Buffer.from(event.body).toString()) as Record<string, unknown>;
    expect(id).toMatch(/^[0-9a-f-]{36}$/);
    expect(rest).toEqual({
      specversion: "1.0",
      datacontenttype: "application/octet-stream",
      source: "Dapr",
      type: "com.dapr.event.sent",
      topic: "orders",
      pubsubname: "pubsub",
      data_base64: "AAE=",
      traceid: "p",
      traceparent: "p",
      tracestate: "s",
    });
    expect(Object.keys(JSON.parse(Buffer.from(event.body).toString()) as object)).toEqual(
      Object.keys(rest).concat("id").sort(),
    );
  });
});

describe("a message whose attributes are in metadata", () => {
  it.each([
    { contentType: "application/octet-stream" },
    { metadata: { "Content-Type": "application/octet-stream" } },
  ])("is rebuilt (%j)", (where) => {
    const metadata = { ...where.metadata, CE_id: "1", ce_Source: "s" };
    const event = read({ data: Buffer.from([1]), contentType: where.contentType, metadata });
    expect(event.attributes).toEqual({ id: "1", source: "s", data: Buffer.from([1]) });
    expect(Buffer.from(event.body)).toEqual(Buffer.from([1]));
  });
});

describe("expiration", () => {
  const now = Date.UTC(2025, 0, 1);
  it.each([
    ["2024-12-31T23:59:59Z", true],
    ["2025-01-01T00:00:00Z", false],
    ["2025-01-01T00:00:00+01:00", true],
    ["2024-12-31 23:59:59", false],
    ["soon", false],
    [5, false],
    [undefined, false],
  ])("%s is past: %s", (expiration, past) => expect(hasExpired({ expiration }, now)).toBe(past));
});

describe("the trace of an event", () => {
  it.each([
    [{ traceparent: "p", traceid: "t" }, "p"],
    [{ traceid: "t" }, "t"],
    [{ traceparent: "" }, ""],
    [{ traceparent: 5 }, undefined],
    [{}, undefined],
  ])("of %j is %s", (event, trace) => expect(eventTrace(event)).toBe(trace));
});
