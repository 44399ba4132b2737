/**
 * Topics of one pub/sub component on one stream: acknowledged publishes and durable groups. A group pulls only as
 * many events as it has free handlers, so that a killed participant holds few. Normative: README.md, "Topics".
 */
import type { Msg } from "@nats-io/transport-node";
import { MeshError } from "./errors.ts";
import { JsCode, JetStreamError, type JetStream, isJsError, natsHeaders } from "./jetstream.ts";
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
const consumerTimeoutMs = 10_000;

export class JetStreamTopics implements TopicStream {
  readonly stream: string;
  readonly #js: JetStream;
  readonly #topology: Topology;
  readonly #base: string;
  readonly #config: StreamConfig;

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
    const subject = topicSubject(this.#base, topic);
    await this.#topology.ensure(this.#config, options.signal);
    const pairs = options.id === undefined ? (options.headers ?? []) : ["Nats-Msg-Id", options.id, ...(options.headers ?? [])];
    try {
      const ack = await this.#js.publish(subject, data, pairs.length === 0 ? undefined : natsHeaders(pairs), {
        timeoutMs: options.timeoutMs,
        signal: options.signal,
        idempotent: options.id !== undefined,
        onMissing: () => this.#recreate(),
      });
      return { sequence: ack.seq, duplicate: ack.duplicate === true };
    } catch (error) {
      if (!(error instanceof JetStreamError)) throw error;
      throw new MeshError("storage", `topic ${topic}: ${error.message}`, { cause: error });
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
    await target.create();
    const inbox = `${this.#js.connection.settings.inbox}.pull.${this.#js.nextId()}`;
    const handle = (message: Msg, signal: AbortSignal): Promise<void> => handler(readTopicMessage(this.#base, message), signal);
    const puller = new Puller(this.#js, inbox, target, options, handle);
    puller.start();
    return puller;
  }

  async #recreate(): Promise<void> {
    this.#topology.forget(this.stream);
    await this.#topology.ensure(this.#config);
  }

  /** Creates the durable group, or adopts the one that is there when only its fixed settings differ. */
  async #createGroup(consumer: string, filter: string, options: TopicSubscribeOptions): Promise<void> {
    const config = {
      durable_name: consumer,
      name: consumer,
      filter_subjects: [filter],
      deliver_policy: options.deliver,
      ack_policy: "explicit",
      ack_wait: options.ackWaitMs * nanosPerMs,
      max_deliver: options.maxDeliver,
      max_ack_pending: Math.max(1_000, options.concurrency * 4),
      replay_policy: "instant",
    };
    const attempt = { timeoutMs: consumerTimeoutMs, idempotent: true, onMissing: () => this.#recreate() };
    const create = (): Promise<unknown> =>
      this.#js.api(`CONSUMER.CREATE.${this.stream}.${consumer}`, { stream_name: this.stream, config }, attempt);
    await this.#topology.ensure(this.#config);
    try {
      await create().catch(async (error: unknown) => {
        if (!isJsError(error, JsCode.streamNotFound)) throw error;
        await this.#recreate();
        await create();
      });
    } catch (error) {
      if (error instanceof JetStreamError) {
        const there = await this.#js.api(`CONSUMER.INFO.${this.stream}.${consumer}`, undefined, attempt).catch(() => undefined);
        if (there !== undefined) return;
        throw new MeshError("storage", `group for topic ${options.topic}: ${error.message}`, { cause: error });
      }
      throw error;
    }
  }
}

function readTopicMessage(base: string, message: Msg): TopicMessage {
  const position = readAckSubject(message.reply ?? "");
  return {
    topic: parseTopic(base, message.subject),
    data: message.data,
    ...position,
    header: (name) => {
      const value = message.headers?.get(name);
      return value === undefined || value === "" ? undefined : value;
    },
    headers: () => [...(message.headers ?? [])].map(([name, values]) => [name, values.join(",")] as const),
  };
}
