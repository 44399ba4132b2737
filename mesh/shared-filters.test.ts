import { expect, test } from "vitest";
import { Filters } from "./shared-filters.ts";
import { filterOfEvent, joinName, sharedName, topicFilter, topicTrees } from "./subjects.ts";

const trees = topicTrees("weft.default.topic.pubsub");
const filter = (topic: string): string => topicFilter(trees.any, topic);
const filters = (...topics: string[]): Filters => new Filters(trees.any, topics.map(filter));

test.each([
  ["a", "a", true],
  ["a", "b", false],
  ["a", "a.b", false],
  ["a.b", "a.*", true],
  ["a.*", "*.b", true],
  ["a.*", "b.*", false],
  ["a.*", "a.b.c", false],
  ["a.>", "a.b.c", true],
  ["a.>", "a", false],
  [">", "a", true],
  ["a.*.c", "a.>", true],
  ["a.*.c", "a.b.d", false],
])("%s and %s overlap: %s", (one, other, expected) => {
  expect(filters(one).overlaps(filter(other))).toBe(expected);
  expect(filters(other).overlaps(filter(one))).toBe(expected);
});

test("an event is found by the filter that takes it, with and without a key", () => {
  const all = filters("orders", "b.*", "deep.>");
  const at = (subject: string): string | undefined => all.find(filterOfEvent(trees, subject));
  expect(at("weft.default.topic.pubsub.orders")).toBe(filter("orders"));
  expect(at("weft.default.14.pubsub.orders")).toBe(filter("orders"));
  expect(at("weft.default.topic.pubsub.b.x")).toBe(filter("b.*"));
  expect(at("weft.default.3.pubsub.deep.x.y")).toBe(filter("deep.>"));
  expect(at("weft.default.topic.pubsub.b")).toBeUndefined();
  all.delete(filter("orders"));
  expect(at("weft.default.topic.pubsub.orders")).toBeUndefined();
});

test("the list is never empty, because NATS would take that for all events", () => {
  const all = filters("a");
  all.delete(filter("a"));
  expect([all.size, all.bytes, all.list]).toEqual([0, 0, ["weft.default.*.pubsub.="]]);
  const again = new Filters(trees.any, all.list);
  expect([again.size, [...again]]).toEqual([0, []]);
  expect(again.overlaps(filter("*"))).toBe(false);
});

test("no topic has a consumer of the name of the shared one", () => {
  expect(sharedName("shop")).toBe("shop___shared");
  for (const topic of ["shared", "_shared", "", "=", "__shared"])
    expect(joinName(["shop", topic])).not.toBe(sharedName("shop"));
  expect(sharedName("x".repeat(300))).toMatch(/^_h[0-9a-f]{64}___shared$/);
  expect(sharedName("é".repeat(39))).not.toBe(sharedName("é".repeat(40)));
});
