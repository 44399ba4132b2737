/**
 * What a consumer of Kafka has in hand: one lane per partition, each in order; batches leave when they are full or
 * their time has come, and an offset is committed when all before it is done.
 */
import type { Consumer, Message } from "@platformatic/kafka";
import type { Timer } from "../../../mesh/index.ts";
import type { ComponentContext } from "../component.ts";
import type { KafkaBatch, KafkaHandler, KafkaMessage } from "./kafka.ts";
import type { KafkaSettings } from "./kafka-fields.ts";

/** Messages of one partition: those that wait to be a batch, and the batches that run, one after the other. */
type Lane = { waiting: Message[]; bytes: number; timer: Timer | undefined; run: Promise<void> };

export type LanesInit = {
  /** What failed is tried again before what follows. */
  readonly retry: boolean;
  readonly batch: KafkaBatch;
  readonly handler: KafkaHandler;
  readonly settings: KafkaSettings;
  readonly parts: Pick<ComponentContext, "clock" | "log">;
};

/** Messages of this size together leave at once, so that a batch stays below what apps accept, bytes. */
const fullBytes = 2 * 1024 * 1024;

export class Lanes {
  readonly #init: LanesInit;
  readonly #consumer: Consumer;
  readonly #signal: AbortSignal;
  readonly #lanes = new Map<string, Lane>();
  readonly #left = new AbortController();
  #pending = 0;
  #room: (() => void) | undefined;
  #ended = false;

  constructor(init: LanesInit, consumer: Consumer, stopped: AbortSignal) {
    this.#init = init;
    this.#consumer = consumer;
    this.#signal = AbortSignal.any([stopped, this.#left.signal]);
  }

  /** Resolves when there is room for the next message. */
  async add(message: Message): Promise<void> {
    const { batch, settings, parts } = this.#init;
    const lane = this.#laneOf(message);
    lane.waiting.push(message);
    lane.bytes += (message.value as Buffer | null)?.length ?? 0;
    this.#pending += 1;
    if (lane.waiting.length >= batch.maxMessages || lane.bytes >= fullBytes) this.#flush(lane);
    else lane.timer ??= parts.clock.setTimeout(() => this.#flush(lane), batch.maxAwaitMs);
    if (this.#pending < Math.max(settings.channelBufferSize, batch.maxMessages)) return;
    // No more come before these have left.
    for (const waiting of this.#lanes.values()) this.#flush(waiting);
    await new Promise<void>((resolve) => (this.#room = resolve));
    this.#room = undefined;
  }

  /** Waits for the handlers that run; what waits behind them is left to the group. */
  async end(gracefully: boolean): Promise<void> {
    this.#ended = true;
    if (!gracefully) this.#left.abort(new Error("the consumer has left its group"));
    for (const { timer } of this.#lanes.values()) timer?.cancel();
    await Promise.all([...this.#lanes.values()].map(({ run }) => run));
  }

  #laneOf({ topic, partition }: Message): Lane {
    const key = `${topic}/${partition}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      lane = { waiting: [], bytes: 0, timer: undefined, run: Promise.resolve() };
      this.#lanes.set(key, lane);
    }
    return lane;
  }

  #flush(lane: Lane): void {
    lane.timer?.cancel();
    lane.timer = undefined;
    const batch = lane.waiting;
    if (batch.length === 0) return;
    lane.waiting = [];
    lane.bytes = 0;
    lane.run = lane.run
      .then(() => this.#handle(batch))
      .finally(() => {
        this.#pending -= batch.length;
        this.#room?.();
      });
  }

  /** Never rejects. */
  async #handle(batch: readonly Message[]): Promise<void> {
    // A read that was under way while the group shared anew brings what somebody else has now.
    if (this.#ended || !this.#owns(batch[0]!)) return;
    const { log } = this.#init.parts;
    const last = batch[(await this.#tryOn(batch)) - 1];
    if (last === undefined) return;
    try {
      await last.commit();
    } catch (error) {
      log.debug(`${nameOf(last)} is done, but its offset is not kept: ${kafkaText(error)}`);
    }
  }

  /** How many from the beginning are done with, by success or because all tries are used up. */
  async #tryOn(batch: readonly Message[]): Promise<number> {
    const { handler, retry, settings, parts } = this.#init;
    let left = batch;
    for (let tries = 0; ; tries++) {
      const events = left.map((message) => eventOf(message, settings.escapeHeaders));
      const failures = await handler(events, this.#signal);
      const why = kafkaText(failures.find((error) => error !== undefined));
      left = left.filter((_, place) => failures[place] !== undefined);
      const [first] = left;
      if (first === undefined) return batch.length;
      const done = batch.indexOf(first);
      if (this.#signal.aborted) return done;
      const what = left.length === 1 ? nameOf(first) : `${nameOf(first)} with ${left.length - 1} after it`;
      const most = settings.backOffMaxRetries;
      if (!retry || (most >= 0 && tries >= most)) {
        parts.log.error(`${what} was not handled and is given up: ${why}`);
        return batch.length;
      }
      if (this.#ended || !this.#owns(first)) return done;
      parts.log.warn(`${what} was not handled and is tried again: ${why}`);
      await parts.clock.sleep(waitMs(settings, tries), this.#signal).catch(() => {});
      if (this.#ended || this.#signal.aborted) return done;
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

function nameOf({ topic, partition, offset }: Message): string {
  return `message ${offset} of ${topic}/${partition}`;
}

function waitMs(settings: KafkaSettings, tries: number): number {
  if (settings.backOffPolicy === "constant") return settings.backOffDuration;
  return Math.min(settings.backOffInitialInterval * 1.5 ** Math.min(tries, 50), settings.backOffMaxInterval);
}

function eventOf(message: Message, escape: boolean): KafkaMessage {
  const metadata: Record<string, string> = {};
  for (const [name, header] of message.headerEntries) {
    const text = (header as Buffer | null)?.toString() ?? "";
    metadata[name.toString()] = escape ? encodeURIComponent(text) : text;
  }
  // Headers of these names come from another topic, with a dead letter.
  metadata["__topic"] = message.topic;
  metadata["__partition"] = String(message.partition);
  metadata["__offset"] = String(message.offset);
  metadata["__timestamp"] = String(message.timestamp);
  // Absent where a message has none, whatever the library's types say.
  const { key, value } = message as { key?: Buffer | null; value?: Buffer | null };
  if (key !== null && key !== undefined && key.length > 0) metadata["__key"] = key.toString();
  return { topic: message.topic, data: value ?? new Uint8Array(), metadata };
}

/** The first cause, where the library gathered several. */
export function kafkaText(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) {
    return `${error.message} (${kafkaText(error.errors[0])})`;
  }
  return error instanceof Error ? error.message : String(error);
}
