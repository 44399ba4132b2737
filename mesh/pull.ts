/**
 * Pulls one durable group and runs its handlers: asks for as many events as there are free handlers, extends the ack
 * deadline while one runs, acknowledges or asks for redelivery, and recovers from a lost server, consumer or stream.
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import { textOf } from "./errors.ts";
import { headerText, headerValue, statusOf, statusWords } from "./headers.ts";
import type { JetStream } from "./jetstream.ts";
import type { TopicSubscribeOptions, TopicSubscription } from "./types.ts";

const nanosPerMs = 1_000_000;
/**
 * How long the server holds one pull open, and how often it then says that it is alive, ms. A server that deletes a
 * stream does not always say so to those who wait; then the second missing sign tells.
 */
const pullExpiresMs = 30_000;
const heartbeatMs = 2_000;
/** Longest and shortest time between two looks at the pull and at ack deadlines, ms. */
const maxTickMs = 1_000;
const minTickMs = 50;
/** Waits before a lost pull is asked for again, ms: the first, doubled each time, and the longest. */
const firstWaitMs = 50;
const maxWaitMs = 5_000;
const defaultBackoffMs = 1_000;
const ack = Buffer.from("+ACK");
const progress = Buffer.from("+WPI");
const refuse = Buffer.from("-NAK");
const terminate = Buffer.from("+TERM");

export type PullTarget = {
  readonly stream: string;
  readonly consumer: string;
  /** Makes sure that stream and consumer exist. Resolves with the consumer's ack deadline, ms. */
  readonly create: () => Promise<number>;
  /** Topic of a subject, for logs; absent: the one of the options. */
  readonly topicOf?: (subject: string) => string;
};

/** A handler throws it to have the event delivered again after so long, however often it has been delivered. */
export class HandedBack extends Error {
  readonly delayMs: number;

  constructor(delayMs: number) {
    super("handed back");
    this.delayMs = delayMs;
  }
}

type RawHandler = (message: Msg, signal: AbortSignal) => Promise<void>;

export class Puller implements TopicSubscription {
  readonly #js: JetStream;
  readonly #target: PullTarget;
  readonly #options: TopicSubscribeOptions;
  readonly #handler: RawHandler;
  readonly #inboxBase: string;
  readonly #abort = new AbortController();
  /** Reply subjects of events whose handler runs. */
  readonly #running = new Set<string>();
  /** The subscription of the pulls that count now; what comes for earlier ones goes back. */
  #subscription: Subscription | undefined;
  #inbox = "";
  #generation = 0;
  #asked = 0;
  #heardMs = 0;
  #extendedMs = 0;
  #ackWaitMs = 0;
  #timer: Timer | undefined;
  #off: (() => void) | undefined;
  #stopped: Promise<void> | undefined;
  #stopping = false;
  #recovering = false;
  /** Recoveries since the last sign of life. */
  #recoveries = 0;
  #onIdle: (() => void) | undefined;

  /** `inbox`: a subject of this subscription alone. */
  constructor(
    js: JetStream,
    inbox: string,
    target: PullTarget,
    options: TopicSubscribeOptions,
    handler: RawHandler,
  ) {
    this.#js = js;
    this.#target = target;
    this.#options = options;
    this.#handler = handler;
    this.#inboxBase = inbox;
  }

  /** `ackWaitMs` as `target.create` gave it. */
  start(ackWaitMs: number): void {
    const { connection } = this.#js;
    const { clock } = connection.settings;
    this.#ackWaitMs = ackWaitMs;
    this.#off = connection.onChange((connected) => {
      if (connected) this.#reopen();
      else if (connection.closed) this.#release();
      else this.#unsubscribe();
    });
    this.#extendedMs = clock.monotonicMs();
    const tickMs = Math.max(minTickMs, Math.min(maxTickMs, ackWaitMs / 4));
    this.#timer = clock.setInterval(() => this.#tick(), tickMs);
    this.#reopen();
  }

  stop(graceMs: number): Promise<void> {
    this.#stopped ??= this.#stop(graceMs);
    return this.#stopped;
  }

  /** Gives back the event of this reply subject; what its handler says later does not count. */
  giveBack(reply: string): void {
    if (this.#running.delete(reply)) this.#answer(reply, refuse);
  }

  async #stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    this.#off?.();
    // Ends the open pulls; what arrives until then goes back at once (see #onMessage).
    await this.#subscription?.drain().catch(() => {});
    const { clock } = this.#js.connection.settings;
    if (this.#running.size > 0) {
      await new Promise<void>((resolve) => {
        const limit = clock.setTimeout(resolve, graceMs);
        this.#onIdle = () => {
          limit.cancel();
          resolve();
        };
      });
    }
    // What still runs goes to another member now; its own answer would come too late.
    for (const reply of this.#running) this.#answer(reply, refuse);
    this.#release();
    await this.#js.connection.flush();
  }

  #release(): void {
    this.#stopping = true;
    this.#running.clear();
    this.#timer?.cancel();
    this.#off?.();
    this.#abort.abort(new Error("the subscription stopped"));
  }

  /** Begins anew on an inbox of its own, so that the server drops pulls of which this side lost count. */
  #reopen(): void {
    if (this.#stopping || this.#recovering || !this.#js.connection.connected) return;
    this.#unsubscribe();
    const generation = ++this.#generation;
    this.#inbox = `${this.#inboxBase}.${generation}`;
    this.#subscription = this.#js.connection.subscribe(this.#inbox, (message) =>
      this.#onMessage(message, generation),
    );
    this.#ask();
  }

  #unsubscribe(): void {
    this.#asked = 0;
    // Messages on their way still arrive, to be given back. While NATS is away there are none.
    this.#subscription?.drain().catch(() => {});
    this.#subscription = undefined;
  }

  /** Asks when half of the handlers are free. */
  #ask(): void {
    const { connection } = this.#js;
    const { concurrency } = this.#options;
    const free = concurrency - this.#running.size - this.#asked;
    if (this.#stopping || this.#recovering || this.#subscription === undefined || !connection.connected)
      return;
    if (free < Math.max(1, concurrency >> 1)) return;
    const request = {
      batch: free,
      expires: pullExpiresMs * nanosPerMs,
      idle_heartbeat: heartbeatMs * nanosPerMs,
    };
    const subject = `$JS.API.CONSUMER.MSG.NEXT.${this.#target.stream}.${this.#target.consumer}`;
    connection.publish(subject, Buffer.from(JSON.stringify(request)), this.#inbox);
    this.#asked += free;
    this.#heardMs = connection.settings.clock.monotonicMs();
  }

  #onMessage(message: Msg, generation: number): void {
    const { reply } = message;
    const isEvent = reply !== undefined && reply !== "";
    if (generation !== this.#generation || this.#stopping) {
      if (isEvent) this.#answer(reply, refuse);
      return;
    }
    this.#heardMs = this.#js.connection.settings.clock.monotonicMs();
    if (!isEvent) return this.#onStatus(headerText(message));
    this.#recoveries = 0;
    this.#asked = Math.max(0, this.#asked - 1);
    void this.#handle(message, reply);
  }

  #onStatus(headers: string): void {
    const status = statusOf(headers);
    if (status === 100) return;
    if (status !== 404 && status !== 408) {
      // 409, 503: consumer or stream changed, moved or went away.
      const { log } = this.#js.connection.settings;
      log("debug", `group ${this.#target.consumer}: pull ended by ${status} ${statusWords(headers)}`);
      return void this.#recover();
    }
    // The pull ran out; the server says how many events short.
    const missing = Number(headerValue(headers, "Nats-Pending-Messages"));
    this.#recoveries = 0;
    this.#asked = missing > 0 ? Math.max(0, this.#asked - missing) : 0;
    this.#ask();
  }

  /** Never rejects. */
  async #handle(message: Msg, reply: string): Promise<void> {
    this.#running.add(reply);
    try {
      await this.#handler(message, this.#abort.signal);
      if (this.#running.has(reply)) this.#answer(reply, ack);
    } catch (error) {
      if (this.#running.has(reply)) this.#refuse(message.subject, reply, error);
    }
    this.#running.delete(reply);
    if (this.#running.size === 0) this.#onIdle?.();
    this.#guarded(() => this.#ask());
  }

  /** Redelivery after the backoff of this delivery; the last allowed delivery ends the event. */
  #refuse(subject: string, reply: string, error: unknown): void {
    if (error instanceof HandedBack) return this.#answer(reply, refusal(error.delayMs));
    const { deliveries, sequence } = readAckSubject(reply);
    const { backoffMs, maxDeliver } = this.#options;
    if (maxDeliver > 0 && deliveries >= maxDeliver) {
      const { log } = this.#js.connection.settings;
      const topic = this.#target.topicOf?.(subject) ?? this.#options.topic;
      log("error", `event ${sequence} of ${topic} given up after ${deliveries} deliveries: ${textOf(error)}`);
      return this.#answer(reply, terminate);
    }
    const delayMs = backoffMs[Math.min(deliveries, backoffMs.length) - 1] ?? defaultBackoffMs;
    this.#answer(reply, refusal(delayMs));
  }

  /** An answer that cannot be sent is the same as none: the event comes again after its ack deadline. */
  #answer(reply: string, answer: Buffer): void {
    this.#guarded(() => this.#js.connection.publish(reply, answer));
  }

  #guarded(send: () => void): void {
    try {
      send();
    } catch (error) {
      this.#js.connection.settings.log("debug", `group ${this.#target.consumer}: ${textOf(error)}`);
    }
  }

  #tick(): void {
    const { clock } = this.#js.connection.settings;
    if (!this.#js.connection.connected) return;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#extendedMs >= this.#ackWaitMs / 3) {
      this.#extendedMs = nowMs;
      for (const reply of this.#running) this.#answer(reply, progress);
    }
    if (this.#asked > 0 && nowMs - this.#heardMs > 2 * heartbeatMs + maxTickMs) void this.#recover();
    else this.#guarded(() => this.#ask());
  }

  /** The pull was lost with its server or consumer: creates what is missing, then asks again. Never rejects. */
  async #recover(): Promise<void> {
    if (this.#recovering || this.#stopping) return;
    this.#recovering = true;
    this.#unsubscribe();
    const { clock, log, random } = this.#js.connection.settings;
    for (let created = false; !created && !this.#stopping;) {
      const waitMs = Math.min(firstWaitMs * 2 ** this.#recoveries++, maxWaitMs) * (0.5 + random());
      await clock.sleep(waitMs, this.#abort.signal).catch(() => {});
      if (this.#stopping) break;
      try {
        this.#ackWaitMs = await this.#target.create();
        created = true;
      } catch (error) {
        log("warn", `group ${this.#target.consumer}: ${textOf(error)}; trying again`);
      }
    }
    this.#recovering = false;
    this.#guarded(() => this.#reopen());
  }
}

function refusal(delayMs: number): Buffer {
  return Buffer.from(`-NAK {"delay": ${Math.round(delayMs * nanosPerMs)}}`);
}

/** Position and history of a delivered message, from its ack subject. */
export function readAckSubject(reply: string): { deliveries: number; sequence: number; timestampMs: number } {
  const tokens = reply.split(".");
  // `$JS.ACK.<stream>.<consumer>.…` or, newer, `$JS.ACK.<domain>.<account>.<stream>.<consumer>.…`
  const first = tokens.length >= 11 ? 6 : 4;
  return {
    deliveries: Number(tokens[first]),
    sequence: Number(tokens[first + 1]),
    timestampMs: Math.floor(Number(tokens[first + 3]) / nanosPerMs),
  };
}
