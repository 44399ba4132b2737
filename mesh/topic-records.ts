/**
 * The stored events of one component, and its groups, for tools: reads, removes, moves groups. It creates nothing, and
 * is no way to receive events.
 */
import { headerPairs, headerValue } from "./headers.ts";
import { partitionsMark } from "./groups.ts";
import {
  type AttemptOptions,
  isJsError,
  JetStreamError,
  JsCode,
  type JetStream,
  storageError,
} from "./jetstream.ts";
import { joinName, parseTopic, topicFilter, type TopicTrees } from "./subjects.ts";
import type { GroupPosition, StoredEvent, TopicRecords, TopicStart } from "./types.ts";

const timeoutMs = 10_000;
/** Events of one read, bytes; NATS answers with one more than fits. */
const maxReadBytes = 4 * 1024 * 1024;
const noMessage = 10057;
const maxTries = 5;

type Consumer = {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>> & {
    readonly filter_subject?: string;
    readonly filter_subjects?: readonly string[];
    readonly metadata?: Readonly<Record<string, string>>;
  };
  readonly ack_floor: { readonly stream_seq: number };
  readonly num_ack_pending: number;
  readonly num_pending: number;
};

export class JetStreamTopicRecords implements TopicRecords {
  readonly stream: string;
  readonly #js: JetStream;
  readonly #trees: TopicTrees;

  constructor(js: JetStream, stream: string, trees: TopicTrees) {
    this.stream = stream;
    this.#js = js;
    this.#trees = trees;
  }

  async state(): Promise<{ lastSequence: number } | undefined> {
    type Info = { readonly state: { readonly last_seq: number } };
    const info = await this.#ask<Info>(`STREAM.INFO.${this.stream}`, undefined, JsCode.streamNotFound);
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
    return (await this.#ask(`STREAM.MSG.DELETE.${this.stream}`, body, noMessage)) !== undefined;
  }

  async hasGroup(group: string, topic: string): Promise<boolean> {
    const subject = `CONSUMER.INFO.${this.stream}.${joinName([group, topic])}`;
    return (await this.#ask(subject, undefined, JsCode.consumerNotFound)) !== undefined;
  }

  async groups(): Promise<GroupPosition[]> {
    const found: Consumer[] = [];
    for (let total = 1; found.length < total;) {
      type Page = { readonly total: number; readonly consumers: readonly Consumer[] | null };
      const page = await this.#ask<Page>(`CONSUMER.LIST.${this.stream}`, { offset: found.length });
      if (page?.consumers == null || page.consumers.length === 0) break;
      found.push(...page.consumers);
      ({ total } = page);
    }
    const positions = found.map(({ name, config, ack_floor, num_ack_pending, num_pending }) => {
      const filters = config.filter_subjects ?? [config.filter_subject ?? ""];
      const topic = filters.length === 1 ? parseTopic(this.#trees.plain, filters[0]!) : "";
      return {
        consumer: name,
        topic: topic === "" ? undefined : topic,
        doneSequence: ack_floor.stream_seq,
        underWay: num_ack_pending,
        waiting: num_pending,
      };
    });
    return positions.toSorted((a, b) => (a.consumer < b.consumer ? -1 : 1));
  }

  async moveGroup(group: string, topic: string, to: TopicStart): Promise<number | undefined> {
    const own = joinName([group, topic]);
    const subject = `CONSUMER.INFO.${this.stream}.${own}`;
    const found = await this.#ask<Consumer>(subject, undefined, JsCode.consumerNotFound);
    if (found === undefined) return undefined;
    const partitions = Number(found.config.metadata?.[partitionsMark] ?? 0);
    const others = Array.from({ length: partitions }, (_, n) => joinName([group, topic, String(n)]));
    const sequence = await this.#sequenceOf(topic, to);
    for (const consumer of [own, ...others]) await this.#move(consumer, sequence);
    return sequence;
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

  /** NATS resets only groups that began with the oldest event; others are made anew, before members do it. */
  async #move(consumer: string, sequence: number): Promise<void> {
    const name = `${this.stream}.${consumer}`;
    if ((await this.#ask(`CONSUMER.RESET.${name}`, { seq: sequence }, "any")) !== undefined) return;
    for (let tries = 1; ; tries++) {
      const found = await this.#ask<Consumer>(`CONSUMER.INFO.${name}`, undefined, JsCode.consumerNotFound);
      if (found === undefined) return;
      await this.#ask(`CONSUMER.DELETE.${name}`, undefined, JsCode.consumerNotFound);
      const { opt_start_time: _, ...kept } = found.config;
      const config = { ...kept, deliver_policy: "by_start_sequence", opt_start_seq: sequence };
      const body = { stream_name: this.stream, config, action: "create" };
      const made = await this.#ask(`CONSUMER.CREATE.${name}`, body, tries < maxTries ? "any" : 0);
      if (made !== undefined) return;
    }
  }

  /** Undefined for the error that is an answer. */
  async #ask<T>(subject: string, body?: unknown, absent: number | "any" = 0): Promise<T | undefined> {
    try {
      return await this.#js.api<T>(subject, body, this.#attempt());
    } catch (error) {
      if (absent === "any" ? error instanceof JetStreamError : isJsError(error, absent)) return undefined;
      throw storageError(error);
    }
  }

  #attempt(): AttemptOptions {
    return { endMs: this.#js.endIn(timeoutMs), repeatMs: Number.POSITIVE_INFINITY };
  }
}
