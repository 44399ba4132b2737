import { expect, test } from "vitest";
import { readDeadLetter, returned } from "./dead-letter.ts";

const stored = (headers: readonly (readonly [string, string])[], data = '{"id":"1"}') => ({
  topic: "dead",
  sequence: 9,
  time: "2026-01-02T03:04:05.123456789Z",
  headers,
  data: Buffer.from(data),
});

test("a dead letter tells what its headers say, and what it was before", () => {
  const event = stored([
    ["Content-Type", "application/cloudevents+json"],
    ["Weft-Meta-OrderingKey", "customer%201"],
    ["Weft-Only-For", "mail"],
    ["Weft-Dead-Topic", "orders"],
    ["Weft-Dead-Group", "%"],
    ["Weft-Dead-Reason", "no%0Aroom"],
    ["Weft-Dead-Tries", "3"],
  ]);
  expect(readDeadLetter(event)).toEqual({
    sequence: 9,
    time: "2026-01-02T03:04:05.123Z",
    id: "1",
    topic: "orders",
    group: "",
    subscription: undefined,
    tries: 3,
    originalSequence: undefined,
    reason: "no\nroom",
  });
  expect(returned(event)).toEqual({
    headers: ["Content-Type", "application/cloudevents+json", "Weft-Meta-OrderingKey", "customer%201"],
    key: "customer 1",
  });
});

test.each(["not json", "[]", "null", '{"id":7}'])("of %j it does not know the id", (data) => {
  expect(readDeadLetter(stored([], data))).toMatchObject({ id: undefined, topic: undefined });
  expect(returned(stored([], data))).toEqual({ headers: [], key: undefined });
});
