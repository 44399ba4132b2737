import { expect, it } from "vitest";
import type { Operation, SaveItem } from "../state/writes.ts";
import { planEvents, readWaiting, waitingEnvelope } from "./event.ts";

function operation(key: string, value: string, more: Partial<SaveItem> = {}, kind = "upsert"): Operation {
  const plain = { etag: "", concurrency: "", consistency: "", metadata: {}, contentType: "", json: true };
  return { operation: kind, item: { ...plain, key, value: Buffer.from(value), ...more } };
}

function envelope(of: Operation): Record<string, unknown> {
  const [event] = planEvents([of]).events;
  const text = waitingEnvelope(event!, "app", { traceparent: "00-a", tracestate: "s" }, 1_500).toString();
  return JSON.parse(text) as Record<string, unknown>;
}

it("writes the envelope in which an event waits", () => {
  const metadata = {
    contentType: "application/json; charset=utf-8",
    __proto__: "p",
    datacontenttype: "mine",
  };
  const own = Object.assign(JSON.parse('{"__proto__":"odd"}') as object, metadata) as Record<string, string>;
  const event = envelope(operation("k", '{"a":1}', { metadata: own }));
  expect(event).toMatchObject({
    data: { a: 1 },
    id: expect.stringMatching(/^outbox-/) as string,
    topic: "",
    pubsubname: "",
    source: "app",
    traceid: "00-a",
    traceparent: "",
    tracestate: "s",
    datacontenttype: "mine",
  });
  expect(Object.getOwnPropertyNames(event)).toContain("__proto__");
});

it("prefers the operation's content type to that in its metadata", () => {
  const metadata = { contentType: "text/xml" };
  expect(envelope(operation("k", '"<a/>"', { metadata }))).toMatchObject({
    data: "<a/>",
    datacontenttype: "text/xml",
  });
  const both = { metadata, contentType: "application/octet-stream" };
  expect(envelope(operation("k", '"ab"', both))).toMatchObject({ data_base64: "YWI=" });
});

it("takes the last projection of a key, for each upsert of it, and lets deletes be", () => {
  const projection = (value: string): Operation =>
    operation("k", value, { metadata: { "outbox.projection": "Yes" } });
  const plan = planEvents([
    projection("1"),
    operation("k", "2"),
    operation("k", "3"),
    projection("4"),
    operation("k", "", { metadata: { "outbox.projection": "true" } }, "delete"),
    operation("other", "5", { metadata: { "outbox.projection": "no" } }),
  ]);
  expect(plan.operations.map(({ operation: kind }) => kind)).toEqual([
    "upsert",
    "upsert",
    "delete",
    "upsert",
  ]);
  expect(plan.events.map(({ data }) => data.toString())).toEqual(["4", "4", "5"]);
  expect(new Set(plan.events.map(({ marker }) => marker)).size).toBe(3);
});

it("keeps numbers as they were written when an event is published", () => {
  const text = '{"data":{"a":1.0,"b":12345678901234567890},"id":"outbox-1","topic":""}';
  const published = readWaiting(Buffer.from(text))!.publishedAs("bus", "orders").toString();
  expect(published).toBe(
    '{"data":{"a":1.0,"b":12345678901234567890},"id":"outbox-1","pubsubname":"bus","topic":"orders"}',
  );
});
