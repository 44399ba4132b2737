/**
 * Topics of one pub/sub component on one stream: acknowledged publishes and durable groups. A group pulls only as
 * many events as it has free handlers, so that a killed participant holds few. Normative: README.md, "Topics".
 */
import { MeshError } from "./errors.ts";
import { onlyForHeader, openGroup, partitionsIn } from "./groups.ts";
import { encodeHeaders, headerValue } from "./headers.ts";
import {
  type AttemptOptions,
  attemptMsFor,
  isJsError,
  JsCode,
  type JetStream,
  storageError,
} from "./jetstream.ts";
import { SharedConsumer, type SharedPlace } from "./shared-consumer.ts";
import { encodeToken, keyedSubject, timedSubject, topicSubject, topicTrees } from "./subjects.ts";
import { topicsConfig, type Topology } from "./topology.ts";
import type {
  Table,
  TopicHandler,
  TopicPublishOptions,
  TopicStream,
  TopicStreamOptions,
  TopicSubscribeOptions,
  TopicSubscription,
} from "./types.ts";

/** Part of the time for which the stream remembers ids, in which a publish with an id may be sent again. */
const repeatPart = 5 / 6;
const nanosPerMs = 1_000_000;
const noHeaders: readonly string[] = [];
/** In the id of a schedule that is published again after it was taken back, before the sequence of what did that. */
const againMark = "~";

export class JetStreamTopics implements TopicStream {
  readonly stream: string;
  readonly #js: JetStream;
  readonly #topology: Topology;
  readonly #place: SharedPlace;
  readonly #shared = new Map<string, SharedConsumer>();

  /** `locks`: who changes a shared consumer. */
  constructor(
    js: JetStream,
    topology: Topology,
    names: {
      readonly stream: string;
      readonly base: string;
      readonly instance: string;
      readonly locks: Table;
    },
    options: TopicStreamOptions,
  ) {
    const { stream, base, instance, locks } = names;
    this.stream = stream;
    this.#js = js;
    this.#topology = topology;
    const trees = topicTrees(base);
    const config = topicsConfig(stream, trees, options);
    this.#place = {
      js,
      topology,
      trees,
      config,
      instance,
      locks,
      times: options.sharedTimes ?? {},
      onMissing: (wait) => topology.refresh(config, wait),
    };
  }

  async publish(
    topic: string,
    data: Uint8Array,
    options: TopicPublishOptions,
  ): Promise<{ sequence: number; duplicate: boolean }> {
    const { trees, config, onMissing } = this.#place;
    const { id, key, onlyFor, timeoutMs, signal } = options;
    const place = key === undefined ? topicSubject(trees.plain, topic) : keyedSubject(trees, key, topic);
    const { schedule } = options;
    const subject = schedule === undefined ? place : timedSubject(trees, schedule.id, topic);
    const given = options.headers ?? noHeaders;
    const wide = onlyFor === undefined ? given : [onlyForHeader, encodeToken(onlyFor), ...given];
    const headers = schedule === undefined ? wide : [...scheduleHeaders(schedule.atMs, place), ...wide];
    const pairs = id === undefined ? headers : ["Nats-Msg-Id", id, ...headers];
    const encoded = pairs.length === 0 ? undefined : encodeHeaders(pairs);
    const endMs = this.#js.endIn(timeoutMs);
    const known = this.#topology.replicasOf(this.stream);
    const replicas = known ?? (await this.#topology.ensure(config, { endMs, signal }));
    const attempt: AttemptOptions = {
      endMs,
      signal,
      repeatMs: id === undefined ? 0 : this.#repeatMs(),
      attemptMs: attemptMsFor(replicas),
      onMissing,
    };
    if (key !== undefined) partitionsIn(this.#place);
    if (schedule !== undefined) this.#needSchedules();
    try {
      const ack = await this.#js.publish(subject, data, encoded, attempt);
      const over = schedule && ack.duplicate ? await this.#takenBack(subject, id!, attempt) : undefined;
      if (over === undefined) return { sequence: ack.seq, duplicate: ack.duplicate === true };
      const leftMs = endMs - this.#js.endIn(0);
      return await this.publish(topic, data, {
        ...options,
        id: `${id}${againMark}${over}`,
        timeoutMs: leftMs,
      });
    } catch (error) {
      throw storageError(error, `topic ${topic}: `);
    }
  }

  #repeatMs(): number {
    return (this.#windowNanos() / nanosPerMs) * repeatPart;
  }

  #windowNanos(): number {
    return Number(this.#topology.configOf(this.stream)?.["duplicate_window"] ?? 0);
  }

  /**
   * The sequence of what has replaced or cancelled a schedule that the stream takes for repeated; undefined when the
   * schedule waits or has gone out.
   */
  async #takenBack(subject: string, id: string, attempt: AttemptOptions): Promise<number | undefined> {
    type Found = { readonly message: { readonly seq: number; readonly hdrs?: string } };
    try {
      const request = { last_by_subj: subject };
      const { message } = await this.#js.api<Found>(`STREAM.MSG.GET.${this.stream}`, request, attempt);
      const found = headerValue(Buffer.from(message.hdrs ?? "", "base64").toString(), "Nats-Msg-Id");
      return found === id || found.startsWith(id + againMark) ? undefined : message.seq;
    } catch (error) {
      if (isJsError(error, JsCode.messageNotFound)) return undefined;
      throw error;
    }
  }

  async cancelScheduled(
    topic: string,
    id: string,
    { timeoutMs, signal }: Pick<TopicPublishOptions, "timeoutMs" | "signal">,
  ): Promise<void> {
    const { trees, config, onMissing } = this.#place;
    const repeatable = Number.POSITIVE_INFINITY;
    const attempt = { endMs: this.#js.endIn(timeoutMs), signal, repeatMs: repeatable, onMissing };
    await this.#topology.ensure(config, attempt);
    this.#needSchedules();
    // What takes the place of the schedule is no schedule. It stays as long as the stream may take another publish of
    // the schedule for a repeated one (#takenBack).
    const keptS = Math.max(1, Math.ceil(this.#windowNanos() / 1e9));
    const headers = encodeHeaders(["Nats-Rollup", "sub", "Nats-TTL", `${keptS}s`]);
    try {
      await this.#js.publish(timedSubject(trees, id, topic), new Uint8Array(0), headers, attempt);
    } catch (error) {
      throw storageError(error, `topic ${topic}: `);
    }
  }

  /** Throws MeshError `storage` for a stream that has no schedules, or drops events that wait. */
  #needSchedules(): void {
    const found = this.#topology.configOf(this.stream) ?? {};
    const drops = ["max_bytes", "max_msgs"].find((limit) => Number(found[limit] ?? -1) > 0);
    const problem =
      found["allow_msg_schedules"] !== true
        ? "switch on its allow_msg_schedules"
        : drops !== undefined
          ? `it has ${drops} and would drop them when it is full`
          : found["retention"] === "interest"
            ? "give it the retention limits"
            : undefined;
    if (problem !== undefined)
      throw new MeshError("storage", `events cannot wait in the stream ${this.stream}: ${problem}`);
  }

  subscribe(options: TopicSubscribeOptions, handler: TopicHandler): Promise<TopicSubscription> {
    const { group, broadcast = false } = options;
    if (broadcast) return openGroup(this.#place, options, handler);
    let shared = this.#shared.get(group);
    if (shared === undefined) {
      for (const [name, it] of this.#shared) if (it.idle) this.#shared.delete(name);
      shared = new SharedConsumer(this.#place, group);
      this.#shared.set(group, shared);
    }
    return shared.subscribe(options, handler);
  }
}

/** The age limit of the stream does not count for an event that waits; it begins when the event is due. */
function scheduleHeaders(atMs: number, place: string): readonly string[] {
  const at = new Date(atMs).toISOString();
  return ["Nats-Schedule", `@at ${at}`, "Nats-Schedule-Target", place, "Nats-TTL", "never"];
}
