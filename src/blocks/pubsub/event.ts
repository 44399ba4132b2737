/**
 * Reads a broker message as the event that subscribers get: its body for HTTP apps, its attributes for routing,
 * gRPC apps and expiry.
 */
import { randomUUID } from "node:crypto";
import { goJson } from "../../lib/go-json.ts";
import type { Span } from "../../telemetry/tracing/span.ts";
import { defaultEventType, unnamedSource } from "./envelope.ts";
import type { BrokerMessage } from "./port.ts";
import { mediaType } from "./payload.ts";

export type Metadata = Readonly<Record<string, string>>;

/** A decoded CloudEvent: any JSON members. */
export type CloudEvent = Readonly<Record<string, unknown>>;

export type AppEvent = {
  readonly pubsub: string;
  /** As apps name it, without a namespace prefix. */
  readonly topic: string;
  /** What an HTTP app gets. */
  readonly body: Uint8Array;
  readonly attributes: CloudEvent;
  /** Metadata of the message and `pubsubName`. */
  readonly metadata: Metadata;
  /** Of its delivery, to go on with to the app; undefined when tracing is off or the event has no trace. */
  readonly span?: Span | undefined;
};

/** How a subscription wants its messages: `raw` undefined means that its `rawPayload` is no boolean. */
export type ReadOptions = {
  readonly pubsub: string;
  readonly topic: string;
  readonly raw: boolean | undefined;
};

/** Throws Error when the message cannot be an event of this subscription; it then counts as failed. */
export function readEvent(message: BrokerMessage, options: ReadOptions): AppEvent {
  const { pubsub, topic, raw } = options;
  const metadata = { ...message.metadata, pubsubName: pubsub };
  if (raw === undefined)
    throw new Error("rawPayload of the subscription must be a boolean such as true or false");
  if (raw) {
    const attributes = wrapRaw(message.data, metadata, options);
    return { pubsub, topic, metadata, attributes, body: Buffer.from(goJson(attributes)) };
  }
  const contentType = message.contentType ?? metadataValue(metadata, "content-type");
  const binary = contentType !== undefined && mediaType(contentType) === "application/octet-stream";
  const attributes = binary
    ? fromAttributesInMetadata(message.data, metadata)
    : parseEvent(message.data, metadata);
  return { pubsub, topic, metadata, attributes, body: message.data };
}

/** Bytes of a raw subscription inside an envelope made for the occasion. */
function wrapRaw(data: Uint8Array, metadata: Metadata, options: ReadOptions): Record<string, unknown> {
  const event: Record<string, unknown> = {
    id: randomUUID(),
    specversion: "1.0",
    datacontenttype: "application/octet-stream",
    source: unnamedSource,
    type: defaultEventType,
    topic: options.topic,
    pubsubname: options.pubsub,
    data_base64: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64"),
  };
  for (const name of ["traceid", "traceparent", "tracestate"]) {
    const value = metadataValue(metadata, name);
    if (value === undefined) continue;
    event[name] = value;
    if (name === "traceparent") event["traceid"] = value;
  }
  return event;
}

/** The binary form of some brokers: attributes in metadata under `ce_`, the bytes are the data. */
function fromAttributesInMetadata(data: Uint8Array, metadata: Metadata): CloudEvent {
  const event: Record<string, unknown> = { data };
  for (const key of Object.keys(metadata)) {
    const name = key.toLowerCase();
    if (name.startsWith("ce_")) event[name.slice("ce_".length)] = metadata[key];
  }
  return event;
}

function parseEvent(data: Uint8Array, metadata: Metadata): CloudEvent {
  const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString();
  const event = JSON.parse(text) as unknown;
  if (event === null) return {};
  if (typeof event !== "object" || Array.isArray(event))
    throw new Error("the message is JSON but no JSON object");
  const attributes = event as Record<string, unknown>;
  for (const name of ["traceid", "traceparent", "tracestate"]) {
    const value = attributes[name] === undefined ? metadataValue(metadata, name) : undefined;
    if (value !== undefined) attributes[name] = value;
  }
  return attributes;
}

/** Value of a metadata key in any case. */
function metadataValue(metadata: Metadata, name: string): string | undefined {
  for (const key in metadata)
    if (key.length === name.length && key.toLowerCase() === name) return metadata[key];
  return undefined;
}

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;

/** True when the event carries an `expiration` in the past. */
export function hasExpired(event: CloudEvent, nowMs: number): boolean {
  const expiration = event["expiration"];
  if (typeof expiration !== "string" || !rfc3339.test(expiration)) return false;
  const expiresAtMs = Date.parse(expiration);
  return !Number.isNaN(expiresAtMs) && nowMs > expiresAtMs;
}

/** A text attribute; empty when absent or no text. */
export function textAttribute(event: CloudEvent, name: string): string {
  const value = event[name];
  return typeof value === "string" ? value : "";
}

/** The trace an event belongs to: `traceparent`, else `traceid`; undefined when neither is there as text. */
export function eventTrace(event: CloudEvent): string | undefined {
  const value = event["traceparent"] ?? event["traceid"];
  return typeof value === "string" ? value : undefined;
}
