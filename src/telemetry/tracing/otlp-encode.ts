/**
 * Spans as the OTLP request message (opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest), by hand: a
 * message library takes several times as long for this one message, and that time would be taken from calls.
 * A message is built as text with one character a byte, which needs no counting ahead and no copies.
 */
import type { Span, SpanKind, SpanValue } from "./span.ts";

/** Flat list of attribute keys and values. */
export type Attributes = readonly SpanValue[];

const kinds: Readonly<Record<SpanKind, number>> = {
  internal: 1,
  server: 2,
  client: 3,
  producer: 4,
  consumer: 5,
};
const errorStatus = 2;

/** The bytes of one request with all spans under one resource and scope. */
export function encodeOtlp(resource: Attributes, scope: string, spans: readonly Span[]): Buffer {
  let scopeSpans = field(1, field(1, utf8(scope)));
  for (const span of spans) scopeSpans += field(2, spanMessage(span));
  const resourceSpans = field(1, attributes(1, resource)) + field(2, scopeSpans);
  return Buffer.from(field(1, resourceSpans), "latin1");
}

function spanMessage(span: Span): string {
  let text =
    field(1, hexBytes(span.traceId)) +
    field(2, hexBytes(span.spanId)) +
    (span.tracestate === "" ? "" : field(3, utf8(span.tracestate))) +
    (span.parentSpanId === "" ? "" : field(4, hexBytes(span.parentSpanId))) +
    field(5, utf8(span.name)) +
    number(6, kinds[span.kind]) +
    nanos(7, span.startMs) +
    nanos(8, span.endMs) +
    attributes(9, span.attributes);
  if (span.error !== undefined) text += field(15, field(2, utf8(span.error)) + number(3, errorStatus));
  return text;
}

function attributes(at: number, list: Attributes): string {
  let text = "";
  for (let i = 0; i + 1 < list.length; i += 2) {
    const value = list[i + 1]!;
    const any = typeof value === "string" ? field(1, utf8(value)) : number(3, value);
    text += field(at, field(1, String(list[i])) + field(2, any));
  }
  return text;
}

/** A field with a length: text, bytes or a message. */
function field(at: number, content: string): string {
  return varint((at << 3) | 2) + varint(content.length) + content;
}

/** A whole number that is not negative. */
function number(at: number, value: number): string {
  return varint(at << 3) + varint(value);
}

/** Unix ns as fixed64; a double holds them to about 256 ns. */
function nanos(at: number, unixMs: number): string {
  const ns = Math.round(unixMs * 1e6);
  const high = Math.floor(ns / 2 ** 32);
  return varint((at << 3) | 1) + little(ns - high * 2 ** 32) + little(high);
}

function little(value: number): string {
  return String.fromCharCode(
    value & 0xff,
    (value >>> 8) & 0xff,
    (value >>> 16) & 0xff,
    (value / 2 ** 24) & 0xff,
  );
}

function varint(value: number): string {
  if (value < 0x80) return String.fromCharCode(value);
  let text = "";
  let rest = value;
  while (rest >= 0x80) {
    text += String.fromCharCode((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return text + String.fromCharCode(rest);
}

const ascii = /^[\0-\x7f]*$/;

/** One character a byte. */
function utf8(text: string): string {
  return ascii.test(text) ? text : Buffer.from(text, "utf8").toString("latin1");
}

function hexBytes(hex: string): string {
  return Buffer.from(hex, "hex").toString("latin1");
}
