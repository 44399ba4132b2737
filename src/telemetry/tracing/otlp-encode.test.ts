import { describe, expect, it } from "vitest";
import { type Attributes, OtlpBatch, OtlpForm } from "./otlp-encode.ts";
import { Span, type SpanInit } from "./span.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";

function spanOf(init: Partial<SpanInit>, attributes: Attributes = []): Span {
  const span = new Span({
    name: "call",
    kind: "client",
    traceparent: `00-${traceId}-b7ad6b7169203331-01`,
    tracestate: "",
    valid: true,
    parentSpanId: "",
    startMs: 1_700_000_000_000.25,
    sink: () => {},
    now: () => 1_700_000_000_001.5,
    ...init,
  });
  for (let i = 0; i + 1 < attributes.length; i += 2) span.set(String(attributes[i]), attributes[i + 1]!);
  return span;
}

/** A message as its fields: number to values; bytes stay bytes. */
type Fields = Map<number, (Buffer | bigint)[]>;

/** Reads the wire form of protobuf, as little of it as the message uses. */
function fieldsOf(bytes: Buffer): Fields {
  const fields: Fields = new Map();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    let value: Buffer | bigint;
    if ((tag & 7) === 0) value = varint();
    else if ((tag & 7) === 1) value = bytes.readBigUInt64LE((at += 8) - 8);
    else {
      const size = Number(varint());
      value = bytes.subarray(at, (at += size));
    }
    fields.set(tag >> 3, [...(fields.get(tag >> 3) ?? []), value]);
  }
  expect(at).toBe(bytes.length);
  return fields;
}

const one = (fields: Fields, number: number): Buffer => fields.get(number)![0] as Buffer;
const text = (fields: Fields, number: number): string => one(fields, number).toString();

function attributesOf(fields: Fields, number: number): Record<string, unknown> {
  const pairs = (fields.get(number) ?? []).map((bytes) => {
    const pair = fieldsOf(bytes as Buffer);
    const value = fieldsOf(one(pair, 2));
    return [text(pair, 1), value.has(1) ? text(value, 1) : value.get(3)![0]];
  });
  return Object.fromEntries(pairs) as Record<string, unknown>;
}

describe("an OTLP request", () => {
  const form = new OtlpForm(["service.name", "shop", "team", "blau ü"], "scope-name");

  it("holds resource, scope and spans", () => {
    const batch = new OtlpBatch(form);
    const attributes = ["k", "v", "ünï", "wörld €", "long", "x".repeat(300), "count", 70_000, "empty", ""];
    const full = spanOf({ kind: "server", parentSpanId: "00f067aa0ba902b7", tracestate: "a=1" }, attributes);
    full.fail("went wröng");
    full.end();
    batch.add(full);
    const bare = spanOf({ name: "ñame" });
    bare.end();
    batch.add(bare);

    const request = fieldsOf(Buffer.concat(batch.pieces()));
    const resourceSpans = fieldsOf(one(request, 1));
    expect(attributesOf(fieldsOf(one(resourceSpans, 1)), 1)).toEqual({
      "service.name": "shop",
      team: "blau ü",
    });
    const scopeSpans = fieldsOf(one(resourceSpans, 2));
    expect(text(fieldsOf(one(scopeSpans, 1)), 1)).toBe("scope-name");
    const [first, second] = scopeSpans.get(2)!.map((bytes) => fieldsOf(bytes as Buffer));
    expect(one(first!, 1).toString("hex")).toBe(traceId);
    expect(one(first!, 2).toString("hex")).toBe("b7ad6b7169203331");
    expect(text(first!, 3)).toBe("a=1");
    expect(one(first!, 4).toString("hex")).toBe("00f067aa0ba902b7");
    expect(text(first!, 5)).toBe("call");
    expect(first!.get(6)).toEqual([2n]);
    expect([7, 8].map((number) => Number(first!.get(number)![0]) / 1e6)).toEqual([
      1_700_000_000_000.25, 1_700_000_000_001.5,
    ]);
    expect(attributesOf(first!, 9)).toEqual({
      k: "v",
      ünï: "wörld €",
      long: "x".repeat(300),
      count: 70_000n,
      empty: "",
    });
    const status = fieldsOf(one(first!, 15));
    expect([text(status, 2), status.get(3)]).toEqual(["went wröng", [2n]]);
    expect(text(second!, 5)).toBe("ñame");
    expect([3, 4, 9, 15].some((number) => second!.has(number))).toBe(false);
  });

  it("grows with its spans", () => {
    const batch = new OtlpBatch(form);
    for (let i = 0; i < 600; i++) {
      const span = spanOf({}, ["at", i, "text", "ü".repeat(200)]);
      span.end();
      batch.add(span);
    }
    const scopeSpans = fieldsOf(one(fieldsOf(one(fieldsOf(Buffer.concat(batch.pieces())), 1)), 2));
    const spans = scopeSpans.get(2)!.map((bytes) => attributesOf(fieldsOf(bytes as Buffer), 9));
    expect(spans).toHaveLength(600);
    expect(spans.at(-1)).toEqual({ at: 599n, text: "ü".repeat(200) });
  });
});
