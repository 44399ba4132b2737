import { createRequire } from "node:module";
import type { Msg } from "@nats-io/transport-node";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MeshError } from "./errors.ts";
import { encodeHeaders, headerPairs, headerText, headerValue, statusOf, statusWords } from "./headers.ts";

// The client's own classes, to see that both sides mean the same bytes, and that a message is built as we think.
type Inside = {
  MsgImpl: new (about: object, bytes: Uint8Array, publisher: undefined) => Msg;
  MsgHdrsImpl: { decode(bytes: Uint8Array): NonNullable<Msg["headers"]> };
};
const inside = createRequire(import.meta.url)("@nats-io/nats-core/internal") as Inside;

function message(headers: Uint8Array, body = Buffer.from("body")): Msg {
  const bytes = Buffer.concat([headers, body]);
  const about = {
    subject: Buffer.from("s"),
    reply: undefined,
    hdr: headers.length === 0 ? -1 : headers.length,
    sid: 1,
    size: bytes.length,
  };
  return new inside.MsgImpl(about, bytes, undefined);
}

const name = fc.stringMatching(/^[!-9;-~]{1,12}$/);
const value = fc.string({ unit: "binary", maxLength: 12 }).map((text) =>
  text
    .toWellFormed()
    .replace(/[\r\n]/g, "")
    .trim(),
);
const pairs = fc.array(fc.tuple(name, value), { maxLength: 6 });

describe("headers", () => {
  it("written by us are read by the client and by us", () => {
    fc.assert(
      fc.property(pairs, (list) => {
        const encoded = encodeHeaders(list.flat()).encode();
        const theirs = inside.MsgHdrsImpl.decode(encoded);
        const text = headerText(message(encoded));
        expect(headerPairs(text)).toEqual(list);
        for (const [key] of list) {
          const first = list.find(([other]) => other === key)![1];
          expect(theirs.get(key)).toBe(first);
          expect(headerValue(text, key)).toBe(first);
        }
        expect(statusOf(text)).toBe(0);
      }),
    );
  });

  it("of a message of the client are found without its help", () => {
    const made = message(encodeHeaders(["A", "1"]).encode());
    Object.defineProperty(made, "headers", { get: () => expect.unreachable("the slow way was taken") });
    expect(headerValue(headerText(made), "A")).toBe("1");
    expect(headerText(message(Buffer.alloc(0)))).toBe("");
  });

  it("of a client that hides its bytes are read all the same", () => {
    const { headers, data } = message(Buffer.from("NATS/1.0 404 Message Not Found\r\nA: 1\r\nA: 2\r\n\r\n"));
    const text = headerText({ headers, data } as unknown as Msg);
    expect(statusOf(text)).toBe(404);
    expect(statusWords(text)).toBe("Message Not Found");
    expect(headerPairs(text)).toEqual([
      ["A", "1"],
      ["A", "2"],
    ]);
  });

  it.each([
    ["NATS/1.0 503\r\n\r\n", 503, ""],
    ["NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n", 408, "Request Timeout"],
    ["NATS/1.0\r\nStatus: 503\r\n\r\n", 0, undefined],
    ["NATS/1.0 \r\n\r\n", 0, undefined],
    ["", 0, undefined],
  ])("%j has the status %i", (text, status, words) => {
    expect(statusOf(text)).toBe(status);
    if (words !== undefined) expect(statusWords(text)).toBe(words);
  });

  it("are found by their exact name, at the start of a line, with or without a space", () => {
    const text = "NATS/1.0\r\nX-A: not A: 1\r\nA:2\r\na: 3\r\nEmpty:\r\n\r\n";
    expect(headerValue(text, "A")).toBe("2");
    expect(headerValue(text, "a")).toBe("3");
    expect(headerValue(text, "Empty")).toBe("");
    expect(headerValue(text, "B")).toBe("");
    expect(headerValue("", "A")).toBe("");
  });

  it("that NATS cannot carry are refused", () => {
    for (const bad of [
      ["a b", "1"],
      ["", "1"],
      ["a:", "1"],
      ["ü", "1"],
      ["a", "x\ny"],
      ["a", "x\ry"],
    ]) {
      expect(() => encodeHeaders(bad)).toThrow(MeshError);
    }
  });
});
