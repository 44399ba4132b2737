/**
 * The events of a transaction: which operations make one, and how it is written while it waits.
 */
import { randomUUID } from "node:crypto";
import { goJson, parseJsonKeepNumbers } from "../../lib/go-json.ts";
import { isTruthy } from "../../lib/truthy.ts";
import type { TraceContext } from "../../telemetry/tracing/trace-context.ts";
import { defaultEventType, localTime } from "../pubsub/envelope.ts";
import { dataMember, mediaType } from "../pubsub/payload.ts";
import type { Metadata, Operation, SaveItem } from "../state/writes.ts";

/** An event before it has a trace and a time. `marker` is its id and the key that proves its transaction. */
export type PlannedEvent = {
  readonly marker: string;
  readonly contentType: string;
  readonly data: Buffer;
  /** Of the operation; each entry becomes an attribute. */
  readonly metadata: Metadata;
};

export type Plan = {
  readonly operations: readonly Operation[];
  readonly events: readonly PlannedEvent[];
};

const projectionField = "outbox.projection";

/** Every upsert makes an event; one with `outbox.projection` gives its value to those of its key and is not stored. */
export function planEvents(all: readonly Operation[]): Plan {
  const operations = all.filter((operation) => !isProjection(operation));
  const projections = new Map<string, SaveItem>();
  if (operations.length < all.length) {
    for (const operation of all)
      if (isProjection(operation)) projections.set(operation.item.key, operation.item);
  }
  const events = operations
    .filter(({ operation }) => operation === "upsert")
    .map(({ item }): PlannedEvent => {
      const shown = projections.get(item.key) ?? item;
      const contentType = shown.contentType || shown.metadata["contentType"] || "";
      return {
        marker: `outbox-${randomUUID()}`,
        contentType,
        data: payload(shown, contentType),
        metadata: item.metadata,
      };
    });
  return { operations, events };
}

function isProjection({ operation, item }: Operation): boolean {
  return operation === "upsert" && isTruthy(item.metadata[projectionField]);
}

/** Bytes of the client as they are. Of JSON only `application/json` keeps its form: a string loses its quotes. */
function payload({ value, json }: SaveItem, contentType: string): Buffer {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  const isText = json && bytes[0] === 0x22 && mediaType(contentType) !== "application/json";
  return isText ? Buffer.from(JSON.parse(bytes.toString()) as string) : bytes;
}

/** The envelope in which an event waits. Throws GoJsonError when its data are nested too deep. */
export function waitingEnvelope(
  { marker, contentType, data, metadata }: PlannedEvent,
  source: string,
  { traceparent, tracestate }: TraceContext,
  nowMs: number,
): Buffer {
  // Without a prototype: a client's metadata may be called `__proto__`.
  const event: Record<string, unknown> = Object.assign(
    Object.create(null) as object,
    parseJsonKeepNumbers(`{${dataMember(contentType, data)}}`),
    {
      datacontenttype: contentType || "text/plain",
      id: marker,
      pubsubname: "",
      source,
      specversion: "1.0",
      time: localTime(Math.floor(nowMs / 1000) * 1000),
      topic: "",
      traceid: traceparent,
      traceparent: "",
      tracestate,
      type: defaultEventType,
    },
  );
  for (const name in metadata) if (name !== "data" && name !== "id") event[name] = metadata[name];
  return Buffer.from(goJson(event));
}

/** An event that waits, as read again; undefined when the bytes are none. */
export function readWaiting(
  data: Uint8Array,
): { readonly marker: string; publishedAs(pubsub: string, topic: string): Buffer } | undefined {
  const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString();
  let event: Record<string, unknown>;
  try {
    event = parseJsonKeepNumbers(text) as Record<string, unknown>;
  } catch {
    return undefined;
  }
  const marker = typeof event === "object" && event !== null ? event["id"] : undefined;
  if (typeof marker !== "string" || !marker.startsWith("outbox-")) return undefined;
  return {
    marker,
    publishedAs: (pubsub, topic) => Buffer.from(goJson({ ...event, pubsubname: pubsub, topic })),
  };
}
