/**
 * One durable consumer for many topics of a group, as one participant takes part in it: gathers its subscriptions,
 * keeps their filters in the consumer, and hands events to their handlers. Whatever the consumer might skip gets a
 * consumer of its own. Normative: README.md, "Topics"; why: docs/decisions/0031.
 */
import type { Msg } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import { type ConsumerInfo, Consumers, filtersOf } from "./consumers.ts";
import { isMeshError, MeshError, textOf } from "./errors.ts";
import { attemptAt, createGroup, type GroupPlace, onlyForHeader, openGroup } from "./groups.ts";
import { withLock } from "./group-lock.ts";
import type { AttemptOptions } from "./jetstream.ts";
import { HandedBack, Puller } from "./pull.ts";
import { change, type Wanted, writeFilters } from "./shared-change.ts";
import { Filters } from "./shared-filters.ts";
import { encodeToken, filterOfEvent, joinName, parseTopic, sharedName, topicFilter } from "./subjects.ts";
import { readTopicMessage } from "./topic-message.ts";
import type { SharedTimes, Table, TopicHandler, TopicSubscribeOptions, TopicSubscription } from "./types.ts";
import { tellChanged, Unhandled } from "./unhandled.ts";

/** Subscriptions that come within this time are one change of the consumer, ms. */
const gatherMs = 10;
/** Where there is no shared consumer, and so nothing to pull, ms. */
const noAckWaitMs = 10_000;
/** For how long it counts what was looked up about a group, ms. */
const knownMs = 10_000;
/** Longest time until a look that failed, or was cut off, is repeated, ms. */
const soonMs = 3_000;
/** Topics with a consumer of their own that are remembered; of others the members are asked again. */
const maxLeft = 20_000;
const nanosPerMs = 1_000_000;

const defaultTimes: SharedTimes = { lookMs: 30_000, askMs: 15_000, answerMs: 2_000, unwantedMs: 60_000 };

export type SharedPlace = GroupPlace & { readonly locks: Table; readonly times: Partial<SharedTimes> };

/** A subscription to a topic. */
class Reader {
  readonly filter: string;
  readonly options: TopicSubscribeOptions;
  readonly handler: TopicHandler;
  readonly placed = Promise.withResolvers<void>();
  readonly abort = new AbortController();
  /** Reply subjects of events whose handler runs, with who pulled them. */
  readonly running = new Map<string, Puller>();
  in: "nothing" | "shared" | "own" = "nothing";
  own: TopicSubscription | undefined;
  /** Where its own consumer begins when it is made. */
  start: TopicSubscribeOptions["deliver"];
  ended = false;
  onIdle: (() => void) | undefined;

  constructor(filter: string, options: TopicSubscribeOptions, handler: TopicHandler) {
    this.filter = filter;
    this.options = options;
    this.handler = handler;
    this.start = options.deliver;
    // It may fail after the subscription stood.
    this.placed.promise.catch(() => {});
  }

  /** The event behind which its own consumer is to begin, when that could not be made yet. */
  get after(): number | undefined {
    return typeof this.start === "object" && "sequence" in this.start ? this.start.sequence - 1 : undefined;
  }
}

export class SharedConsumer {
  readonly name: string;
  readonly #place: SharedPlace;
  readonly #group: string;
  readonly #token: string;
  readonly #consumers: Consumers;
  readonly #unhandled: Unhandled;
  readonly #times: SharedTimes;
  readonly #readers = new Map<string, Reader[]>();
  /** Filters of the consumer when it was last seen. */
  #filters: Filters;
  /** Filters that left it: what still comes of them is in consumers of their own as well. */
  #left: Filters;
  /** All events up to this one were acknowledged while all own topics were in the filters. */
  #floor = 0;
  #puller: Puller | undefined;
  #signal: AbortSignal | undefined;
  #gathering = false;
  #looking: Timer | undefined;
  #off: (() => void) | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #known: { readonly untilMs: number; readonly filters: Promise<Filters> } | undefined;
  #finding: Promise<ConsumerInfo | undefined> | undefined;
  #rotation = 0;
  #saidKept = false;

  constructor(place: SharedPlace, group: string) {
    this.name = sharedName(group);
    this.#place = place;
    this.#group = group;
    this.#token = encodeToken(group);
    this.#consumers = new Consumers(place.js, place.config.name);
    this.#times = { ...defaultTimes, ...place.times };
    this.#filters = new Filters(place.trees.any);
    this.#left = new Filters(place.trees.any);
    this.#unhandled = new Unhandled(
      place.js,
      place.trees.group(group),
      this.#times,
      (filter) => this.#handles(filter),
      (filters) => this.#inTurn(() => this.#separateUnwanted(filters)),
      () => this.#readers.size > 0 && this.#gather(),
    );
  }

  /** False while something here is in use or remembered. */
  get idle(): boolean {
    const { clock } = this.#place.js.connection.settings;
    return this.#readers.size === 0 && (this.#known?.untilMs ?? 0) < clock.monotonicMs();
  }

  async subscribe(options: TopicSubscribeOptions, handler: TopicHandler): Promise<TopicSubscription> {
    const { topic, shared } = options;
    const filter = topicFilter(this.#place.trees.any, topic);
    if (shared !== "join") {
      if (!(await this.#stands(filter, topic))) return openGroup(this.#place, options, handler);
      if (shared === undefined) {
        await this.#inTurn(() => this.#locked((endMs) => this.#separate([filter], endMs, options)));
        this.#log("info", `topic ${topic} of group ${this.#group} gets a consumer of its own`);
        return openGroup(this.#place, options, handler);
      }
      this.#sayKept();
    }
    const reader = new Reader(filter, options, handler);
    this.#readers.set(filter, [...(this.#readers.get(filter) ?? []), reader]);
    this.#gather();
    try {
      await reader.placed.promise;
    } catch (error) {
      this.#forget(reader);
      throw error;
    }
    return { stop: (graceMs) => this.#end(reader, graceMs) };
  }

  /** Whether the consumer is there and has the filter, as it was a moment ago. */
  async #stands(filter: string, topic: string): Promise<boolean> {
    const nowMs = this.#place.js.connection.settings.clock.monotonicMs();
    if (this.#known === undefined || this.#known.untilMs < nowMs) {
      const known = { untilMs: nowMs + knownMs, filters: this.#readFilters() };
      this.#known = known;
      known.filters.catch(() => {
        if (this.#known === known) this.#known = undefined;
      });
    }
    try {
      return (await this.#known.filters).has(filter);
    } catch (error) {
      if (!isMeshError(error, "storage")) throw error;
      throw new MeshError("storage", `group for topic ${topic}: ${error.message}`, { cause: error });
    }
  }

  async #readFilters(): Promise<Filters> {
    const { topology, config, trees } = this.#place;
    const attempt = this.#attempt();
    await topology.ensure(config, attempt);
    const info = await this.#consumers.info(this.name, attempt);
    return new Filters(trees.any, info === undefined ? [] : filtersOf(info));
  }

  #sayKept(): void {
    if (this.#saidKept) return;
    this.#saidKept = true;
    const how = "`weft groups move` gives one of them a consumer of its own";
    this.#log("info", `group ${this.#group} has a shared consumer, which keeps its topics; ${how}`);
  }

  #gather(): void {
    const { clock } = this.#place.js.connection.settings;
    if (this.#gathering) return;
    this.#gathering = true;
    clock.setTimeout(() => {
      this.#gathering = false;
      void this.#inTurn(() => this.#placeNew());
    }, gatherMs);
  }

  /** Never rejects: those who wait are told. */
  async #placeNew(): Promise<void> {
    const waiting = this.#all().filter((reader) => reader.in === "nothing");
    try {
      await this.#settle();
    } catch (error) {
      for (const reader of waiting) reader.placed.reject(error);
      this.#log("warn", `consumer ${this.name}: ${textOf(error)}; trying again`);
      if (this.#readers.size > 0) this.#lookIn(soonMs);
    }
  }

  /** Puts every reader where it belongs. Resolves with the ack deadline of the consumer, ms. */
  async #settle(): Promise<number> {
    const { topology, config } = this.#place;
    await topology.ensure(config, this.#attempt());
    const readers = this.#all();
    let info = await this.#consumers.info(this.name, this.#attempt());
    const has = new Set(info === undefined ? [] : filtersOf(info));
    const fine = ({ in: place, filter }: Reader): boolean =>
      place === "own" || (place === "shared" && has.has(filter));
    if (readers.length > 0) await this.#unhandled.listen();
    if (!readers.every(fine)) info = (await this.#locked((endMs) => this.#change(endMs))) ?? info;
    else if (info !== undefined) this.#learn(info);
    await this.#openOwn(readers.filter((reader) => reader.in === "own" && reader.own === undefined));
    const ackWaitMs = info === undefined ? noAckWaitMs : info.config.ack_wait / nanosPerMs;
    this.#pull(ackWaitMs);
    for (const reader of readers) if (reader.in === "shared") reader.placed.resolve();
    if (this.#all().some((reader) => reader.in !== "own")) this.#lookIn(this.#times.lookMs);
    return ackWaitMs;
  }

  /** Under the lock. */
  async #change(endMs: number): Promise<ConsumerInfo | undefined> {
    const lists = [...this.#readers].filter(([, list]) => list.every((reader) => reader.in !== "own"));
    for (const list of this.#readers.values())
      if (list.some((reader) => reader.in === "own")) for (const reader of list) reader.in = "own";
    const wanted = lists.map(([filter, list]): Wanted => {
      const { options } = list.find((reader) => reader.options.shared === "join") ?? list[0]!;
      const lost = list.some((reader) => reader.in === "shared");
      return { filter, options, after: lost ? this.#floor : list[0]!.after };
    });
    if (lists.length === 0) return undefined;
    const changed = await change(this.#place, this.name, wanted, { ...this.#attempt(), endMs });
    for (const [filter, list] of lists) {
      const start = changed.own.get(filter);
      for (const reader of list) {
        reader.in = start === undefined ? "shared" : "own";
        if (start !== undefined) reader.start = start;
      }
      if (start !== undefined) this.#leave(filter);
    }
    if (changed.info !== undefined) this.#learn(changed.info);
    return changed.info;
  }

  async #openOwn(readers: readonly Reader[]): Promise<void> {
    await Promise.all(
      readers.map(async (reader) => {
        try {
          const options = { ...reader.options, deliver: reader.start };
          reader.own = await openGroup(this.#place, options, reader.handler);
          if (reader.ended) await reader.own.stop(0);
          reader.placed.resolve();
        } catch (error) {
          reader.in = "nothing";
          reader.placed.reject(error);
          this.#log("warn", `group ${this.#group} of ${reader.options.topic}: ${textOf(error)}`);
          this.#lookIn(soonMs);
        }
      }),
    );
  }

  #learn(info: ConsumerInfo): void {
    const filters = filtersOf(info);
    for (const filter of filters) this.#left.delete(filter);
    this.#filters = new Filters(this.#place.trees.any, [...filters]);
    const all = this.#all().every(({ in: place, filter }) => place !== "shared" || this.#filters.has(filter));
    if (all) this.#floor = info.ack_floor.stream_seq;
    this.#known = undefined;
  }

  #leave(filter: string): void {
    if (this.#left.size >= maxLeft) this.#left = new Filters(this.#place.trees.any);
    this.#left.add(filter);
  }

  /** Starts to pull when a reader needs it, and stops when none does. */
  #pull(ackWaitMs: number): void {
    const { js, config, trees } = this.#place;
    const first = this.#all().find((reader) => reader.in === "shared");
    if (first === undefined) return void this.#stopPulling(ackWaitMs);
    if (this.#puller !== undefined) return;
    const target = {
      stream: config.name,
      consumer: this.name,
      create: () => this.#inTurn(() => this.#settle()),
      topicOf: (subject: string) => parseTopic(trees.plain, subject),
    };
    const inbox = `${js.connection.settings.inbox}.pull.${js.nextId()}.0`;
    const puller: Puller = new Puller(js, inbox, target, first.options, (message, signal) =>
      this.#handle(puller, message, signal),
    );
    this.#puller = puller;
    puller.start(ackWaitMs);
    this.#off ??= js.connection.onChange((connected) => {
      if (connected) this.#lookIn(soonMs * js.connection.settings.random());
      // Others may change them meanwhile.
      else this.#filters = new Filters(trees.any);
    });
  }

  async #stopPulling(graceMs: number): Promise<void> {
    const puller = this.#puller;
    this.#puller = undefined;
    this.#off?.();
    this.#off = undefined;
    this.#unhandled.stop();
    await puller?.stop(graceMs);
  }

  async #handle(puller: Puller, message: Msg, signal: AbortSignal): Promise<void> {
    this.#follow(signal);
    const { trees } = this.#place;
    const event = readTopicMessage(trees.plain, message);
    if ((event.header(onlyForHeader) ?? this.#token) !== this.#token) return;
    const exact = filterOfEvent(trees, message.subject);
    const filter = this.#filters.find(exact) ?? (await this.#findNow(exact));
    const readers = filter === undefined ? undefined : this.#readers.get(filter);
    if (readers === undefined) {
      if (filter === undefined && this.#left.find(exact) !== undefined) return;
      throw new HandedBack(this.#unhandled.note(filter ?? exact, event.deliveries));
    }
    const reader = readers.length === 1 ? readers[0]! : readers[this.#rotation++ % readers.length]!;
    const reply = message.reply!;
    reader.running.set(reply, puller);
    try {
      await reader.handler(event, reader.abort.signal);
    } finally {
      reader.running.delete(reply);
      if (reader.running.size === 0) reader.onIdle?.();
    }
  }

  /**
   * The filter of an event that none of the known ones takes: it may be new, and another member's, although a topic
   * here is called the same. Undefined when there is none any more.
   */
  async #findNow(exact: string): Promise<string | undefined> {
    this.#finding ??= this.#consumers.info(this.name, this.#attempt()).finally(() => {
      this.#finding = undefined;
    });
    const info = await this.#finding;
    if (info !== undefined) this.#learn(info);
    return this.#filters.find(exact);
  }

  /** The end of a puller is the end of what its handlers do. */
  #follow(signal: AbortSignal): void {
    if (signal === this.#signal) return;
    this.#signal = signal;
    signal.addEventListener("abort", () => {
      for (const reader of this.#all()) if (reader.running.size > 0) reader.abort.abort(signal.reason);
    });
  }

  #handles(filter: string): boolean {
    const isShared = (name: string): boolean =>
      this.#readers.get(name)?.some((reader) => reader.in === "shared") === true;
    return isShared(filter) || isShared(this.#filters.find(filter) ?? filter);
  }

  async #end(reader: Reader, graceMs: number): Promise<void> {
    this.#forget(reader);
    reader.ended = true;
    const others = this.#all().some((it) => it.in === "shared");
    await Promise.all([
      reader.own?.stop(graceMs),
      others || this.#puller === undefined ? this.#finish(reader, graceMs) : this.#stopPulling(graceMs),
    ]);
    reader.abort.abort(new Error("the subscription stopped"));
  }

  /** Waits for its handlers; what still runs then goes to another member. */
  async #finish(reader: Reader, graceMs: number): Promise<void> {
    const { connection } = this.#place.js;
    if (reader.running.size > 0) {
      await new Promise<void>((resolve) => {
        const limit = connection.settings.clock.setTimeout(resolve, graceMs);
        reader.onIdle = () => {
          limit.cancel();
          resolve();
        };
      });
    }
    for (const [reply, puller] of reader.running) puller.giveBack(reply);
    await connection.flush();
  }

  #forget(reader: Reader): void {
    const { filter } = reader;
    const rest = (this.#readers.get(filter) ?? []).filter((it) => it !== reader);
    if (rest.length > 0) this.#readers.set(filter, rest);
    else this.#readers.delete(filter);
    if (this.#readers.size > 0) return;
    this.#looking?.cancel();
    this.#looking = undefined;
  }

  #all(): Reader[] {
    return [...this.#readers.values()].flat();
  }

  /** Topics that nobody handles keep their place in consumers of their own. Those that somebody does handle stay. */
  async #separateUnwanted(filters: readonly string[]): Promise<void> {
    const [any] = this.#all();
    if (any === undefined) return;
    await this.#locked(async (endMs) => {
      // Whoever has joined since did so under the lock, and answers.
      const handled = await this.#unhandled.ask(filters);
      const unwanted = filters.filter((filter) => !handled.has(filter) && !this.#handles(filter));
      await this.#separate(unwanted, endMs, any.options);
      const topics = unwanted.map((filter) => parseTopic(this.#place.trees.plain, filter)).join(", ");
      this.#log("info", `nobody of group ${this.#group} handles ${topics}: they wait in their own consumers`);
    });
  }

  /** Gives topics consumers of their own, from the first event that is not acknowledged. Under the lock. */
  async #separate(filters: readonly string[], endMs: number, options: TopicSubscribeOptions): Promise<void> {
    const { trees } = this.#place;
    const attempt = { ...this.#attempt(), endMs };
    const info = await this.#consumers.info(this.name, attempt);
    if (info === undefined || filters.length === 0) return;
    const names = await this.#consumers.names(attempt);
    const left = new Filters(trees.any, filtersOf(info));
    const deliver = { sequence: info.ack_floor.stream_seq + 1 };
    for (const filter of filters) {
      const found = left.find(filter) ?? filter;
      const topic = parseTopic(trees.plain, found);
      if (!names.has(joinName([this.#group, topic])))
        await createGroup(this.#place, { ...options, topic, deliver, ordered: false });
      left.delete(found);
      this.#leave(found);
    }
    this.#learn(await writeFilters(this.#consumers, info, left, attempt));
    for (const reader of this.#all())
      if (reader.in === "shared" && !this.#filters.has(reader.filter)) reader.in = "nothing";
    tellChanged(this.#place.js, trees.group(this.#group));
  }

  #lookIn(waitMs: number): void {
    const { clock, random } = this.#place.js.connection.settings;
    this.#looking?.cancel();
    this.#looking = clock.setTimeout(
      () => {
        this.#looking = undefined;
        void this.#inTurn(() => this.#placeNew());
      },
      waitMs * (0.75 + random() / 2),
    );
  }

  #locked<T>(work: (endMs: number) => Promise<T>): Promise<T> {
    const { js, locks, config } = this.#place;
    return withLock(js, locks, [config.name, this.#group], work);
  }

  /** One after the other. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #attempt(): AttemptOptions {
    return attemptAt(this.#place);
  }

  #log(level: "info" | "warn", text: string): void {
    this.#place.js.connection.settings.log(level, text);
  }
}
