/**
 * Wraps what an app publishes as a CloudEvent. The text is written by hand in the order of its sorted keys,
 * because a publish that builds objects and sorts them costs several times as much.
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "../../../mesh/index.ts";
import { GoJsonError, goJson, parseJsonKeepNumbers } from "../../lib/go-json.ts";
import { askedTtl, readTtlMs } from "../../lib/time-to-live.ts";
import { dataMember, jsonString, mediaType } from "./payload.ts";
import type { TraceContext } from "../../telemetry/tracing/trace-context.ts";

type Metadata = Readonly<Record<string, string>>;

export type EventInput = {
  readonly pubsub: string;
  /** As the app named it, without a namespace prefix. */
  readonly topic: string;
  /** As the app declared it; empty counts as `text/plain`. */
  readonly contentType: string;
  readonly data: Buffer;
  readonly metadata: Metadata;
  readonly trace: TraceContext;
  /** False when the component keeps time-to-live itself. */
  readonly expires: boolean;
};

export type Envelope = {
  readonly data: Buffer;
  /** What tells this event from others, when that is known: its id, with its source for events an app brought. */
  readonly id: string | undefined;
};

/** Turns publishes into envelopes for one app. Throws GoJsonError for a declared CloudEvent that is no JSON object. */
export type WrapEvent = (input: EventInput) => Envelope;

export const cloudEventsType = "application/cloudevents+json";
export const defaultEventType = "com.dapr.event.sent";
/** What stands as the source of an event that names none. */
export const unnamedSource = "Dapr";

export function createWrapEvent(appId: string, clock: Clock): WrapEvent {
  const time = createTimeText(clock);
  return (input) => {
    if (mediaType(input.contentType) === cloudEventsType) return complete(input, time(), clock.nowMs());
    return wrap(input, appId, time(), clock.nowMs());
  };
}

/** What `cloudevent.<attribute>` metadata asks for, by lower-case attribute name. */
type Overrides = Readonly<Partial<Record<string, string>>>;

const noOverrides: Overrides = Object.freeze({});
const overridePrefix = "cloudevent.";

function readOverrides(metadata: Metadata): Overrides {
  let found: Record<string, string> | undefined;
  for (const key in metadata) {
    const name = key.toLowerCase();
    if (name.startsWith(overridePrefix)) (found ??= {})[name.slice(overridePrefix.length)] = metadata[key]!;
  }
  return found ?? noOverrides;
}

function wrap(input: EventInput, appId: string, time: string, nowMs: number): Envelope {
  const asked = readOverrides(input.metadata);
  const source = sourceOf(asked, appId);
  const id = asked["id"] || randomUUID();
  const parent = jsonString(asked["traceparent"] || asked["traceid"] || input.trace.traceparent);
  const state = jsonString(asked["tracestate"] || input.trace.tracestate);
  const expiration = input.expires ? expirationOf(input.metadata, nowMs) : undefined;
  const text =
    `{${dataMember(input.contentType, input.data)},"datacontenttype":${jsonString(input.contentType || "text/plain")}` +
    (expiration === undefined ? "" : `,"expiration":"${expiration}"`) +
    `,"id":${jsonString(id)},"pubsubname":${jsonString(input.pubsub)},"source":${jsonString(source)}` +
    `,"specversion":"1.0"${asked["subject"] ? `,"subject":${jsonString(asked["subject"])}` : ""},"time":"${time}"` +
    `,"topic":${jsonString(input.topic)},"traceid":${parent},"traceparent":${parent},"tracestate":${state}` +
    `,"type":${asked["type"] ? jsonString(asked["type"]) : `"${defaultEventType}"`}}`;
  return { data: Buffer.from(text), id: asked["id"] ? eventKey(source, id) : id };
}

/** Asking for an empty source does not give the app's id back. */
function sourceOf(asked: Overrides, appId: string): string {
  return asked["source"] === undefined ? appId : asked["source"] || unnamedSource;
}

/** An event that already is a CloudEvent stays as it is; what consumers rely on is added. */
function complete(input: EventInput, time: string, nowMs: number): Envelope {
  const event = parseObject(input.data.toString());
  const { traceparent, tracestate } = input.trace;
  if (event["time"] === undefined) event["time"] = time;
  if (event["traceid"] === undefined) Object.assign(event, { traceid: traceparent, traceparent });
  if (event["tracestate"] === undefined) event["tracestate"] = tracestate;
  event["source"] ??= unnamedSource;
  event["type"] ??= defaultEventType;
  event["specversion"] ??= "1.0";
  event["topic"] = input.topic;
  event["pubsubname"] = input.pubsub;
  const expiration = input.expires ? expirationOf(input.metadata, nowMs) : undefined;
  if (expiration !== undefined) event["expiration"] = expiration;
  const { id, source } = event;
  const named = typeof id === "string" && id !== "" && typeof source === "string";
  return { data: Buffer.from(goJson(event)), id: named ? eventKey(source, id) : undefined };
}

function parseObject(text: string): Record<string, unknown> {
  const value = parseJsonKeepNumbers(text);
  // Looked up in the text, because a kept number is an object too.
  const first = /[^ \t\r\n]/.exec(text)?.[0] ?? "";
  if (first === "{") return value as Record<string, unknown>;
  const kind = { '"': "string", "[": "array", t: "bool", f: "bool", n: "null" }[first] ?? "number";
  throw new GoJsonError(`json: cannot unmarshal ${kind} into Go value of type map[string]interface {}`);
}

/** CloudEvents are told apart by source and id together. */
function eventKey(source: string, id: string): string {
  return `${JSON.stringify(source)}${JSON.stringify(id)}`;
}

/** RFC 3339 time at which the event dies by `ttl` or `ttlInSeconds` metadata; undefined without a usable one. */
function expirationOf(metadata: Metadata, nowMs: number): string | undefined {
  const ttlMs = readTtlMs(askedTtl(metadata));
  return ttlMs === undefined ? undefined : `${new Date(nowMs + ttlMs).toISOString().slice(0, 19)}Z`;
}

/** The current time as envelopes carry it: whole seconds with the local zone's offset. Made once a second. */
function createTimeText(clock: Clock): () => string {
  let second = -1;
  let text = "";
  return () => {
    const now = Math.floor(clock.nowMs() / 1000);
    if (now !== second) {
      second = now;
      text = localTime(now * 1000);
    }
    return text;
  };
}

/** RFC 3339 in whole seconds, e.g. `2026-07-01T10:00:00+02:00`, or with `Z` in UTC. */
export function localTime(unixMs: number): string {
  const offsetMinutes = -new Date(unixMs).getTimezoneOffset();
  const local = new Date(unixMs + offsetMinutes * 60_000).toISOString().slice(0, 19);
  if (offsetMinutes === 0) return `${local}Z`;
  const size = Math.abs(offsetMinutes);
  const part = (minutes: number): string => String(minutes).padStart(2, "0");
  return `${local}${offsetMinutes < 0 ? "-" : "+"}${part(Math.floor(size / 60))}:${part(size % 60)}`;
}
