/**
 * One change of a group's shared consumer: which topics join it, and which get a consumer of their own, because NATS
 * would skip events of theirs. To be made under the group's lock. A consumer goes on from where it has got to, also
 * with filters that it did not have before; its state does not tell where that is.
 */
import { type ConsumerConfig, type ConsumerInfo, Consumers, filtersOf } from "./consumers.ts";
import { createGroup, type GroupPlace, maxPendingEvents, startOf } from "./groups.ts";
import type { AttemptOptions } from "./jetstream.ts";
import { Filters } from "./shared-filters.ts";
import { joinName, parseTopic } from "./subjects.ts";
import type { TopicStart, TopicSubscribeOptions } from "./types.ts";

/** Metadata: what the consumer is for; from which event on filters that are being added may have missed some. */
const sharedMark = "weft-shared";
const joiningMark = "weft-joining";
/** Part of the largest message that the filters may take. */
const filtersPart = 0.4;
const asksAtOnce = 256;
const nanosPerMs = 1_000_000;

/** `after`: of a topic that was in the consumer already: all events up to this one are acknowledged. */
export type Wanted = {
  readonly filter: string;
  readonly options: TopicSubscribeOptions;
  readonly after: number | undefined;
};

/** `own`: filters that are not in the consumer, with the start of their own ones. `info`: absent when there is none. */
export type Change = {
  readonly own: ReadonlyMap<string, TopicStart>;
  readonly info: ConsumerInfo | undefined;
};

/** A consumer that is not there is made. Rejects with MeshError. */
export async function change(
  place: GroupPlace,
  name: string,
  wanted: readonly Wanted[],
  attempt: AttemptOptions,
): Promise<Change> {
  const consumers = new Consumers(place.js, place.config.name);
  const names = await consumers.names(attempt);
  const info = await repaired(place, consumers, name, attempt);
  const group = wanted[0]!.options.group;
  const hasOwn = (filter: string): boolean =>
    names.has(joinName([group, parseTopic(place.trees.plain, filter)]));
  const filters = new Filters(place.trees.any, info === undefined ? [] : filtersOf(info));
  const own = new Map<string, TopicStart>();
  const joining: Wanted[] = [];
  const maxBytes = place.js.connection.maxPayloadBytes() * filtersPart;
  for (const one of wanted) {
    const { filter, options } = one;
    const full = filters.bytes + filter.length > maxBytes;
    if (hasOwn(filter)) filters.delete(filter);
    else if (filters.has(filter)) continue;
    else if (options.shared !== "keep" && !full && !filters.overlaps(filter)) {
      filters.add(filter);
      joining.push(one);
      continue;
    }
    own.set(filter, options.deliver);
  }
  if (info === undefined) {
    if (filters.size === 0) return { own, info };
    const start = { durable_name: name, name, ack_policy: "explicit", replay_policy: "instant" };
    const config = { ...start, ...startOf(wanted[0]!.options) };
    return {
      own,
      info: await write(consumers, { config, filters, options: wanted[0]!.options }, attempt),
    };
  }
  return { own, info: await join(place, consumers, info, { wanted, filters, joining, own }, attempt) };
}

type Joining = {
  readonly wanted: readonly Wanted[];
  readonly filters: Filters;
  readonly joining: readonly Wanted[];
  /** Gets those that cannot join after all. */
  readonly own: Map<string, TopicStart>;
};

/** Adds filters to a consumer that has advanced already. */
async function join(
  place: GroupPlace,
  consumers: Consumers,
  info: ConsumerInfo,
  { wanted, filters, joining, own }: Joining,
  attempt: AttemptOptions,
): Promise<ConsumerInfo> {
  const options = wanted[0]!.options;
  const same = joining.length === 0 && filters.size === filtersOf(info).length;
  if (same && info.config.ack_wait === options.ackWaitMs * nanosPerMs) return info;
  const last = await consumers.lastSequence(attempt);
  const places = joining.map(({ filter, options: its, after }) => {
    // A group that begins with the next event must not get older ones either, to which the consumer may still come.
    const isNew = after === undefined && its.deliver === "new";
    return { filter, from: isNew ? info.delivered.stream_seq + 1 : (after ?? 0) + 1 };
  });
  const behind = await firstEvents(consumers, places, attempt);
  const late: Wanted[] = [];
  for (const one of joining) {
    const { filter, options: its, after } = one;
    if (behind.has(filter)) {
      own.set(filter, after === undefined ? its.deliver : { sequence: after + 1 });
      filters.delete(filter);
    } else if (after !== undefined || its.deliver !== "new") late.push(one);
  }
  const more = late.length === 0 ? {} : { [joiningMark]: String(last) };
  const written = await write(consumers, { config: info.config, filters, options, more }, attempt);
  if (late.length === 0) return written;
  // Only what has come between the look and the change can have been passed over.
  const upTo = await consumers.lastSequence(attempt);
  const first = await firstEvents(
    consumers,
    late.map(({ filter }) => ({ filter, from: last + 1 })),
    attempt,
  );
  for (const { filter, options: its } of late) {
    if (!((first.get(filter) ?? Number.POSITIVE_INFINITY) <= upTo)) continue;
    const deliver = { sequence: last + 1 };
    await createGroup(place, { ...its, deliver });
    own.set(filter, its.deliver);
    filters.delete(filter);
  }
  return write(consumers, { config: written.config, filters, options }, attempt);
}

/** The consumer; when somebody died while filters were added, from where these may have missed events. */
async function repaired(
  place: GroupPlace,
  consumers: Consumers,
  name: string,
  attempt: AttemptOptions,
): Promise<ConsumerInfo | undefined> {
  const info = await consumers.info(name, attempt);
  const mark = info?.config.metadata?.[joiningMark];
  if (info === undefined || mark === undefined) return info;
  const sequence = Math.min(Number(mark), info.ack_floor.stream_seq) + 1;
  place.js.connection.settings.log(
    "warn",
    `${name}: a member died while it added topics; the group goes on from event ${sequence}`,
  );
  await consumers.move(name, sequence, attempt);
  const moved = await consumers.info(name, attempt);
  if (moved === undefined) return undefined;
  const filters = new Filters(place.trees.any, filtersOf(moved));
  return write(consumers, { config: moved.config, filters, options: undefined }, attempt);
}

/** First event of each filter at or behind a place; filters without one are left out. */
async function firstEvents(
  consumers: Consumers,
  places: readonly { readonly filter: string; readonly from: number }[],
  attempt: AttemptOptions,
): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (let i = 0; i < places.length; i += asksAtOnce) {
    await Promise.all(
      places.slice(i, i + asksAtOnce).map(async ({ filter, from }) => {
        const sequence = await consumers.firstEvent(filter, from, attempt);
        if (sequence !== undefined) found.set(filter, sequence);
      }),
    );
  }
  return found;
}

/** Takes filters out of the consumer, or puts them in, and nothing else. Under the lock. */
export function writeFilters(
  consumers: Consumers,
  { config }: ConsumerInfo,
  filters: Filters,
  attempt: AttemptOptions,
): Promise<ConsumerInfo> {
  return write(consumers, { config, filters, options: undefined }, attempt);
}

type Written = {
  readonly config: ConsumerConfig;
  readonly filters: Filters;
  readonly options: TopicSubscribeOptions | undefined;
  readonly more?: Readonly<Record<string, string>>;
};

function write(
  consumers: Consumers,
  { config, filters, options, more = {} }: Written,
  attempt: AttemptOptions,
): Promise<ConsumerInfo> {
  const { filter_subject: _, metadata, ...kept } = config;
  const { [joiningMark]: _mark, ...marks } = (metadata ?? {}) as Readonly<Record<string, string>>;
  return consumers.write(
    String(config["name"]),
    {
      ...kept,
      ...(options === undefined ? {} : { ack_wait: options.ackWaitMs * nanosPerMs }),
      // Members count the deliveries: an event must not end with one that had no handler for it.
      max_deliver: -1,
      max_ack_pending: maxPendingEvents,
      filter_subjects: filters.list,
      metadata: { ...marks, [sharedMark]: "1", ...more },
    },
    attempt,
  );
}
