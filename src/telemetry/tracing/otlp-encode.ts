/**
 * Spans as the OTLP request message (opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest), by hand: a
 * message library takes several times as long for this one message, and that time would be taken from calls.
 * A span becomes bytes the moment it ends: kept objects would cost the garbage collector more than their encoding does
 * (docs/decisions/0021). Lengths that are known last are varints of four bytes, which every reader of protobuf takes.
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
const firstBytes = 64 * 1024;
/** Larger memory is given back. */
const maxSpareBytes = 2 * 1024 * 1024;
/** Keys whose bytes are remembered; callers can make up further ones. */
const maxKnownKeys = 256;

/** Tags of the fields: number and wire type. */
const tag = {
  bytes1: 0x0a,
  bytes2: 0x12,
  bytes3: 0x1a,
  bytes4: 0x22,
  bytes5: 0x2a,
  number3: 0x18,
  number6: 0x30,
  fixed7: 0x39,
  fixed8: 0x41,
  bytes9: 0x4a,
  bytes15: 0x7a,
} as const;

/** What all requests of one exporter have in common, ready made. */
export class OtlpForm {
  /** Field `resource` of ResourceSpans, and field `scope` of ScopeSpans. */
  readonly resource: Uint8Array;
  readonly scope: Uint8Array;
  readonly #keys = new Map<string, string>();
  /** Memory of a batch that has left: fresh memory of this size costs more than what is written to it. */
  spare: Buffer | undefined;

  constructor(resource: Attributes, scope: string) {
    const writer = new OtlpBatch(this);
    writer.resource(resource);
    this.resource = writer.takeBytes();
    writer.scope(scope);
    this.scope = writer.takeBytes();
  }

  /** The key as field 1 of a KeyValue, one character a byte. */
  keyField(key: string): string {
    const known = this.#keys.get(key);
    if (known !== undefined) return known;
    const text = byteText(key);
    let made = "\n";
    let rest = text.length;
    for (; rest >= 0x80; rest >>>= 7) made += String.fromCharCode((rest & 0x7f) | 0x80);
    made += String.fromCharCode(rest) + text;
    if (this.#keys.size < maxKnownKeys) this.#keys.set(key, made);
    return made;
  }
}

/** The spans of one request. */
export class OtlpBatch {
  readonly #form: OtlpForm;
  #bytes: Buffer;
  #at = 0;

  constructor(form: OtlpForm) {
    this.#form = form;
    this.#bytes = form.spare ?? Buffer.allocUnsafeSlow(firstBytes);
    form.spare = undefined;
  }

  /** It has left, and is not used again. */
  release(): void {
    if (this.#bytes.length <= maxSpareBytes) this.#form.spare = this.#bytes;
  }

  add(span: Span): void {
    this.#room(256 + 3 * (span.name.length + span.tracestate.length));
    const start = this.#begin(tag.bytes2);
    const { traceparent, parentSpanId } = span;
    this.#id(tag.bytes1, traceparent, 3, 16);
    this.#id(tag.bytes2, traceparent, 36, 8);
    if (span.tracestate !== "") this.#text(tag.bytes3, span.tracestate);
    if (parentSpanId !== "") this.#id(tag.bytes4, parentSpanId, 0, 8);
    this.#text(tag.bytes5, span.name);
    this.#byte(tag.number6, kinds[span.kind]);
    this.#nanos(tag.fixed7, span.startMs);
    this.#nanos(tag.fixed8, span.endMs);
    this.#attributes(tag.bytes9, span.attributes);
    if (span.error !== undefined) this.#error(span.error);
    this.#end(start);
  }

  resource(attributes: Attributes): void {
    const start = this.#begin(tag.bytes1);
    this.#attributes(tag.bytes1, attributes);
    this.#end(start);
  }

  scope(name: string): void {
    this.#room(64 + 3 * name.length);
    const start = this.#begin(tag.bytes1);
    this.#text(tag.bytes1, name);
    this.#end(start);
  }

  /** The request in pieces, to be sent one after the other. */
  pieces(): Uint8Array[] {
    const { resource, scope } = this.#form;
    const spans = this.#bytes.subarray(0, this.#at);
    const scopeSpans = scope.length + spans.length;
    const inner = headOf(tag.bytes2, scopeSpans);
    const outer = headOf(tag.bytes1, resource.length + inner.length + scopeSpans);
    return [outer, resource, inner, scope, spans];
  }

  /** What was written so far; it begins anew. */
  takeBytes(): Uint8Array {
    const taken = Uint8Array.from(this.#bytes.subarray(0, this.#at));
    this.#at = 0;
    return taken;
  }

  #error(message: string): void {
    this.#room(64 + 3 * message.length);
    const start = this.#begin(tag.bytes15);
    this.#text(tag.bytes2, message);
    this.#byte(tag.number3, errorStatus);
    this.#end(start);
  }

  /** KeyValue {1: key, 2: AnyValue {1: text | 3: whole number}} for each pair. */
  #attributes(field: number, list: Attributes): void {
    for (let i = 0; i + 1 < list.length; i += 2) {
      const key = this.#form.keyField(String(list[i]));
      const value = list[i + 1]!;
      const size = typeof value === "string" ? value.length * 3 : 16;
      this.#room(32 + key.length + size);
      const start = this.#begin(field);
      this.#copy(key);
      if (typeof value === "string") this.#textValue(value);
      else this.#numberValue(value);
      this.#end(start);
    }
  }

  #textValue(value: string): void {
    const start = this.#at;
    if (!this.#textValueOf(value)) {
      this.#at = start;
      this.#textValueOf(byteText(value));
    }
  }

  #textValueOf(text: string): boolean {
    const { length } = text;
    this.#bytes[this.#at++] = tag.bytes2;
    this.#varint(length + 1 + varintSize(length));
    return this.#textOf(tag.bytes1, text);
  }

  #numberValue(value: number): void {
    this.#byte(tag.bytes2, 1 + varintSize(value));
    this.#bytes[this.#at++] = tag.number3;
    this.#varint(value);
  }

  #text(field: number, value: string): void {
    const start = this.#at;
    if (!this.#textOf(field, value)) {
      this.#at = start;
      this.#textOf(field, byteText(value));
    }
  }

  #textOf(field: number, text: string): boolean {
    this.#bytes[this.#at++] = field;
    this.#varint(text.length);
    return this.#copy(text);
  }

  /** One byte for each character; true when all are ASCII. */
  #copy(text: string): boolean {
    const bytes = this.#bytes;
    let at = this.#at;
    let all = 0;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      all |= code;
      bytes[at++] = code;
    }
    this.#at = at;
    return all < 0x80;
  }

  #id(field: number, hex: string, from: number, size: number): void {
    const bytes = this.#bytes;
    bytes[this.#at++] = field;
    bytes[this.#at++] = size;
    for (let i = from; i < from + 2 * size; i += 2)
      bytes[this.#at++] = (nibble(hex.charCodeAt(i)) << 4) | nibble(hex.charCodeAt(i + 1));
  }

  /** Unix ns as fixed64; a double holds them to about 256 ns. */
  #nanos(field: number, unixMs: number): void {
    const ns = Math.round(unixMs * 1e6);
    const high = Math.floor(ns / 2 ** 32);
    this.#bytes[this.#at++] = field;
    this.#at = this.#bytes.writeUInt32LE(ns - high * 2 ** 32, this.#at);
    this.#at = this.#bytes.writeUInt32LE(high, this.#at);
  }

  #byte(field: number, value: number): void {
    this.#bytes[this.#at++] = field;
    this.#bytes[this.#at++] = value;
  }

  #varint(value: number): void {
    let rest = value;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.#bytes[this.#at++] = (rest & 0x7f) | 0x80;
    this.#bytes[this.#at++] = rest;
  }

  /** Begins a message whose length comes with `#end`. */
  #begin(field: number): number {
    this.#bytes[this.#at] = field;
    return (this.#at += 5);
  }

  #end(start: number): void {
    writeLong(this.#bytes, start - 4, this.#at - start);
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#bytes.length * 2, this.#at + bytes));
    this.#bytes.copy(larger, 0, 0, this.#at);
    this.#bytes = larger;
  }
}

/** Tag and length of a message. */
function headOf(field: number, size: number): Uint8Array {
  const bytes = new Uint8Array(5);
  bytes[0] = field;
  writeLong(bytes, 1, size);
  return bytes;
}

/** A varint of four bytes, whatever the value. */
function writeLong(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = (value & 0x7f) | 0x80;
  bytes[at + 1] = ((value >>> 7) & 0x7f) | 0x80;
  bytes[at + 2] = ((value >>> 14) & 0x7f) | 0x80;
  bytes[at + 3] = (value >>> 21) & 0x7f;
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

function nibble(code: number): number {
  return code < 58 ? code - 48 : code - 87;
}

/** The bytes of a text, one character each. */
function byteText(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}
