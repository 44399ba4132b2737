import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MeshError } from "./errors.ts";
import {
  callFilter,
  callSubject,
  decodeToken,
  encodeToken,
  joinName,
  keyFilter,
  keySubject,
  parseCaller,
  parseTopic,
  topicFilter,
  topicSubject,
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
  topics: { base: string; topic: string; subject: string }[];
  filters: { base: string; topic: string; subject: string }[];
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

  it.each(vectors.topics)("topic $topic", ({ base, topic, subject }) => {
    expect(topicSubject(base, topic)).toBe(subject);
    expect(parseTopic(base, subject)).toBe(topic);
  });

  it.each(vectors.filters)("filter $topic", ({ base, topic, subject }) =>
    expect(topicFilter(base, topic)).toBe(subject),
  );
});

describe("subjects", () => {
  it("a token of any text comes back, and is one token that NATS and KV take", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "binary" }).map((text) => text.toWellFormed()),
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

  it("a prefix filter takes whole parts", () => {
    expect(keyFilter("b", ["orders"])).toBe("$KV.b.orders.>");
    expect(keyFilter("b", [])).toBe("$KV.b.>");
  });

  it("refuses what no encoder makes", () => {
    for (const token of ["=4", "=zz", "=4a", "a b", "ü"]) expect(() => decodeToken(token)).toThrow(MeshError);
    expect(() => parseCaller("weft.default.rpc.app")).toThrow(MeshError);
    expect(() => topicSubject("base", "x".repeat(3000))).toThrow(/at most 2800/);
    expect(() => keySubject("b", [])).toThrow(MeshError);
  });
});
