/**
 * Publishing to Kafka and reading from it as one member of a consumer group: partitions side by side, each in order,
 * an offset committed when its message is done. A consumer that breaks begins again where the group stands.
 */
import type { BaseOptions, Consumer } from "@platformatic/kafka";
import { asError } from "../../lib/thrown.ts";
import type { ComponentContext } from "../component.ts";
import { assignPartitions } from "./kafka-assign.ts";
import { type KafkaSettings, kafkaOptions } from "./kafka-fields.ts";
import { kafkaText, Lanes } from "./kafka-lanes.ts";
import { createReach, type Reach } from "./reach.ts";

type Metadata = Readonly<Record<string, string>>;

export type KafkaMessage = { readonly topic: string; readonly data: Uint8Array; readonly metadata: Metadata };

/** Hands over messages of one partition; resolves, always, with an Error by place for each that was not handled. */
export type KafkaHandler = (
  messages: readonly KafkaMessage[],
  signal: AbortSignal,
) => Promise<readonly (Error | undefined)[]>;

/** What is handed over at once: so many messages, or those that came within this time after the first. */
export type KafkaBatch = { readonly maxMessages: number; readonly maxAwaitMs: number };

export const oneByOne: KafkaBatch = { maxMessages: 1, maxAwaitMs: 0 };

/** For a handler of single messages, which rejects when one was not handled. */
export function handleEach(
  handler: (message: KafkaMessage, signal: AbortSignal) => Promise<unknown>,
): KafkaHandler {
  return async ([message], signal) => {
    try {
      await handler(message!, signal);
      return [undefined];
    } catch (error) {
      return [asError(error)];
    }
  };
}

export type KafkaEntry = { readonly data: Uint8Array; readonly metadata: Metadata };

export type KafkaReading = { stop(graceMs: number): Promise<void> };

export type Kafka = {
  /** Resolves when the brokers that producerRequiredAcks asks for have it. */
  publish(topic: string, entry: KafkaEntry): Promise<void>;
  /** In as few requests as hold them. Errors by place of those that were not accepted. */
  publishMany(topic: string, entries: readonly KafkaEntry[]): Promise<ReadonlyMap<number, Error>>;
  /** Resolves when the group has taken this consumer in. `retry`: what failed is tried again before what follows. */
  read(
    topics: readonly string[],
    group: string,
    retry: boolean,
    batch: KafkaBatch,
    handler: KafkaHandler,
  ): Promise<KafkaReading>;
  /** Unix ms; undefined while the last call reached a broker. */
  awaySinceMs(): number | undefined;
  close(): Promise<void>;
};

const acks = { all: -1, local: 1, none: 0 } as const;
/** Said to this client alone. As headers they would come back with a dead letter, whose topic has other partitions. */
const unsent = new Set(["partitionnumber", "valueschematype"]);

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
    throw new Error(`cannot connect to ${settings.brokers}: ${kafkaText(cause)}`, { cause });
  }
  const excluded = excludedHeaders(settings.excludeHeaderMetaRegex);
  const reach = createReach(`kafka at ${settings.brokers}`, parts, () =>
    producer.metadata({ topics: [], forceUpdate: true }),
  );
  const limit = settings.maxMessageBytes;
  const messageOf = (topic: string, { data, metadata }: KafkaEntry): ProducerMessage => {
    if (data.length > limit)
      throw new Error(`the message has ${data.length} bytes, more than maxMessageBytes ${limit}`);
    refuseAvro(metadata);
    const headers = headersOf(metadata, excluded);
    return { topic, value: Buffer.from(data), headers, ...placeOf(metadata) };
  };
  const send = async (messages: ProducerMessage[]): Promise<void> =>
    void (await reach.watch(producer.send({ messages })));
  return {
    publish: async (topic, entry) => send([messageOf(topic, entry)]),
    publishMany: (topic, entries) => sendMany(entries, (entry) => messageOf(topic, entry), limit, send),
    async read(topics, group, retry, batch, handler) {
      const reader = new Reader({ topics, group, retry, batch, handler, settings, options, parts, reach });
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

/** Throws for metadata of a publish or a subscription that ask for what would change the bytes. */
export function refuseAvro(metadata: Metadata): void {
  if (metadata["valueSchemaType"]?.toLowerCase() === "avro")
    throw new Error('metadata valueSchemaType "Avro" is not supported; publish JSON without it');
}

type ProducerMessage = {
  topic: string;
  value: Buffer;
  headers: Map<Buffer, Buffer>;
  key?: Buffer;
  partition?: number;
};

/** A request above what one message may have would be refused as a whole; one that fails, fails for all of its. */
async function sendMany(
  entries: readonly KafkaEntry[],
  messageOf: (entry: KafkaEntry) => ProducerMessage,
  maxBytes: number,
  send: (messages: ProducerMessage[]) => Promise<void>,
): Promise<ReadonlyMap<number, Error>> {
  const failed = new Map<number, Error>();
  let group: { messages: ProducerMessage[]; places: number[]; bytes: number } | undefined;
  const leave = async (): Promise<void> => {
    const { messages, places } = group ?? { messages: [], places: [] };
    group = undefined;
    if (messages.length === 0) return;
    await send(messages).catch((error: unknown) => {
      for (const place of places) failed.set(place, asError(error));
    });
  };
  for (const [place, entry] of entries.entries()) {
    try {
      const message = messageOf(entry);
      if (group !== undefined && group.bytes + message.value.length > maxBytes) await leave();
      group ??= { messages: [], places: [], bytes: 0 };
      group.messages.push(message);
      group.places.push(place);
      group.bytes += message.value.length;
    } catch (error) {
      failed.set(place, asError(error));
    }
  }
  await leave();
  return failed;
}

function excludedHeaders(text: string | undefined): (name: string) => boolean {
  if (text === undefined) return () => false;
  try {
    const pattern = new RegExp(text);
    return (name) => pattern.test(name);
  } catch (cause) {
    throw new Error(`metadata field "excludeHeaderMetaRegex": ${kafkaText(cause)}`, { cause });
  }
}

function headersOf(metadata: Metadata, excluded: (name: string) => boolean): Map<Buffer, Buffer> {
  const headers = new Map<Buffer, Buffer>();
  for (const [name, value] of Object.entries(metadata)) {
    if (!unsent.has(name.toLowerCase()) && !excluded(name))
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
  readonly batch: KafkaBatch;
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
        if (!this.#ending.signal.aborted) log.warn(`reading begins again: ${kafkaText(error)}`);
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
