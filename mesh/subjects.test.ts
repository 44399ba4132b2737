import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MeshError } from "./errors.ts";
import {
  callFilter,
  callSubject,
  decodeToken,
  encodeKey,
  encodeToken,
  isHashedKey,
  isReplySubject,
  isStreamSubject,
  joinName,
  keyedSubject,
  keyFilter,
  keySubject,
  parseCaller,
  parseKey,
  parseTopic,
  partitionsOf,
  partitionTransform,
  streamFilter,
  streamSubject,
  topicFilter,
  topicSubject,
  topicTrees,
} from "./subjects.ts";

type Vectors = {
  tokens: { text: string; token: string }[];
  names: { parts: string[]; name: string }[];
  keys: { bucket: string; key: string[]; subject: string }[];
  calls: {
    root: string;
    namespace: string;
    app: string;
    callerNamespace: string;
    callerApp: string;
    subject: string;
  }[];
  instances: {
    root: string;
    namespace: string;
    app: string;
    instance: string;
    stream: string;
    callerNamespace: string;
    callerApp: string;
    subject: string;
  }[];
  topics: { base: string; topic: string; subject: string }[];
  keyed: { base: string; key: string; topic: string; subject: string; stored: string }[];
  filters: { base: string; topic: string; subject: string }[];
  refusedTokens: string[];
};

const vectors = JSON.parse(
  readFileSync(new URL("../test/vectors/subjects.json", import.meta.url), "utf8"),
) as Vectors;

describe("subject vectors", () => {
  it.each(vectors.tokens)("token of $text", ({ text, token }) => {
    expect(encodeToken(text)).toBe(token);
    expect(decodeToken(token)).toBe(text);
  });

  it.each(vectors.names)("name $name", ({ parts, name }) => expect(joinName(parts)).toBe(name));

  it.each(vectors.keys)("key $subject", ({ bucket, key, subject }) =>
    expect(keySubject(bucket, key)).toBe(subject),
  );

  it.each(vectors.calls)("call $subject", (vector) => {
    const caller = { namespace: vector.callerNamespace, app: vector.callerApp };
    expect(callSubject(vector.root, "rpc", vector, caller)).toBe(vector.subject);
    expect(parseCaller(vector.subject)).toEqual(caller);
  });

  it.each(vectors.instances)("stream $subject", (vector) => {
    const caller = { namespace: vector.callerNamespace, app: vector.callerApp };
    expect(streamSubject(vector.root, vector, vector.stream, caller)).toBe(vector.subject);
    expect(isStreamSubject(vector.root, vector.subject, caller)).toBe(true);
    expect(isStreamSubject(vector.root, vector.subject, { ...caller, app: "b" })).toBe(false);
    expect(streamFilter(vector.root, vector).replace("*.*.*", "")).toBe(vector.subject.split("1c")[0]);
  });

  it.each(vectors.topics)("topic $topic", ({ base, topic, subject }) => {
    expect(topicSubject(base, topic)).toBe(subject);
    expect(parseTopic(base, subject)).toBe(topic);
  });

  it.each(vectors.keyed)("topic $topic with the key $key", ({ base, key, topic, subject, stored }) => {
    const trees = topicTrees(base);
    expect(keyedSubject(trees, key, topic)).toBe(subject);
    expect(parseTopic(base, stored)).toBe(topic);
    const partition = trees.partition(Number(stored.split(".")[2]));
    expect(topicSubject(partition, topic)).toBe(stored);
  });

  it.each(vectors.filters)("filter $topic", ({ base, topic, subject }) =>
    expect(topicFilter(base, topic)).toBe(subject),
  );
});

/** Any character at all; fast-check takes a second to make its own of these. */
const codePoint = fc.integer({ min: 0, max: 0x10ffff });

describe("subjects", () => {
  it("a token of any text comes back, and is one token that NATS and KV take", () => {
    fc.assert(
      fc.property(
        fc
          .array(codePoint, { maxLength: 12 })
          .map((points) => String.fromCodePoint(...points).toWellFormed()),
        (text) => {
          const token = encodeToken(text);
          expect(token).toMatch(/^[A-Za-z0-9_=-]+$/);
          expect(decodeToken(token)).toBe(text);
        },
      ),
    );
  });

  it("names of different parts differ", () => {
    const parts = fc.array(fc.string({ unit: fc.constantFrom("a", "_", "h", ".", "é"), maxLength: 4 }), {
      minLength: 1,
      maxLength: 3,
    });
    fc.assert(
      fc.property(parts, parts, (a, b) => {
        fc.pre(JSON.stringify(a) !== JSON.stringify(b));
        expect(joinName(a)).not.toBe(joinName(b));
        expect(joinName(a)).toMatch(/^[A-Za-z0-9_-]+$/);
      }),
    );
  });

  it("the filter of an app's calls fits the subject of every caller", () => {
    const target = { namespace: "n.s", app: "app" };
    const filter = callFilter("weft", "rpc", target).replace("*.*", "");
    expect(callSubject("weft", "rpc", target, { namespace: "x y", app: "z" }).startsWith(filter)).toBe(true);
  });

  it("a prefix filter takes whole parts, and every key below it, however long", () => {
    expect(keyFilter("b", ["orders"])).toBe("$KV.b.orders.>");
    expect(keyFilter("b", [])).toBe("$KV.b.>");
    const long = fc.integer({ min: 1, max: 1_500 }).map((length) => "x".repeat(length));
    fc.assert(
      fc.property(fc.array(long, { minLength: 2, maxLength: 6 }), fc.nat(4), (key, depth) => {
        const subject = keySubject("b", key);
        expect(subject.length).toBeLessThanOrEqual("$KV.b.".length + 2800);
        const filter = keyFilter("b", key.slice(0, Math.min(depth, key.length - 1)));
        expect(subject.startsWith(filter.slice(0, -1))).toBe(true);
        expect(isHashedKey(encodeKey(key))).toBe(key.join(".").length > 2800);
      }),
    );
  });

  it("a key comes back, and different keys differ", () => {
    const key = fc.array(fc.string({ unit: "binary", maxLength: 8 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(key, key, (a, b) => {
        const [one, other] = [a, b].map((parts) => parts.map((part) => part.toWellFormed()));
        expect(parseKey(encodeKey(one!))).toEqual(one);
        expect(encodeKey(one!) === encodeKey(other!)).toBe(JSON.stringify(one) === JSON.stringify(other));
      }),
    );
  });

  it.each(vectors.refusedTokens)("refuses the token %j, which no encoder makes", (token) => {
    expect(() => decodeToken(token)).toThrow(MeshError);
  });

  it("refuses what does not fit", () => {
    expect(() => parseCaller("weft.default.rpc.app")).toThrow(MeshError);
    expect(() => topicSubject("base", "x".repeat(3000))).toThrow(/at most 2800/);
    const caller = { namespace: "default", app: "me" };
    expect(() => callSubject("weft", "rpc", { namespace: "d", app: "ü".repeat(1000) }, caller)).toThrow(
      /at most 2800/,
    );
    expect(() => keySubject("b", [])).toThrow(MeshError);
    expect(() => keySubject("b", ["x".repeat(40_000)])).toThrow(/above the limit/);
  });

  it("the number of partitions comes back out of the transform, and out of no other", () => {
    const trees = topicTrees("weft.default.topic.pubsub");
    const transform = partitionTransform(trees, 16);
    expect(transform).toEqual({
      src: "weft.default.keyed.pubsub.*.>",
      dest: "weft.default.{{partition(16,1)}}.pubsub.>",
    });
    expect(partitionsOf(trees, transform)).toBe(16);
    expect(partitionsOf(trees, { ...transform, src: "weft.default.topic.pubsub.*.>" })).toBe(0);
    expect(partitionsOf(trees, undefined)).toBe(0);
  });

  it("keeps the parts of a foreign topic that it cannot decode", () => {
    expect(parseTopic("base", "base.a=b.=2E.ü")).toBe("a=b...ü");
  });

  it("no participant waits for an answer on a subject of NATS or of the mesh", () => {
    expect(isReplySubject("weft", "_INBOX.x.1")).toBe(true);
    expect(isReplySubject("weft", "weftling.x")).toBe(true);
    expect(isReplySubject("weft", "weft.default.topic.pubsub.orders")).toBe(false);
    expect(isReplySubject("weft", "$KV.bucket.key")).toBe(false);
    expect(isReplySubject("weft", "$JS.API.STREAM.PURGE.x")).toBe(false);
  });
});
