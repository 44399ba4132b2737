/** What the metadata of a subscription ask of pubsub.nats. Names count in any case; empty is the same as absent. */
import type { TopicStart } from "../../../../mesh/index.ts";
import { RequestRefused } from "../../../blocks/pubsub/port.ts";
import { parseGoDuration } from "../../../lib/duration.ts";
import { propertyOf } from "../../component.ts";

type Metadata = Readonly<Record<string, string>>;

/** Undefined = as the component says. */
export type SubscriptionWishes = {
  readonly ordered: boolean | undefined;
  readonly broadcast: boolean;
  /** Where a group that is made now begins. */
  readonly start: TopicStart | undefined;
  readonly group: string | undefined;
};

/** Throws RequestRefused, naming the field. */
export function readSubscriptionWishes(metadata: Metadata, nowMs: number): SubscriptionWishes {
  const ordered = readBoolean(metadata, "ordered");
  const broadcast = readBoolean(metadata, "broadcast") ?? false;
  if (broadcast && ordered === true)
    throw new RequestRefused("broadcast", "it keeps no order; leave out either this or ordered");
  return {
    ordered,
    broadcast,
    start: readStart(metadata, nowMs),
    group: textOf(metadata, "consumerID"),
  };
}

function textOf(metadata: Metadata, name: string): string | undefined {
  return propertyOf(metadata, name)?.trim() || undefined;
}

const words: ReadonlyMap<string, boolean> = new Map([
  ["true", true],
  ["1", true],
  ["false", false],
  ["0", false],
]);

function readBoolean(metadata: Metadata, name: string): boolean | undefined {
  const text = textOf(metadata, name);
  if (text === undefined) return undefined;
  const value = words.get(text.toLowerCase());
  if (value === undefined) throw new RequestRefused(name, `"${text}" is neither true nor false`);
  return value;
}

function readStart(metadata: Metadata, nowMs: number): TopicStart | undefined {
  const given = ["deliverPolicy", "startTime", "startSequence"].filter((name) => textOf(metadata, name));
  const [field, other] = given;
  if (field === undefined) return undefined;
  if (other !== undefined)
    throw new RequestRefused(other, `${field} says already where to start; leave one out`);
  const text = textOf(metadata, field)!;
  if (field === "startTime") return { timeMs: readTime(text, nowMs) };
  if (field === "startSequence") return { sequence: readSequence(text) };
  if (text === "all" || text === "new" || text === "last") return text;
  throw new RequestRefused(field, `"${text}" is none of all, new, last`);
}

function readSequence(text: string): number {
  const sequence = /^\d{1,16}$/.test(text) ? Number(text) : 0;
  if (!Number.isSafeInteger(sequence) || sequence < 1)
    throw new RequestRefused("startSequence", `"${text}" is no whole number above 0`);
  return sequence;
}

const rfc3339 = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)$/;
/** Clocks differ a little. */
const maxAheadMs = 60_000;

function readTime(text: string, nowMs: number): number {
  const timeMs = rfc3339.test(text) ? Date.parse(text) : nowMs + backwards(text);
  if (!(timeMs >= 0))
    throw new RequestRefused("startTime", `"${text}" is no time; write -1h or 2030-01-31T08:00:00Z`);
  if (timeMs > nowMs + maxAheadMs)
    throw new RequestRefused("startTime", `"${text}" is in the future; write e.g. -1h`);
  return timeMs;
}

function backwards(text: string): number {
  try {
    return parseGoDuration(text);
  } catch {
    return Number.NaN;
  }
}
