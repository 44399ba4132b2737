/** What publish metadata ask of pubsub.nats beyond what is kept with the event. Names count in any case. */
import { RequestRefused } from "../../../blocks/pubsub/port.ts";
import { propertyOf } from "../../component.ts";
import { parseDurationOrSeconds } from "../../../lib/duration.ts";

type Metadata = Readonly<Record<string, string>>;

export type PublishWishes = {
  /** Events of one key keep their order; undefined = no key. */
  readonly key?: string | undefined;
  /** When it is to be delivered, and the words that say so; undefined = now. */
  readonly time?: { readonly atMs: number; readonly field: string; readonly text: string };
  /** By which a waiting event can be replaced and cancelled. */
  readonly scheduleId?: string | undefined;
  /** Nothing is published: the event that waits under the id shall not come. */
  readonly cancel?: boolean;
};

const maxTextBytes = 256;
const maxDelayMs = 100 * 366 * 86_400_000;
const none: PublishWishes = Object.freeze({});
const fields: ReadonlyMap<string, string> = new Map(
  [
    "orderingKey",
    "partitionKey",
    "delay",
    "deliverAt",
    "ScheduledEnqueueTimeUtc",
    "scheduleId",
    "cancelSchedule",
    "ttl",
    "ttlInSeconds",
  ].map((name) => [name.toLowerCase(), name]),
);
const forNow: ReadonlySet<string> = new Set(
  ["delay", "deliverAt", "ScheduledEnqueueTimeUtc", "scheduleId", "cancelSchedule"].map((name) =>
    name.toLowerCase(),
  ),
);

/** True for a name that says what becomes of the publish and means nothing once the event is delivered. */
export function isForPublishOnly(name: string): boolean {
  return forNow.has(name.toLowerCase());
}

/** Throws RequestRefused, naming the field. */
export function readPublishWishes(metadata: Metadata, nowMs: () => number): PublishWishes {
  let asked: Record<string, string> | undefined;
  for (const written in metadata) {
    const name = fields.get(written.toLowerCase());
    if (name !== undefined && metadata[written] !== "") (asked ??= {})[name] = metadata[written]!;
  }
  if (asked === undefined) return none;
  const key = shortText(asked, asked["orderingKey"] === undefined ? "partitionKey" : "orderingKey");
  const scheduleId = shortText(asked, "scheduleId");
  const cancel = cancelOf(asked);
  const time = timeOf(asked, nowMs());
  if (time === undefined) {
    if (scheduleId !== undefined && !cancel)
      throw new RequestRefused("scheduleId", "it needs delay or deliverAt, or cancelSchedule");
    return { key, scheduleId, cancel };
  }
  if (cancel)
    throw new RequestRefused("cancelSchedule", `a cancel has no ${time.field}; leave one of both out`);
  checkTtl(asked, time.atMs - nowMs());
  return { key, scheduleId, cancel, time };
}

/** The wishes that an event keeps after its delivery; what cannot be is left out. */
export function keptWishes(metadata: Metadata): PublishWishes {
  const key = propertyOf(metadata, "orderingKey") || propertyOf(metadata, "partitionKey");
  return key && Buffer.byteLength(key) <= maxTextBytes ? { key } : none;
}

function shortText(asked: Metadata, name: string): string | undefined {
  const text = asked[name];
  if (text === undefined) return undefined;
  const size = Buffer.byteLength(text);
  if (size > maxTextBytes)
    throw new RequestRefused(name, `it has ${size} bytes; use at most ${maxTextBytes}`);
  return text;
}

function cancelOf({ cancelSchedule = "false" }: Metadata): boolean {
  const word = cancelSchedule.toLowerCase();
  if (word !== "true" && word !== "false")
    throw new RequestRefused("cancelSchedule", `"${cancelSchedule}" is neither true nor false`);
  return word === "true";
}

function timeOf(asked: Metadata, nowMs: number): PublishWishes["time"] {
  const given = ["delay", "deliverAt", "ScheduledEnqueueTimeUtc"].filter((name) => asked[name] !== undefined);
  const [field, other] = given;
  if (field === undefined) return undefined;
  if (other !== undefined)
    throw new RequestRefused(other, `${field} says already when; leave one of both out`);
  const text = asked[field]!;
  const atMs = field === "delay" ? nowMs + delayOf(text) : momentOf(field, text);
  if (atMs - nowMs > maxDelayMs) throw new RequestRefused(field, `"${text}" is more than 100 years away`);
  return { atMs, field, text };
}

function delayOf(text: string): number {
  let delayMs: number;
  try {
    delayMs = parseDurationOrSeconds(text);
  } catch {
    throw new RequestRefused("delay", `"${text}" is no time; write seconds or e.g. 90s, 15m, 36h`);
  }
  if (delayMs < 0) throw new RequestRefused("delay", `"${text}" is in the past; use 0 or more`);
  return delayMs;
}

const rfc3339 = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)$/;
/** As HTTP writes dates; the form that Dapr's Azure component takes. */
const httpDate = /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/;

function momentOf(field: string, text: string): number {
  const known = rfc3339.test(text) || (field !== "deliverAt" && httpDate.test(text));
  const atMs = known ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(atMs))
    throw new RequestRefused(field, `"${text}" is no time; write it as 2030-01-31T08:00:00Z`);
  return atMs;
}

/** The time to live counts from the publish: an event that dies before it is due would vanish silently. */
function checkTtl(asked: Metadata, delayMs: number): void {
  const field = asked["ttl"] === undefined ? "ttlInSeconds" : "ttl";
  const text = asked[field];
  if (text === undefined) return;
  let ttlMs: number;
  try {
    ttlMs = parseDurationOrSeconds(text);
  } catch {
    return;
  }
  if (ttlMs <= delayMs)
    throw new RequestRefused(
      field,
      `it counts from the publish and ends before the event is due; make it longer`,
    );
}
