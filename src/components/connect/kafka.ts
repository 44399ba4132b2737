/**
 * Publishing to Kafka and reading from it as one member of a consumer group: partitions side by side, each in order,
 * an offset committed when its message is done. A consumer that breaks begins again where the group stands.
 */
import type { BaseOptions, Consumer, Message } from "@platformatic/kafka";
import type { ComponentContext } from "../component.ts";
import { assignPartitions } from "./kafka-assign.ts";
import { type KafkaSettings, kafkaOptions } from "./kafka-fields.ts";
import { createReach, type Reach } from "./reach.ts";

type Metadata = Readonly<Record<string, string>>;

export type KafkaMessage = { readonly topic: string; readonly data: Uint8Array; readonly metadata: Metadata };

export type KafkaHandler = (message: KafkaMessage, signal: AbortSignal) => Promise<void>;

export type KafkaReading = { stop(graceMs: number): Promise<void> };

export type Kafka = {
  /** Resolves when the brokers that producerRequiredAcks asks for have it. */
  publish(topic: string, data: Uint8Array, metadata: Metadata): Promise<void>;
  /** Resolves when the group has taken this consumer in. `retry`: what failed is tried again before what follows. */
  read(
    topics: readonly string[],
    group: string,
    retry: boolean,
    handler: KafkaHandler,
  ): Promise<KafkaReading>;
  /** Unix ms; undefined while the last call reached a broker. */
  awaySinceMs(): number | undefined;
  close(): Promise<void>;
};

const acks = { all: -1, local: 1, none: 0 } as const;
/** Names that say where a message goes and are no headers. */
const placing = new Set(["partitionkey", "__key", "partitionnumber", "valueschematype"]);

/** How long a topic is waited for that the broker creates, in tries and ms between them. */
const topicTries = 20;
const topicWaitMs = 250;

type Parts = Pick<ComponentContext, "clock" | "log" | "appId">;

/** Rejects when no broker can be reached. */
export async function connectKafka(settings: KafkaSettings, parts: Parts): Promise<Kafka> {
  const options = kafkaOptions(settings, parts.appId, parts.clock);
  const { Producer } = await import("@platformatic/kafka");
  const producer = new Producer({
    ...options,
    acks: acks[settings.producerRequiredAcks as "all"],
    compression: settings.compression as "none",
  });
  try {
    await producer.metadata({ topics: [] });
  } catch (cause) {
    await producer.close(true).catch(() => {});
    throw new Error(`cannot connect to ${settings.brokers}: ${textOf(cause)}`, { cause });
  }
  const excluded = excludedHeaders(settings.excludeHeaderMetaRegex);
  const reach = createReach(`kafka at ${settings.brokers}`, parts, () =>
    producer.metadata({ topics: [], forceUpdate: true }),
  );
  return {
    async publish(topic, data, metadata) {
      if (data.length > settings.maxMessageBytes) {
        throw new Error(
          `the message has ${data.length} bytes, more than maxMessageBytes ${settings.maxMessageBytes}`,
        );
      }
      const message = {
        topic,
        value: Buffer.from(data),
        headers: headersOf(metadata, excluded),
        ...placeOf(metadata),
      };
      await reach.watch(producer.send({ messages: [message] }));
    },
    async read(topics, group, retry, handler) {
      const reader = new Reader({ topics, group, retry, handler, settings, options, parts, reach });
      await reader.start();
      return reader;
    },
    awaySinceMs: () => reach.awaySinceMs(),
    async close() {
      reach.close();
      await producer.close(true);
    },
  };
}

function excludedHeaders(text: string | undefined): (name: string) => boolean {
  if (text === undefined) return () => false;
  try {
    const pattern = new RegExp(text);
    return (name) => pattern.test(name);
  } catch (cause) {
    throw new Error(`metadata field "excludeHeaderMetaRegex": ${textOf(cause)}`, { cause });
  }
}

function headersOf(metadata: Metadata, excluded: (name: string) => boolean): Map<Buffer, Buffer> {
  const headers = new Map<Buffer, Buffer>();
  for (const [name, value] of Object.entries(metadata)) {
    if (!placing.has(name.toLowerCase()) && !excluded(name))
      headers.set(Buffer.from(name), Buffer.from(value));
  }
  return headers;
}

function placeOf(metadata: Metadata): { key?: Buffer; partition?: number } {
  const key = metadata["partitionKey"] ?? metadata["__key"];
  const number = metadata["partitionNumber"];
  if (number !== undefined && !/^\d{1,9}$/.test(number)) {
    throw new Error(`metadata partitionNumber "${number}" is no whole number`);
  }
  return {
    ...(key === undefined ? {} : { key: Buffer.from(key) }),
    ...(number === undefined ? {} : { partition: Number(number) }),
  };
}

type Reading = {
  readonly topics: readonly string[];
  readonly group: string;
  readonly retry: boolean;
  readonly handler: KafkaHandler;
  readonly settings: KafkaSettings;
  readonly options: BaseOptions;
  readonly parts: Parts;
  readonly reach: Reach;
};

class Reader implements KafkaReading {
  readonly #reading: Reading;
  /** No more is taken. */
  readonly #ending = new AbortController();
  /** What runs ends. */
  readonly #stopped = new AbortController();
  #done: Promise<void> = Promise.resolve();

  constructor(reading: Reading) {
    this.#reading = reading;
  }

  /** Resolves when the first consumer has joined; it is followed by others for as long as the reading lasts. */
  async start(): Promise<void> {
    const joined = Promise.withResolvers<void>();
    this.#done = this.#run(joined);
    await joined.promise;
  }

  async stop(graceMs: number): Promise<void> {
    this.#ending.abort(new Error("the subscription ends"));
    const late = this.#reading.parts.clock.setTimeout(
      () => this.#stopped.abort(new Error("the handler took longer than the grace period")),
      graceMs,
    );
    await this.#done;
    late.cancel();
  }

  async #run(joined: PromiseWithResolvers<void>): Promise<void> {
    const { reach } = this.#reading;
    const { clock, log } = this.#reading.parts;
    let first = true;
    while (!this.#ending.signal.aborted) {
      try {
        const consuming = this.#consume(() => {
          first = false;
          reach.found();
          joined.resolve();
        });
        await reach.watch(consuming);
      } catch (error) {
        if (first) return joined.reject(error);
        if (!this.#ending.signal.aborted) log.warn(`reading begins again: ${textOf(error)}`);
      }
      const waitMs = Math.max(50, this.#reading.settings.consumeRetryInterval);
      await clock.sleep(waitMs, this.#ending.signal).catch(() => {});
    }
    joined.resolve();
  }

  /** Asking for a topic makes the broker create it; a group that joins before has no partitions to share. */
  async #untilKnown(consumer: Consumer): Promise<void> {
    const { topics, parts } = this.#reading;
    for (let tries = 1; ; tries++) {
      const options = { topics: [...topics], autocreateTopics: true, forceUpdate: true };
      const known = await consumer.metadata(options).catch((error: unknown) => error as Error);
      const missing = known instanceof Error ? known : topics.find((topic) => !known.topics.has(topic));
      if (missing === undefined) return;
      if (tries === topicTries)
        throw missing instanceof Error ? missing : new Error(`there is no topic ${missing}`);
      await parts.clock.sleep(topicWaitMs, this.#ending.signal);
    }
  }

  /** One consumer, from its joining to its breaking or the end. */
  async #consume(onJoined: () => void): Promise<void> {
    const { topics, group, settings, options } = this.#reading;
    const { Consumer } = await import("@platformatic/kafka");
    const consumer = new Consumer({ ...options, groupId: group, partitionAssigner: assignPartitions });
    let stream: Awaited<ReturnType<typeof consumer.consume>> | undefined;
    // The way back into the group failed. Nobody listening would end the process.
    consumer.on("error", (error: Error) => void stream?.destroy(error));
    const lanes = new Lanes(this.#reading, consumer, this.#stopped.signal);
    try {
      await this.#untilKnown(consumer);
      stream = await consumer.consume({
        topics: [...topics],
        autocommit: false,
        mode: "committed",
        fallbackMode: settings.initialOffset === "oldest" ? "earliest" : "latest",
        sessionTimeout: settings.sessionTimeout,
        heartbeatInterval: settings.heartbeatInterval,
        minBytes: settings.consumerFetchMin,
        maxBytes: Math.max(settings.consumerFetchDefault, settings.maxMessageBytes),
        maxWaitTime: 500,
        highWaterMark: settings.channelBufferSize,
      });
      onJoined();
      const reading = stream;
      const end = (): void => void reading.destroy();
      this.#ending.signal.addEventListener("abort", end, { once: true });
      try {
        if (!this.#ending.signal.aborted) for await (const message of reading) await lanes.add(message);
      } finally {
        this.#ending.signal.removeEventListener("abort", end);
      }
    } finally {
      await lanes.end(this.#ending.signal.aborted);
      await consumer.close(true).catch(() => {});
    }
  }
}

/** What a consumer has in hand: one line per partition. */
class Lanes {
  readonly #reading: Reading;
  readonly #consumer: Consumer;
  readonly #signal: AbortSignal;
  readonly #lanes = new Map<string, Promise<void>>();
  readonly #left = new AbortController();
  #pending = 0;
  #room: (() => void) | undefined;
  #ended = false;

  constructor(reading: Reading, consumer: Consumer, stopped: AbortSignal) {
    this.#reading = reading;
    this.#consumer = consumer;
    this.#signal = AbortSignal.any([stopped, this.#left.signal]);
  }

  /** Resolves when there is room for the next message. */
  async add(message: Message): Promise<void> {
    const lane = `${message.topic}/${message.partition}`;
    const before = this.#lanes.get(lane) ?? Promise.resolve();
    this.#pending += 1;
    const run = before.then(() => this.#handle(message));
    this.#lanes.set(lane, run);
    void run.finally(() => {
      this.#pending -= 1;
      if (this.#lanes.get(lane) === run) this.#lanes.delete(lane);
      this.#room?.();
    });
    if (this.#pending < this.#reading.settings.channelBufferSize) return;
    await new Promise<void>((resolve) => (this.#room = resolve));
    this.#room = undefined;
  }

  /** Waits for the handlers that run; what waits behind them is left to the group. */
  async end(gracefully: boolean): Promise<void> {
    this.#ended = true;
    if (!gracefully) this.#left.abort(new Error("the consumer has left its group"));
    await Promise.all(this.#lanes.values());
  }

  async #handle(message: Message): Promise<void> {
    // A read that was under way while the group shared anew brings what somebody else has now.
    if (this.#ended || !this.#owns(message)) return;
    const { log } = this.#reading.parts;
    const { topic, partition, offset } = message;
    const name = `message ${offset} of ${topic}/${partition}`;
    try {
      if (!(await this.#tryOn(message, name))) return;
      await message.commit();
    } catch (error) {
      log.debug(`${name} is done, but its offset is not kept: ${textOf(error)}`);
    }
  }

  /** True when the message is done with, by success or because all tries are used up. */
  async #tryOn(message: Message, name: string): Promise<boolean> {
    const { handler, retry, settings, parts } = this.#reading;
    const event = eventOf(message, settings.escapeHeaders);
    for (let tries = 0; ; tries++) {
      try {
        await handler(event, this.#signal);
        return true;
      } catch (error) {
        if (this.#signal.aborted) return false;
        const most = settings.backOffMaxRetries;
        if (!retry || (most >= 0 && tries >= most)) {
          parts.log.error(`${name} was not handled and is given up: ${textOf(error)}`);
          return true;
        }
        if (this.#ended || !this.#owns(message)) return false;
        parts.log.warn(`${name} was not handled and is tried again: ${textOf(error)}`);
        await parts.clock.sleep(waitMs(settings, tries), this.#signal).catch(() => {});
        if (this.#ended || this.#signal.aborted) return false;
      }
    }
  }

  /** False when the group has given the partition to somebody else. */
  #owns({ topic, partition }: Message): boolean {
    const { assignments } = this.#consumer;
    return (
      assignments === null ||
      assignments.some((own) => own.topic === topic && own.partitions.includes(partition))
    );
  }
}

function waitMs(settings: KafkaSettings, tries: number): number {
  if (settings.backOffPolicy === "constant") return settings.backOffDuration;
  return Math.min(settings.backOffInitialInterval * 1.5 ** Math.min(tries, 50), settings.backOffMaxInterval);
}

function eventOf(message: Message, escape: boolean): KafkaMessage {
  const metadata: Record<string, string> = {
    __topic: message.topic,
    __partition: String(message.partition),
    __offset: String(message.offset),
    __timestamp: String(message.timestamp),
  };
  // Absent where a message has none, whatever the library's types say.
  const { key, value } = message as { key?: Buffer | null; value?: Buffer | null };
  if (key !== null && key !== undefined && key.length > 0) metadata["__key"] = key.toString();
  for (const [name, header] of message.headerEntries) {
    const text = (header as Buffer | null)?.toString() ?? "";
    metadata[name.toString()] = escape ? encodeURIComponent(text) : text;
  }
  return { topic: message.topic, data: value ?? new Uint8Array(), metadata };
}

function textOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) {
    return `${error.message} (${textOf(error.errors[0])})`;
  }
  return error instanceof Error ? error.message : String(error);
}
