/**
 * Groups: the durable consumers of one group and topic, made or adopted, and the pullers that work on them. An ordered
 * group has a consumer for each partition of the events with a key, which hands out one event at a time; its own
 * consumer then takes the events without a key only. Normative: README.md, "Topics".
 */
import type { Msg } from "@nats-io/transport-node";
import { type ConsumerConfig, type ConsumerInfo, fromSequence } from "./consumers.ts";
import { MeshError } from "./errors.ts";
import { type AttemptOptions, JetStreamError, JsCode, type JetStream } from "./jetstream.ts";
import { type WaitOptions, storageError } from "./jetstream.ts";
import { Puller } from "./pull.ts";
import { encodeToken, joinName, partitionsOf, topicFilter, type TopicTrees } from "./subjects.ts";
import { readTopicMessage } from "./topic-message.ts";
import type { StreamConfig, Topology } from "./topology.ts";
import type { TopicHandler, TopicMessage, TopicSubscribeOptions, TopicSubscription } from "./types.ts";

const nanosPerMs = 1_000_000;
/**
 * Events of a group that may wait for their redelivery. At the limit the group stands still, and events that fail again
 * and again must not reach it; what is under way is bounded by the pulls.
 */
export const maxPendingEvents = 100_000;
const consumerTimeoutMs = 10_000;
/** For how long the place of a broadcast's member is kept while it is away, ms. */
const broadcastKeptMs = 300_000;
/** Metadata of an ordered group's own consumer: for how many partitions it has others. */
export const partitionsMark = "weft-partitions";

/** Header of an event that one group is to get: its token. Members of others acknowledge it unhandled. */
export const onlyForHeader = "Weft-Only-For";

/** The stream in which groups are made. */
export type GroupPlace = {
  readonly js: JetStream;
  readonly topology: Topology;
  readonly trees: TopicTrees;
  readonly config: StreamConfig;
  /** Of this participant. */
  readonly instance: string;
  readonly onMissing: (options: WaitOptions) => Promise<unknown>;
};

/** For one question or change about the consumers there, which may be sent again. */
export function attemptAt({ js, onMissing }: GroupPlace): AttemptOptions {
  return { endMs: js.endIn(consumerTimeoutMs), repeatMs: Number.POSITIVE_INFINITY, onMissing };
}

/** Partitions of the stream, once it is known. Throws MeshError `storage` when it has none. */
export function partitionsIn({ topology, trees, config: { name } }: GroupPlace): number {
  const partitions = partitionsOf(trees, topology.configOf(name)?.["subject_transform"]);
  if (partitions > 0) return partitions;
  const fix = "give it the subjects and the subject_transform of mesh/README.md, section 5";
  throw new MeshError("storage", `stream ${name} takes no events with a key: ${fix}`);
}

/** Creates the group, or adopts the one that is there with as many of these settings as it can take, and pulls it. */
export async function openGroup(
  place: GroupPlace,
  options: TopicSubscribeOptions,
  handler: TopicHandler,
): Promise<TopicSubscription> {
  const { js, trees } = place;
  const group = new Group(place, options);
  const own = await group.open();
  const slots = own.partitions > 0 ? new Slots(options.concurrency) : undefined;
  const member = encodeToken(options.group);
  const handle = async (message: Msg, signal: AbortSignal): Promise<void> => {
    const event = readTopicMessage(trees.plain, message);
    if ((event.header(onlyForHeader) ?? member) !== member) return;
    group.begun(event);
    await slots?.take();
    try {
      if (slots !== undefined) signal.throwIfAborted();
      await handler(event, signal);
      group.done(event);
    } catch (error) {
      if (options.maxDeliver > 0 && event.deliveries >= options.maxDeliver) group.done(event);
      throw error;
    } finally {
      slots?.give();
    }
  };
  const inbox = `${js.connection.settings.inbox}.pull.${js.nextId()}`;
  const pullers: Puller[] = [];
  const pull = (
    name: string,
    create: () => Promise<number>,
    ackWaitMs: number,
    concurrency: number,
  ): void => {
    const target = { stream: place.config.name, consumer: name, create };
    const puller = new Puller(js, `${inbox}.${pullers.length}`, target, { ...options, concurrency }, handle);
    pullers.push(puller);
    puller.start(ackWaitMs);
  };
  for (let n = 0; n < own.partitions; n++)
    pull(group.partitionName(n), () => group.createPartition(n), options.ackWaitMs, 1);
  pull(group.name, () => group.create(), own.ackWaitMs, options.concurrency);
  if (pullers.length === 1) return pullers[0]!;
  return { stop: async (graceMs) => void (await Promise.all(pullers.map((puller) => puller.stop(graceMs)))) };
}

/** Creates or adopts the group without pulling it. */
export async function createGroup(place: GroupPlace, options: TopicSubscribeOptions): Promise<void> {
  await new Group(place, options).open();
}

class Group {
  readonly name: string;
  readonly #parts: readonly string[];
  readonly #place: GroupPlace;
  readonly #options: TopicSubscribeOptions;
  #partitions = 0;
  /** Of a broadcast: events that are not handled yet, and the last one that came, to go on from. */
  readonly #open = new Set<number>();
  #last = 0;

  constructor(place: GroupPlace, options: TopicSubscribeOptions) {
    const { group, topic, broadcast = false, deliver } = options;
    this.#place = place;
    this.#options = options;
    const own = broadcast ? [place.instance] : [];
    const anew = broadcast && typeof deliver === "object" ? [`s${place.js.nextId()}`] : [];
    this.#parts = [group, topic, ...own, ...anew];
    this.name = joinName(this.#parts);
  }

  begun({ sequence }: TopicMessage): void {
    if (this.#options.broadcast !== true) return;
    this.#open.add(sequence);
    this.#last = Math.max(this.#last, sequence);
    if (this.#open.size <= maxPendingEvents) return;
    const [oldest] = this.#open;
    this.#open.delete(oldest!);
  }

  /** Handled or given up. The oldest of too many is forgotten, such as those that the stream lost meanwhile. */
  done({ sequence }: TopicMessage): void {
    this.#open.delete(sequence);
  }

  /** All consumers. A group that has once been ordered stays so, because its events wait in the partitions. */
  async open(): Promise<{ partitions: number; ackWaitMs: number }> {
    const { topology, config } = this.#place;
    const { ordered = false, topic, group } = this.#options;
    await topology.ensure(config, this.#attempt());
    const found = await this.#info(this.name);
    const marked = Number(found?.config.metadata?.[partitionsMark] ?? 0);
    if (!ordered && marked > 0)
      this.#log(`group ${group} of ${topic} stays ordered, as it was; delete its consumers to change that`);
    this.#partitions = ordered ? Math.max(partitionsIn(this.#place), marked) : marked;
    // Until now the group's own consumer has had the events with a key.
    const start = found === undefined ? startOf(this.#options) : fromSequence(found.ack_floor.stream_seq + 1);
    if (found !== undefined && typeof this.#options.deliver === "object")
      this.#log(
        `group ${group} of ${topic} is there already and goes on where it stands; \`weft groups move\` sets it back`,
      );
    const numbers = Array.from({ length: this.#partitions }, (_, n) => n);
    await Promise.all(numbers.map((n) => this.createPartition(n, start)));
    return { partitions: this.#partitions, ackWaitMs: await this.create() };
  }

  partitionName(n: number): string {
    return joinName([...this.#parts, String(n)]);
  }

  /** Resolves with the ack deadline, ms. */
  async create(): Promise<number> {
    const { trees } = this.#place;
    const { topic } = this.#options;
    return this.#establish(this.name, await this.#start(), (metadata) => {
      const partitions = this.#partitions || Number(metadata?.[partitionsMark] ?? 0);
      if (partitions === 0)
        return { filter_subjects: [topicFilter(trees.any, topic)], max_ack_pending: maxPendingEvents };
      return {
        filter_subjects: [topicFilter(trees.plain, topic)],
        max_ack_pending: maxPendingEvents,
        metadata: { ...metadata, [partitionsMark]: String(partitions) },
      };
    });
  }

  /** `start`: for the case that it is not there. Resolves with the ack deadline, ms. */
  async createPartition(n: number, start?: ConsumerConfig): Promise<number> {
    const filter = topicFilter(this.#place.trees.partition(n), this.#options.topic);
    // The next event comes when this one is acknowledged or given up, also while it waits for another delivery.
    const settings = { filter_subjects: [filter], max_ack_pending: 1 };
    return this.#establish(this.partitionName(n), start ?? (await this.#start()), () => settings);
  }

  /** Where a consumer that is not there begins: as wished, or where a broadcast was when it got lost. */
  async #start(): Promise<ConsumerConfig> {
    if (this.#last === 0) return startOf(this.#options);
    type Info = { readonly state: { readonly last_seq: number } };
    const subject = `STREAM.INFO.${this.#place.config.name}`;
    const { state } = await this.#place.js.api<Info>(subject, undefined, this.#attempt());
    // Then it is another stream, whose numbers begin anew.
    if (state.last_seq < this.#last) return startOf(this.#options);
    let first = this.#last + 1;
    for (const sequence of this.#open) first = Math.min(first, sequence);
    return fromSequence(first);
  }

  /** Creates the consumer, or changes the one that is there where it can be changed. */
  async #establish(
    name: string,
    start: ConsumerConfig,
    settingsOf: (metadata: ConsumerInfo["config"]["metadata"]) => ConsumerConfig,
  ): Promise<number> {
    const { topology, config } = this.#place;
    const { ackWaitMs, maxDeliver, topic } = this.#options;
    const fixed = { durable_name: name, name, ack_policy: "explicit", replay_policy: "instant", ...start };
    const kept = this.#options.broadcast === true ? { inactive_threshold: broadcastKeptMs * nanosPerMs } : {};
    const common = { ack_wait: ackWaitMs * nanosPerMs, max_deliver: maxDeliver, ...kept };
    await topology.ensure(config, this.#attempt());
    for (let lost = false; ; lost = true) {
      const found = await this.#info(name);
      const settings = { ...common, ...settingsOf(found?.config.metadata) };
      try {
        await this.#api(`CONSUMER.CREATE.${config.name}.${name}`, {
          ...(found?.config ?? fixed),
          ...settings,
        });
        return ackWaitMs;
      } catch (error) {
        if (!(error instanceof JetStreamError)) throw error;
        // Another program made it in its own way: its members decide.
        if (found !== undefined) return found.config.ack_wait / nanosPerMs;
        // Another member may have made it since, with a start of its own.
        if (lost) throw storageError(error, `group for topic ${topic}: `);
      }
    }
  }

  #info(name: string): Promise<ConsumerInfo | undefined> {
    const { js, config } = this.#place;
    const about = `group for topic ${this.#options.topic}: `;
    const subject = `CONSUMER.INFO.${config.name}.${name}`;
    return js.ask(subject, undefined, this.#attempt(), JsCode.consumerNotFound, about);
  }

  #log(text: string): void {
    this.#place.js.connection.settings.log("info", text);
  }

  #api(subject: string, config: ConsumerConfig): Promise<ConsumerInfo> {
    return this.#place.js.api(subject, { stream_name: this.#place.config.name, config }, this.#attempt());
  }

  #attempt(): AttemptOptions {
    return attemptAt(this.#place);
  }
}

/** Where a consumer that is created now starts. */
export function startOf({ deliver }: Pick<TopicSubscribeOptions, "deliver">): ConsumerConfig {
  if (typeof deliver === "string") return { deliver_policy: deliver };
  if ("sequence" in deliver) return fromSequence(deliver.sequence);
  return { deliver_policy: "by_start_time", opt_start_time: new Date(deliver.timeMs).toISOString() };
}

/** Lets so many handlers run at once; the others wait in turn. As many wait at most as the group has partitions. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  take(): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
