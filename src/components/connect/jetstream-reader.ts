/**
 * Reads a consumer of JetStream for a component: a number of handlers at once, answers by their outcome, deadlines
 * extended for all that is in hand, and a way back after the server, the consumer or the stream was lost.
 */
import type { Subscription } from "@nats-io/transport-node";
import type { Clock, Timer } from "../../../mesh/index.ts";
import { textOf } from "../../lib/thrown.ts";
import type { Log } from "../../telemetry/log.ts";
import { withDeadline } from "./deadline.ts";
import {
  type Consumer,
  type ConsumerWish,
  ensureConsumer,
  hasConsumer,
  type Place,
  removeConsumer,
  streamCreated,
} from "./jetstream-consumer.ts";
import type { JetStream } from "./jetstream.ts";
import { endSubscription, type NatsMessage } from "./nats.ts";

export type JetStreamHandler = (message: NatsMessage, signal: AbortSignal) => Promise<void>;

export type JetStreamReading = {
  /** Hands over nothing new and waits up to `graceMs` for handlers; what was not handled goes back. */
  stop(graceMs: number): Promise<void>;
};

export type ReaderOptions = {
  readonly js: JetStream;
  readonly wish: ConsumerWish;
  /** Handlers at once. */
  readonly concurrency: number;
  /** Wait before a message that failed at this delivery (1, 2, …) comes again, ms; 0: at once. */
  readonly retryMs: (deliveries: number) => number;
  readonly handler: JetStreamHandler;
  readonly clock: Clock;
  readonly log: Log;
};

/** Messages in hand, running or waiting; more of a consumer without limits is left to the ack deadline. */
const maxHeld = 65_536;
/** Times between two looks whether the consumer is still there, and of a pull, ms. */
const checkMs = 30_000;
const pullMs = 20_000;
const pullSignMs = 5_000;
const firstWaitMs = 1_000;
/** Longest wait for the last answers to leave, ms. */
const flushMs = 2_000;
const minTickMs = 50;
const nanosPerMs = 1e6;

const ack = "+ACK";
const progress = "+WPI";
const refuse = "-NAK";

/** Resolves when the consumer is there and read. Rejects when it cannot be had. */
export async function readJetStream(options: ReaderOptions): Promise<JetStreamReading> {
  const reader = new Reader(options);
  await reader.start();
  return reader;
}

class Reader implements JetStreamReading {
  readonly #options: ReaderOptions;
  readonly #stopped = new AbortController();
  /** Messages in hand by their number, with the subject that takes the answer to the latest delivery of each. */
  readonly #held = new Map<number, string>();
  readonly #runs = new Set<Promise<void>>();
  #waiting: NatsMessage[] = [];
  #consumer: Consumer | undefined;
  #created = "";
  #subscription: Subscription | undefined;
  /** Numbers that are not done with, failed ones too, and the first one after all that were seen. */
  readonly #open = new Set<number>();
  #next = 0;
  /** Messages asked for by pulls that have not come, and when a pull was heard of last. */
  #asked = 0;
  #heardMs = 0;
  #running = 0;
  #left = 0;
  #stopping = false;
  #timers: Timer[] = [];
  #off: (() => void) | undefined;
  #looking = false;
  #ending: Promise<void> | undefined;

  constructor(options: ReaderOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    await this.#attach();
    const { clock, js } = this.#options;
    this.#off = js.link.onReturn(() => {
      this.#asked = 0;
      this.#look();
    });
    const tickMs = Math.max(minTickMs, Math.min(this.#consumer!.ackWaitMs / 3, pullSignMs));
    this.#timers = [
      clock.setInterval(() => this.#tick(), tickMs),
      clock.setInterval(() => this.#look(), checkMs),
    ];
  }

  stop(graceMs: number): Promise<void> {
    this.#ending ??= this.#stop(graceMs);
    return this.#ending;
  }

  async #stop(graceMs: number): Promise<void> {
    const { clock, js, wish } = this.#options;
    this.#stopping = true;
    this.#off?.();
    const limit = Promise.withResolvers<void>();
    const late = clock.setTimeout(limit.resolve, graceMs);
    await Promise.race([endSubscription(this.#subscription!, js.link), limit.promise]);
    for (const { reply = "" } of this.#waiting.splice(0)) this.#refuse(readAckSubject(reply).sequence, 0);
    await Promise.race([Promise.all(this.#runs), limit.promise]);
    late.cancel();
    this.#stopped.abort(new Error("the subscription has ended"));
    // What still runs goes to another one now; its own answer would come too late.
    for (const sequence of this.#held.keys()) this.#refuse(sequence, 0);
    for (const timer of this.#timers) timer.cancel();
    if (!js.link.connected()) return;
    if (wish.durable === undefined) await removeConsumer(js, this.#consumer!).catch(() => {});
    await withDeadline(js.link.client.flush(), "nats", flushMs, clock).catch(() => {});
  }

  /** Finds or makes the consumer and begins to read it. */
  async #attach(from?: Place): Promise<void> {
    const { js, wish, log } = this.#options;
    const inbox = js.link.newInbox();
    const consumer = await ensureConsumer(js, wish, inbox, log, from);
    this.#created = await streamCreated(js, consumer.stream);
    if (this.#stopping) return;
    this.#consumer = consumer;
    this.#read(inbox);
  }

  #read(inbox: string): void {
    const { deliverSubject, deliverGroup } = this.#consumer!;
    const { link } = this.#options.js;
    const subject = deliverSubject ?? inbox;
    this.#subscription?.unsubscribe();
    this.#asked = 0;
    const callback = (error: Error | null, message: NatsMessage): void => {
      // A throw here would end the connection's reader.
      try {
        if (error === null) this.#onMessage(message);
        else this.#options.log.error(`nats: ${subject}: ${error.message}`);
      } catch (thrown) {
        this.#options.log.error(`nats: ${subject}: ${textOf(thrown)}`);
      }
    };
    const queue = deliverGroup === undefined ? {} : { queue: deliverGroup };
    this.#subscription = link.client.subscribe(subject, { callback, ...queue });
    this.#pull();
  }

  /** Asks a pull consumer for as much as there are free handlers. */
  #pull(): void {
    const { js, concurrency, clock } = this.#options;
    const { stream, name, deliverSubject } = this.#consumer!;
    const free = concurrency - this.#running - this.#waiting.length - this.#asked;
    if (deliverSubject !== undefined || this.#stopping || !js.link.connected()) return;
    if (free < Math.max(1, concurrency >> 1)) return;
    const request = { batch: free, expires: pullMs * nanosPerMs, idle_heartbeat: pullSignMs * nanosPerMs };
    const reply = this.#subscription!.getSubject();
    js.pull(stream, name, request, reply);
    this.#asked += free;
    this.#heardMs = clock.monotonicMs();
  }

  #onMessage(message: NatsMessage): void {
    this.#heardMs = this.#options.clock.monotonicMs();
    const { reply = "", headers } = message;
    if (headers !== undefined && headers.code > 0 && message.data.length === 0)
      return this.#onStatus(headers.code, reply, headers.get("Nats-Consumer-Stalled"));
    if (this.#asked > 0) this.#asked -= 1;
    if (this.#stopping) return this.#send(reply, refuse);
    const sequence = readAckSubject(reply).sequence;
    const again = this.#held.has(sequence);
    if (!again && this.#held.size >= maxHeld) return this.#leave();
    this.#held.set(sequence, reply);
    // Delivered again because progress was lost with the connection: it is being handled.
    if (again) return;
    this.#keepOpen(sequence);
    this.#next = Math.max(this.#next, sequence + 1);
    this.#waiting.push(message);
    this.#run();
  }

  /** Too many are in hand. What wants an answer comes again. */
  #leave(): void {
    if (this.#consumer!.acks || this.#left++ % maxHeld !== 0) return;
    const { log, wish } = this.#options;
    log.warn(`nats: ${wish.subject}: ${maxHeld} messages wait; more are lost, as ackPolicy none has it`);
  }

  /** 100: a sign of life, or the wish of the server to hear that all before it has come. */
  #onStatus(code: number, reply: string, stalled: string): void {
    if (code === 100) {
      const answer = reply || stalled;
      if (answer !== "") this.#send(answer, "");
      return;
    }
    this.#asked = 0;
    if (code === 404 || code === 408) return this.#pull();
    this.#look();
  }

  #run(): void {
    while (this.#running < this.#options.concurrency) {
      const message = this.#waiting.shift();
      if (message === undefined) return;
      this.#running += 1;
      const run = this.#handle(message).finally(() => {
        this.#runs.delete(run);
        this.#running -= 1;
        if (this.#stopping) return;
        this.#run();
        this.#pull();
      });
      this.#runs.add(run);
    }
  }

  /** Never rejects. */
  async #handle(message: NatsMessage): Promise<void> {
    const { handler, log, retryMs: delayMs } = this.#options;
    const { sequence, deliveries } = readAckSubject(message.reply ?? "");
    try {
      await handler(message, this.#stopped.signal);
      this.#send(this.#held.get(sequence) ?? "", ack);
      this.#open.delete(sequence);
      this.#held.delete(sequence);
    } catch (error) {
      log.debug(`message ${sequence} of ${message.subject} was not handled: ${textOf(error)}`);
      this.#refuse(sequence, this.#stopping ? 0 : delayMs(deliveries));
    }
  }

  #refuse(sequence: number, delayMs: number): void {
    const reply = this.#held.get(sequence) ?? "";
    this.#held.delete(sequence);
    if (!this.#consumer!.acks) this.#open.delete(sequence);
    this.#send(reply, delayMs > 0 ? `${refuse} {"delay": ${delayMs * nanosPerMs}}` : refuse);
  }

  /** Those that the server has given up stay; the oldest of too many is forgotten. */
  #keepOpen(sequence: number): void {
    this.#open.add(sequence);
    if (this.#open.size <= maxHeld) return;
    for (const oldest of this.#open) return void this.#open.delete(oldest);
  }

  /** An answer that cannot be sent is the same as none: the message comes again after its deadline. */
  #send(subject: string, text: string): void {
    const { js, log } = this.#options;
    if (subject === "") return;
    try {
      js.link.client.publish(subject, text);
    } catch (error) {
      log.debug(`nats: ${textOf(error)}`);
    }
  }

  #tick(): void {
    const { clock, js } = this.#options;
    if (!js.link.connected()) return;
    if (this.#consumer!.acks) for (const reply of this.#held.values()) this.#send(reply, progress);
    if (this.#consumer!.deliverSubject !== undefined) return;
    if (this.#asked === 0 || clock.monotonicMs() - this.#heardMs <= 2 * pullSignMs) return this.#pull();
    this.#asked = 0;
    this.#look();
  }

  /** Whether the consumer is still there; if not, another takes its place. One look at a time. */
  #look(): void {
    if (this.#stopping || this.#looking) return;
    this.#looking = true;
    void this.#restore().finally(() => (this.#looking = false));
  }

  async #restore(): Promise<void> {
    const { clock, js, log } = this.#options;
    for (let waitMs = firstWaitMs; !this.#stopping; waitMs = Math.min(waitMs * 2, checkMs)) {
      try {
        if (!(await hasConsumer(js, this.#consumer!))) {
          log.warn(`nats: consumer ${this.#consumer!.name} is gone; it is made again`);
          await this.#attach(this.#place());
        } else this.#pull();
        return;
      } catch (error) {
        log.warn(`nats: ${textOf(error)}; trying again`);
      }
      await clock.sleep(waitMs, this.#stopped.signal).catch(() => {});
    }
  }

  /** The oldest message that is not done with, else the one after the last; undefined before the first. */
  #place(): Place | undefined {
    if (this.#next === 0) return undefined;
    let sequence = this.#next;
    for (const open of this.#open) sequence = Math.min(sequence, open);
    return { created: this.#created, sequence };
  }
}

/**
 * Place and history of a message, from its ack subject: `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.…`, or the
 * longer form with domain and account.
 */
export function readAckSubject(reply: string): {
  stream: string;
  deliveries: number;
  sequence: number;
  timestampMs: number;
} {
  const tokens = reply.split(".");
  const at = tokens.length >= 11 ? 4 : 2;
  return {
    stream: tokens[at] ?? "",
    deliveries: Number(tokens[at + 2]),
    sequence: Number(tokens[at + 3]),
    timestampMs: Math.floor(Number(tokens[at + 5]) / nanosPerMs),
  };
}
