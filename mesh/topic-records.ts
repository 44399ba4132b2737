/**
 * The stored events of one component, and its groups, for tools: reads, removes, moves groups. It creates nothing, and
 * is no way to receive events.
 */
import { Consumers, filtersOf, fromSequence } from "./consumers.ts";
import { headerPairs, headerValue } from "./headers.ts";
import { partitionsMark } from "./groups.ts";
import { type AttemptOptions, JsCode, type JetStream, storageError } from "./jetstream.ts";
import { withLock } from "./group-lock.ts";
import { writeFilters } from "./shared-change.ts";
import { Filters } from "./shared-filters.ts";
import { tellChanged } from "./unhandled.ts";
import { joinName, parseTopic, sharedName, topicFilter, type TopicTrees } from "./subjects.ts";
import type { GroupPosition, StoredEvent, Table, TopicRecords, TopicStart } from "./types.ts";

const timeoutMs = 10_000;
/** Events of one read, bytes; NATS answers with one more than fits. */
const maxReadBytes = 4 * 1024 * 1024;
const noMessage = 10057;

export class JetStreamTopicRecords implements TopicRecords {
  readonly stream: string;
  readonly #js: JetStream;
  readonly #trees: TopicTrees;
  readonly #consumers: Consumers;
  readonly #locks: Table;

  /** `locks`: as in JetStreamTopics. */
  constructor(js: JetStream, stream: string, trees: TopicTrees, locks: Table) {
    this.stream = stream;
    this.#js = js;
    this.#trees = trees;
    this.#locks = locks;
    this.#consumers = new Consumers(js, stream);
  }

  async state(): Promise<{ lastSequence: number } | undefined> {
    type Info = { readonly state: { readonly last_seq: number } };
    const subject = `STREAM.INFO.${this.stream}`;
    const info = await this.#js.ask<Info>(subject, undefined, this.#attempt(), JsCode.streamNotFound);
    return info === undefined ? undefined : { lastSequence: info.state.last_seq };
  }

  async read(topic: string, { after, limit }: { after: number; limit: number }): Promise<StoredEvent[]> {
    const request = { next_by_subj: topicFilter(this.#trees.any, topic), seq: after + 1 };
    const many = { ...request, batch: limit, max_bytes: maxReadBytes };
    const { messages } = await this.#js
      .directGetMany(this.stream, many, this.#attempt())
      .catch((error: unknown) => Promise.reject(storageError(error)));
    return messages.map(({ headers, data }) => ({
      topic: parseTopic(this.#trees.plain, headerValue(headers, "Nats-Subject")),
      sequence: Number(headerValue(headers, "Nats-Sequence")),
      time: headerValue(headers, "Nats-Time-Stamp"),
      headers: headerPairs(headers).filter(([name]) => !name.startsWith("Nats-")),
      data,
    }));
  }

  async remove(sequence: number): Promise<boolean> {
    const body = { seq: sequence, no_erase: true };
    const subject = `STREAM.MSG.DELETE.${this.stream}`;
    return (await this.#js.ask(subject, body, this.#attempt(), noMessage)) !== undefined;
  }

  async hasGroup(group: string, topic: string): Promise<boolean> {
    const own = await this.#consumers.info(joinName([group, topic]), this.#attempt());
    return own !== undefined || this.#shares(group, topic);
  }

  /** Whether the consumer that the topics of the group share has this one. */
  async #shares(group: string, topic: string): Promise<boolean> {
    const info = await this.#consumers.info(sharedName(group), this.#attempt());
    return info !== undefined && filtersOf(info).includes(topicFilter(this.#trees.any, topic));
  }

  async groups(): Promise<GroupPosition[]> {
    const found = await this.#consumers.list(this.#attempt());
    const positions = found.map((info) => {
      const { name, ack_floor, num_ack_pending, num_pending } = info;
      const topics = filtersOf(info).map((filter) => parseTopic(this.#trees.plain, filter));
      return {
        consumer: name,
        topics: topics.filter((topic) => topic !== ""),
        doneSequence: ack_floor.stream_seq,
        underWay: num_ack_pending,
        waiting: num_pending,
      };
    });
    return positions.toSorted((a, b) => (a.consumer < b.consumer ? -1 : 1));
  }

  async moveGroup(group: string, topic: string, to: TopicStart): Promise<number | undefined> {
    const own = joinName([group, topic]);
    const found = await this.#consumers.info(own, this.#attempt());
    if (found === undefined) return this.#moveOut(group, topic, to);
    const partitions = Number(found.config.metadata?.[partitionsMark] ?? 0);
    const others = Array.from({ length: partitions }, (_, n) => joinName([group, topic, String(n)]));
    const sequence = await this.#sequenceOf(topic, to);
    for (const consumer of [own, ...others]) await this.#consumers.move(consumer, sequence, this.#attempt());
    return sequence;
  }

  /** Out of the consumer that the topics of the group share, into one of its own. Its members soon find it. */
  async #moveOut(group: string, topic: string, to: TopicStart): Promise<number | undefined> {
    if (!(await this.#shares(group, topic))) return undefined;
    return withLock(this.#js, this.#locks, [this.stream, group], async (endMs) => {
      const attempt = { ...this.#attempt(), endMs };
      const info = await this.#consumers.info(sharedName(group), attempt);
      const filter = topicFilter(this.#trees.any, topic);
      if (info === undefined || !filtersOf(info).includes(filter)) return undefined;
      const sequence = await this.#sequenceOf(topic, to);
      const name = joinName([group, topic]);
      const { filter_subjects: _f, metadata: _m, opt_start_time: _t, ...kept } = info.config;
      const settings = { name, durable_name: name, filter_subjects: [filter], ...fromSequence(sequence) };
      await this.#consumers.write(name, { ...kept, ...settings }, attempt);
      const rest = new Filters(this.#trees.any, filtersOf(info));
      rest.delete(filter);
      await writeFilters(this.#consumers, info, rest, attempt);
      tellChanged(this.#js, this.#trees.group(group));
      return sequence;
    });
  }

  async #sequenceOf(topic: string, to: TopicStart): Promise<number> {
    if (to === "all") return 1;
    const next = (await this.state())!.lastSequence + 1;
    if (to === "new") return next;
    if (typeof to === "object" && "sequence" in to) return to.sequence;
    const filter = topicFilter(this.#trees.any, topic);
    const place =
      to === "last"
        ? { multi_last: [filter] }
        : { next_by_subj: filter, start_time: new Date(to.timeMs).toISOString(), batch: 1 };
    const { messages } = await this.#js.directGetMany(this.stream, place, this.#attempt());
    const sequences = messages.map(({ headers }) => Number(headerValue(headers, "Nats-Sequence")));
    return sequences.length === 0 ? next : Math.max(...sequences);
  }

  #attempt(): AttemptOptions {
    return { endMs: this.#js.endIn(timeoutMs), repeatMs: Number.POSITIVE_INFINITY };
  }
}
