/**
 * Topics in the memory of this sidecar: for tests and trying things out. Every subscription gets its own copy of each
 * event and handles one at a time; a publish waits until every subscriber is free to begin with it. Nothing is stored.
 */
import type {
  BrokerMessage,
  MessageHandler,
  PublishMessage,
  PubSub,
  SubscribeRequest,
  Subscription,
} from "../../blocks/pubsub/port.ts";
import type { Clock } from "../../../mesh/index.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";

type Log = ComponentContext["log"];

export const type = "pubsub.in-memory";
export const versions = ["v1"];
export const capabilities = ["SUBSCRIBE_WILDCARDS"];
export const metadataSchema = {} as const satisfies MetadataSchema;

/** Publishes that may wait for one busy subscriber; the next one is refused. */
const maxWaiting = 10_000;

export function open({ clock, log }: ComponentContext<typeof metadataSchema>): Promise<PubSub> {
  return Promise.resolve(new InMemoryPubSub(clock, log));
}

class InMemoryPubSub implements PubSub {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #subscribers = new Set<Subscriber>();

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  async publish(message: PublishMessage, signal: AbortSignal): Promise<void> {
    // A copy: the caller's bytes may be a view into a buffer that is used again.
    const copy = { ...message, data: new Uint8Array(message.data), contentType: undefined };
    const takers = [...this.#subscribers].filter((subscriber) => subscriber.wants(message.topic));
    await Promise.all(takers.map((subscriber) => subscriber.take(copy, signal)));
  }

  subscribe(request: SubscribeRequest, handler: MessageHandler): Promise<Subscription> {
    const subscriber = new Subscriber(request, handler, this.#clock, this.#log);
    this.#subscribers.add(subscriber);
    const stop = (graceMs: number): Promise<void> => {
      this.#subscribers.delete(subscriber);
      return subscriber.stop(graceMs);
    };
    return Promise.resolve({ stop });
  }

  async close(): Promise<void> {
    const all = [...this.#subscribers];
    this.#subscribers.clear();
    await Promise.all(all.map((subscriber) => subscriber.stop(0)));
  }
}

/** A publish that waits for its turn; `begin` lets it go on, whatever becomes of the event. */
type Turn = { readonly message: BrokerMessage; readonly begin: () => void };

class Subscriber {
  readonly #topic: string;
  readonly #handler: MessageHandler;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #waiting = new Set<Turn>();
  readonly #abort = new AbortController();
  readonly #atOnce: number;
  readonly #running = new Set<Promise<void>>();
  #stopped = false;

  constructor({ topic, atOnce = 1 }: SubscribeRequest, handler: MessageHandler, clock: Clock, log: Log) {
    this.#topic = topic;
    this.#atOnce = atOnce;
    this.#handler = handler;
    this.#clock = clock;
    this.#log = log;
  }

  /** A topic that ends in `*` takes every longer topic that begins as it does. */
  wants(topic: string): boolean {
    if (!this.#topic.endsWith("*")) return topic === this.#topic;
    return topic.length >= this.#topic.length && topic.startsWith(this.#topic.slice(0, -1));
  }

  /** Resolves when the handler has begun. */
  take(message: BrokerMessage, signal: AbortSignal): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    if (this.#waiting.size >= maxWaiting) {
      const problem = `${maxWaiting} publishes to topic ${message.topic} already wait for a busy subscriber`;
      return Promise.reject(new Error(`${problem}: publish slower or use a broker that stores events`));
    }
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiting.delete(turn);
        reject(signal.reason as Error);
      };
      const turn: Turn = {
        message,
        begin: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting.add(turn);
      this.#next();
    });
  }

  async stop(graceMs: number): Promise<void> {
    this.#stopped = true;
    for (const turn of this.#waiting) turn.begin();
    this.#waiting.clear();
    const limit = this.#limit(graceMs);
    await Promise.race([Promise.all(this.#running), limit.passed]);
    limit.cancel();
    this.#abort.abort(new Error("the subscription was stopped"));
  }

  #limit(graceMs: number): { passed: Promise<void>; cancel: () => void } {
    if (graceMs === Number.POSITIVE_INFINITY) return { passed: new Promise(() => {}), cancel: () => {} };
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#clock.setTimeout(resolve, graceMs);
    return { passed: promise, cancel: () => timer.cancel() };
  }

  #next(): void {
    for (const turn of this.#waiting) {
      if (this.#running.size >= this.#atOnce) return;
      this.#waiting.delete(turn);
      turn.begin();
      const run = this.#handle(turn.message).finally(() => {
        this.#running.delete(run);
        this.#next();
      });
      this.#running.add(run);
    }
  }

  async #handle(message: BrokerMessage): Promise<void> {
    try {
      await this.#handler(message, this.#abort.signal);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#log.error(`event of topic ${message.topic} failed and is gone: ${text}`);
    }
  }
}
