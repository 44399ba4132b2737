/**
 * Bulk subscriptions: gathers messages of one subscription until there are enough or the first has waited long enough,
 * hands them to the app in one call per path, and gives each its own answer. What follows from an answer is the same
 * as for single events (delivery.ts).
 */
import { asError } from "../../lib/thrown.ts";
import { randomUUID } from "node:crypto";
import type { Timer } from "../../../mesh/index.ts";
import type { Answer } from "./answer.ts";
import { dropLost, retry } from "./answer.ts";
import type { DeliveryParts, Line } from "./delivery.ts";
import { handleLoss, prepare } from "./delivery.ts";
import type { AppEvent } from "./event.ts";
import type { Broker } from "./broker.ts";
import type { BatchHandler, BatchLimits, BrokerMessage, MessageHandler } from "./port.ts";
import { failureOfAll } from "./policy.ts";
import { deliverySpan, endDelivery } from "./trace.ts";

/** Dapr's values where neither the subscription nor the component gives any. */
const defaultLimits: BatchLimits = { maxMessages: 100, maxAwaitMs: 1_000 };
/** A batch never holds more than this, whatever was asked. */
const maxMessages = 10_000;
/** Messages of this size together leave at once, so that a batch stays below what apps accept, bytes. */
const fullBytes = 2 * 1024 * 1024;

/** What holds at a component; of what a subscription asks, 0 and below mean nothing. */
export function limitsAt({ port }: Pick<Broker, "port">, asked: BatchLimits): BatchLimits {
  const common = port.batchLimits ?? defaultLimits;
  return {
    maxMessages: asked.maxMessages > 0 ? Math.min(asked.maxMessages, maxMessages) : common.maxMessages,
    maxAwaitMs: asked.maxAwaitMs > 0 ? asked.maxAwaitMs : common.maxAwaitMs,
  };
}

/** One event of a batch as the app gets it. */
export type BulkItem = {
  readonly entryId: string;
  readonly event: AppEvent;
  readonly message: BrokerMessage;
};

export type BulkEvents = {
  readonly id: string;
  readonly pubsub: string;
  readonly topic: string;
  readonly raw: boolean;
  readonly items: readonly BulkItem[];
};

/** Type of the one envelope around many. */
export const bulkEventType = "com.dapr.event.sent.bulk";

/** Hands a batch to the app. What the app says of each entry, by id; one answer for all of them when it cannot tell. */
export type DeliverBulk = (
  events: BulkEvents,
  path: string,
  signal: AbortSignal,
) => Promise<ReadonlyMap<string, Answer> | Answer>;

/** The handler of one bulk subscription at its broker. */
export function createBulkHandler(
  parts: DeliveryParts,
  line: Line,
  limits: BatchLimits,
  deliver: DeliverBulk,
): MessageHandler {
  const batches = new Batches(parts, line, limits, deliver, createRecord(parts));
  return (message, signal) => batches.add(message, signal);
}

/** The handler of a bulk subscription whose broker makes the batches. */
export function createBatchHandler(
  parts: DeliveryParts,
  line: Line,
  limits: BatchLimits,
  deliver: DeliverBulk,
): BatchHandler {
  const batches = new Batches(parts, line, limits, deliver, createRecord(parts));
  return (messages, signal) => batches.handle(messages, signal);
}

type Waiting = {
  readonly message: BrokerMessage;
  readonly signal: AbortSignal;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
};

type Record = (answers: readonly Answer[], component: string, topic: string, latencyMs: number) => void;

class Batches {
  readonly #parts: DeliveryParts;
  readonly #line: Line;
  readonly #limits: BatchLimits;
  readonly #deliver: DeliverBulk;
  readonly #record: Record;
  #waiting: Waiting[] = [];
  #sizeBytes = 0;
  #timer: Timer | undefined;

  constructor(parts: DeliveryParts, line: Line, limits: BatchLimits, deliver: DeliverBulk, record: Record) {
    this.#parts = parts;
    this.#line = line;
    this.#limits = limits;
    this.#deliver = deliver;
    this.#record = record;
  }

  /** Settles when the message's batch is done: as the handler of a single message does. */
  add(message: BrokerMessage, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ message, signal, resolve, reject });
      this.#sizeBytes += message.data.length;
      const { maxMessages: enough, maxAwaitMs } = this.#limits;
      const full = this.#waiting.length >= enough || this.#sizeBytes >= fullBytes;
      if (full || this.#line.broker.immediateBulk) return this.#flush();
      this.#timer ??= this.#parts.clock.setTimeout(() => this.#flush(), maxAwaitMs);
    });
  }

  /** Never rejects. */
  async handle(
    messages: readonly BrokerMessage[],
    signal: AbortSignal,
  ): Promise<readonly (Error | undefined)[]> {
    const failures = new Array<Error | undefined>(messages.length);
    const batch = messages.map((message, index) => ({
      message,
      signal,
      resolve: () => {},
      reject: (error: unknown) => void (failures[index] = asError(error)),
    }));
    await this.#run(batch);
    return failures;
  }

  #flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const batch = this.#waiting;
    this.#waiting = [];
    this.#sizeBytes = 0;
    if (batch.length > 0) void this.#run(batch);
  }

  async #run(batch: readonly Waiting[]): Promise<void> {
    const startMs = this.#parts.clock.monotonicMs();
    const signal = AbortSignal.any([...new Set(batch.map((waiting) => waiting.signal))]);
    const answers = await this.#answers(batch, signal);
    const { broker, subscription } = this.#line;
    this.#record(answers, broker.name, subscription.topic, this.#parts.clock.monotonicMs() - startMs);
    await Promise.all(batch.map((waiting, index) => this.#settle(waiting, answers[index]!)));
  }

  async #settle({ message, signal, resolve, reject }: Waiting, answer: Answer): Promise<void> {
    try {
      if (answer.kind !== "success") await handleLoss(this.#parts, this.#line, message, answer, signal);
      resolve();
    } catch (error) {
      reject(error);
    }
  }

  /** One answer per message. Those that cannot be read, are outdated or wanted by no rule never reach the app. */
  async #answers(batch: readonly Waiting[], signal: AbortSignal): Promise<Answer[]> {
    const answers = new Array<Answer | undefined>(batch.length);
    const byPath = new Map<string, { index: number; item: BulkItem }[]>();
    for (const [index, { message }] of batch.entries()) {
      const ready = prepare(this.#parts, this.#line, message);
      if ("kind" in ready) {
        answers[index] = ready;
        continue;
      }
      const item = { entryId: randomUUID(), event: ready.event, message };
      const group = byPath.get(ready.path);
      if (group === undefined) byPath.set(ready.path, [{ index, item }]);
      else group.push({ index, item });
    }
    await Promise.all(
      [...byPath].map(async ([path, group]) => {
        const items = group.map(({ item }) => item);
        const given = await this.#sendAll(path, items, signal);
        for (const { index, item } of group) answers[index] = given.get(item.entryId);
      }),
    );
    return answers.map((answer) => answer ?? dropLost);
  }

  /** The answer of each entry. Under a policy of the component, only those are sent again that failed. */
  async #sendAll(
    path: string,
    items: readonly BulkItem[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, Answer>> {
    const answers = new Map<string, Answer>();
    let left = items;
    const attempt = async (now: AbortSignal): Promise<readonly Answer[]> => {
      const given = await this.#send(path, left, now);
      // What comes after the time of this attempt is of no use: the entries are on their way again.
      if (now.aborted && !signal.aborted) return [];
      for (const { entryId } of left) answers.set(entryId, given(entryId));
      left = left.filter(({ entryId }) => answers.get(entryId)!.kind === "retry");
      return left.map(({ entryId }) => answers.get(entryId)!);
    };
    const { policy } = this.#line.broker.inbound;
    try {
      await (policy === undefined ? attempt(signal) : policy.run(attempt, { signal, judge: failureOfAll }));
    } catch (error) {
      const stopped = retry(asError(error));
      for (const { entryId } of left) answers.set(entryId, stopped);
    }
    return answers;
  }

  async #send(
    path: string,
    items: readonly BulkItem[],
    signal: AbortSignal,
  ): Promise<(id: string) => Answer> {
    const spans = items.map(({ event }) => deliverySpan(this.#parts.tracing.tracer, event));
    const answerOf = await this.#ask(path, items, signal);
    for (const [i, span] of spans.entries())
      if (span !== undefined) endDelivery(span, answerOf(items[i]!.entryId));
    return answerOf;
  }

  async #ask(path: string, items: readonly BulkItem[], signal: AbortSignal): Promise<(id: string) => Answer> {
    const { broker, subscription, raw } = this.#line;
    const { topic } = subscription;
    const events = { id: randomUUID(), pubsub: broker.name, topic, raw: raw === true, items };
    try {
      const given = await this.#deliver(events, path, signal);
      if ("kind" in given) return () => given;
      return (id) => given.get(id) ?? retry("the app's answer does not name this entry");
    } catch (error) {
      const failed = retry(asError(error));
      return () => failed;
    }
  }
}

function createRecord({ metrics, namespace }: DeliveryParts): Record {
  const labels = ["component", "namespace", "process_status", "topic"];
  const name = "component_pubsub_ingress_bulk";
  const count = metrics.count(`${name}_count`, "Bulk deliveries to the app.", labels);
  const events = metrics.count(`${name}_event_count`, "Bulk deliveries with events of this outcome.", labels);
  const latency = metrics.latency(`${name}_latencies`, "Time the app took for a bulk delivery, ms.", labels);
  return (answers, component, topic, latencyMs) => {
    const kinds = new Set(answers.map(({ kind }) => kind));
    const whole = kinds.has("retry") ? "retry" : kinds.has("success") ? "success" : "drop";
    count(component, namespace, whole, topic);
    latency(latencyMs, component, namespace, whole, topic);
    for (const kind of kinds) events(component, namespace, kind, topic);
  };
}
