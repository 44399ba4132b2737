/**
 * The stored events of one component, and its groups, for tools: reads, removes, moves groups. It creates nothing, and
 * is no way to receive events.
 */
import { headerPairs, headerValue } from "./headers.ts";
import { type AttemptOptions, isJsError, JsCode, type JetStream, storageError } from "./jetstream.ts";
import { joinName, parseTopic, topicFilter, type TopicTrees } from "./subjects.ts";
import type { StoredEvent, TopicRecords } from "./types.ts";

const timeoutMs = 10_000;
/** Events of one read, bytes; NATS answers with one more than fits. */
const maxReadBytes = 4 * 1024 * 1024;
const noMessage = 10057;

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

  /** Undefined for the one error that is an answer. */
  async #ask<T>(subject: string, body: unknown, absent: number): Promise<T | undefined> {
    try {
      return await this.#js.api<T>(subject, body, this.#attempt());
    } catch (error) {
      if (isJsError(error, absent)) return undefined;
      throw storageError(error);
    }
  }

  #attempt(): AttemptOptions {
    return { endMs: this.#js.endIn(timeoutMs), repeatMs: Number.POSITIVE_INFINITY };
  }
}
