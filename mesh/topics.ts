/**
 * Topics of one pub/sub component on one stream: acknowledged publishes and durable groups. A group pulls only as
 * many events as it has free handlers, so that a killed participant holds few. Normative: README.md, "Topics".
 */
import type { Msg } from "@nats-io/transport-node";
import { encodeHeaders, headerPairs, headerText, headerValue } from "./headers.ts";
import {
  type AttemptOptions,
  attemptMsFor,
  JetStreamError,
  type JetStream,
  type WaitOptions,
  storageError,
} from "./jetstream.ts";
import { Puller, type PullTarget, readAckSubject } from "./pull.ts";
import { joinName, parseTopic, topicFilter, topicSubject } from "./subjects.ts";
import { topicsConfig, type StreamConfig, type Topology } from "./topology.ts";
import type {
  TopicHandler,
  TopicMessage,
  TopicStream,
  TopicStreamOptions,
  TopicSubscribeOptions,
  TopicSubscription,
} from "./types.ts";

const nanosPerMs = 1_000_000;
/**
 * Events of a group that may wait for their redelivery. At the limit the group stands still, and events that fail again
 * and again must not reach it; what is under way is bounded by the pulls.
 */
const maxPendingEvents = 100_000;
const consumerTimeoutMs = 10_000;
/** A publish with an id may be sent again for this long, ms: less than the stream remembers ids (topology.ts). */
const repeatMs = 100_000;
const noHeaders: readonly string[] = [];

export class JetStreamTopics implements TopicStream {
  readonly stream: string;
  readonly #js: JetStream;
  readonly #topology: Topology;
  readonly #base: string;
  readonly #config: StreamConfig;
  readonly #onMissing = (options: WaitOptions): Promise<unknown> =>
    this.#topology.refresh(this.#config, options);

  constructor(js: JetStream, topology: Topology, stream: string, base: string, options: TopicStreamOptions) {
    this.stream = stream;
    this.#js = js;
    this.#topology = topology;
    this.#base = base;
    this.#config = topicsConfig(stream, base, options.maxAgeMs, options.maxBytes);
  }

  async publish(
    topic: string,
    data: Uint8Array,
    options: { id?: string; headers?: readonly string[]; timeoutMs: number; signal?: AbortSignal },
  ): Promise<{ sequence: number; duplicate: boolean }> {
    const { id, headers = noHeaders, timeoutMs, signal } = options;
    const subject = topicSubject(this.#base, topic);
    const pairs = id === undefined ? headers : ["Nats-Msg-Id", id, ...headers];
    const encoded = pairs.length === 0 ? undefined : encodeHeaders(pairs);
    const attempt: AttemptOptions = {
      endMs: this.#js.endIn(timeoutMs),
      signal,
      repeatMs: id === undefined ? 0 : repeatMs,
      attemptMs: attemptMsFor(this.#topology.replicasOf(this.stream)),
      onMissing: this.#onMissing,
    };
    if (this.#topology.replicasOf(this.stream) === undefined)
      await this.#topology.ensure(this.#config, attempt);
    try {
      const ack = await this.#js.publish(subject, data, encoded, attempt);
      return { sequence: ack.seq, duplicate: ack.duplicate === true };
    } catch (error) {
      throw storageError(error, `topic ${topic}: `);
    }
  }

  async subscribe(options: TopicSubscribeOptions, handler: TopicHandler): Promise<TopicSubscription> {
    const filter = topicFilter(this.#base, options.topic);
    const consumer = joinName([options.group, options.topic]);
    const target: PullTarget = {
      stream: this.stream,
      consumer,
      create: () => this.#createGroup(consumer, filter, options),
    };
    const ackWaitMs = await target.create();
    const inbox = `${this.#js.connection.settings.inbox}.pull.${this.#js.nextId()}`;
    const handle = (message: Msg, signal: AbortSignal): Promise<void> =>
      handler(readTopicMessage(this.#base, message), signal);
    const puller = new Puller(this.#js, inbox, target, options, handle);
    puller.start(ackWaitMs);
    return puller;
  }

  /**
   * Creates the durable group, or adopts the one that is there with as many of our settings as it can take. Resolves
   * with its ack deadline, ms.
   */
  async #createGroup(consumer: string, filter: string, options: TopicSubscribeOptions): Promise<number> {
    const changeable = {
      filter_subjects: [filter],
      ack_wait: options.ackWaitMs * nanosPerMs,
      max_deliver: options.maxDeliver,
      max_ack_pending: maxPendingEvents,
    };
    const fixed = {
      durable_name: consumer,
      name: consumer,
      deliver_policy: options.deliver,
      ack_policy: "explicit",
      replay_policy: "instant",
    };
    const attempt: AttemptOptions = {
      endMs: this.#js.endIn(consumerTimeoutMs),
      repeatMs: Number.POSITIVE_INFINITY,
      onMissing: this.#onMissing,
    };
    const create = (config: object): Promise<unknown> =>
      this.#js.api(
        `CONSUMER.CREATE.${this.stream}.${consumer}`,
        { stream_name: this.stream, config },
        attempt,
      );
    await this.#topology.ensure(this.#config, attempt);
    try {
      await create({ ...fixed, ...changeable });
      return options.ackWaitMs;
    } catch (error) {
      if (!(error instanceof JetStreamError)) throw error;
      const there = await this.#js
        .api<{ config: { ack_wait: number } }>(`CONSUMER.INFO.${this.stream}.${consumer}`, undefined, attempt)
        .catch(() => undefined);
      if (there === undefined) throw storageError(error, `group for topic ${options.topic}: `);
      const adopted = await create({ ...there.config, ...changeable }).catch(() => undefined);
      return adopted === undefined ? there.config.ack_wait / nanosPerMs : options.ackWaitMs;
    }
  }
}

function readTopicMessage(base: string, message: Msg): TopicMessage {
  let text: string | undefined;
  const headers = (): string => (text ??= headerText(message));
  return {
    topic: parseTopic(base, message.subject),
    data: message.data,
    ...readAckSubject(message.reply ?? ""),
    header: (name) => headerValue(headers(), name) || undefined,
    headers: () => {
      const joined = new Map<string, string>();
      for (const [name, value] of headerPairs(headers())) {
        const before = joined.get(name);
        joined.set(name, before === undefined ? value : `${before},${value}`);
      }
      return [...joined];
    },
  };
}
