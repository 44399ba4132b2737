/**
 * Topics of one pub/sub component on one stream: acknowledged publishes and durable groups. A group pulls only as
 * many events as it has free handlers, so that a killed participant holds few. Normative: README.md, "Topics".
 */
import { type GroupPlace, openGroup, partitionsIn } from "./groups.ts";
import { encodeHeaders } from "./headers.ts";
import { type AttemptOptions, attemptMsFor, type JetStream, storageError } from "./jetstream.ts";
import { keyedSubject, topicSubject, topicTrees } from "./subjects.ts";
import { topicsConfig, type Topology } from "./topology.ts";
import type {
  TopicHandler,
  TopicPublishOptions,
  TopicStream,
  TopicStreamOptions,
  TopicSubscribeOptions,
  TopicSubscription,
} from "./types.ts";

/** A publish with an id may be sent again for this long, ms: less than the stream remembers ids (topology.ts). */
const repeatMs = 100_000;
const noHeaders: readonly string[] = [];

export class JetStreamTopics implements TopicStream {
  readonly stream: string;
  readonly #js: JetStream;
  readonly #topology: Topology;
  readonly #place: GroupPlace;

  constructor(js: JetStream, topology: Topology, stream: string, base: string, options: TopicStreamOptions) {
    this.stream = stream;
    this.#js = js;
    this.#topology = topology;
    const trees = topicTrees(base);
    const config = topicsConfig(stream, trees, options);
    this.#place = { js, topology, trees, config, onMissing: (wait) => topology.refresh(config, wait) };
  }

  async publish(
    topic: string,
    data: Uint8Array,
    options: TopicPublishOptions,
  ): Promise<{ sequence: number; duplicate: boolean }> {
    const { trees, config, onMissing } = this.#place;
    const { id, key, headers = noHeaders, timeoutMs, signal } = options;
    const subject = key === undefined ? topicSubject(trees.plain, topic) : keyedSubject(trees, key, topic);
    const pairs = id === undefined ? headers : ["Nats-Msg-Id", id, ...headers];
    const encoded = pairs.length === 0 ? undefined : encodeHeaders(pairs);
    const attempt: AttemptOptions = {
      endMs: this.#js.endIn(timeoutMs),
      signal,
      repeatMs: id === undefined ? 0 : repeatMs,
      attemptMs: attemptMsFor(this.#topology.replicasOf(this.stream)),
      onMissing,
    };
    if (this.#topology.replicasOf(this.stream) === undefined) await this.#topology.ensure(config, attempt);
    if (key !== undefined) partitionsIn(this.#place);
    try {
      const ack = await this.#js.publish(subject, data, encoded, attempt);
      return { sequence: ack.seq, duplicate: ack.duplicate === true };
    } catch (error) {
      throw storageError(error, `topic ${topic}: `);
    }
  }

  subscribe(options: TopicSubscribeOptions, handler: TopicHandler): Promise<TopicSubscription> {
    return openGroup(this.#place, options, handler);
  }
}
