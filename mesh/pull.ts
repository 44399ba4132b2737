/**
 * Pulls one durable group and runs its handlers: asks for as many events as there are free handlers, extends the ack
 * deadline while one runs, acknowledges or asks for redelivery, and recovers from a lost server, consumer or stream.
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import type { JetStream } from "./jetstream.ts";
import type { TopicSubscribeOptions, TopicSubscription } from "./types.ts";

const nanosPerMs = 1_000_000;
/** How long the server holds one pull open, and how often it then says that it is alive, ms. */
const pullExpiresMs = 30_000;
const heartbeatMs = 5_000;
/** Look at the pull and at ack deadlines this often, ms. */
const tickMs = 1_000;
const ack = Buffer.from("+ACK");
const progress = Buffer.from("+WPI");
const refuse = Buffer.from("-NAK");
const terminate = Buffer.from("+TERM");

export type PullTarget = {
  readonly stream: string;
  readonly consumer: string;
  /** Makes sure that stream and consumer exist. */
  readonly create: () => Promise<void>;
};

type RawHandler = (message: Msg, signal: AbortSignal) => Promise<void>;

export class Puller implements TopicSubscription {
  readonly #js: JetStream;
  readonly #target: PullTarget;
  readonly #options: TopicSubscribeOptions;
  readonly #handler: RawHandler;
  readonly #inbox: string;
  readonly #abort = new AbortController();
  /** Reply subjects of events whose handler runs. */
  readonly #running = new Set<string>();
  #subscription: Subscription | undefined;
  #asked = 0;
  #heardMs = 0;
  #extendedMs = 0;
  #timer: Timer | undefined;
  #off: (() => void) | undefined;
  #stopping = false;
  #recovering = false;
  #onIdle: (() => void) | undefined;
  #failures = 0;

  /** `inbox`: a subject of this subscription alone. */
  constructor(js: JetStream, inbox: string, target: PullTarget, options: TopicSubscribeOptions, handler: RawHandler) {
    this.#js = js;
    this.#target = target;
    this.#options = options;
    this.#handler = handler;
    this.#inbox = inbox;
  }

  start(): void {
    const { clock } = this.#js.connection.settings;
    this.#off = this.#js.connection.onChange((connected) => {
      this.#asked = 0;
      if (connected) this.#restart();
    });
    this.#subscription = this.#js.connection.subscribe(this.#inbox, (message) => this.#onMessage(message));
    this.#timer = clock.setInterval(() => this.#tick(), tickMs);
    this.#ask();
  }

  async stop(graceMs: number): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#off?.();
    // Ends the open pull; what arrives until then goes back at once (see #onMessage).
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
    this.#timer?.cancel();
    this.#abort.abort(new Error("the subscription stopped"));
    await this.#js.connection.flush().catch(() => {});
  }

  /** One open pull at a time, topped up when half of the handlers are free. */
  #ask(): void {
    const free = this.#options.concurrency - this.#running.size - this.#asked;
    if (this.#stopping || this.#recovering || !this.#js.connection.connected) return;
    if (free < Math.max(1, this.#options.concurrency >> 1)) return;
    const request = {
      batch: free,
      expires: pullExpiresMs * nanosPerMs,
      idle_heartbeat: heartbeatMs * nanosPerMs,
    };
    this.#asked += free;
    this.#heardMs = this.#js.connection.settings.clock.monotonicMs();
    const subject = `$JS.API.CONSUMER.MSG.NEXT.${this.#target.stream}.${this.#target.consumer}`;
    this.#js.connection.publish(subject, Buffer.from(JSON.stringify(request)), { reply: this.#inbox });
  }

  #onMessage(message: Msg): void {
    this.#heardMs = this.#js.connection.settings.clock.monotonicMs();
    const code = message.headers?.code ?? 0;
    if (code !== 0) return this.#onStatus(code, message);
    this.#asked = Math.max(0, this.#asked - 1);
    if (this.#stopping) return this.#answer(message.reply ?? "", refuse);
    void this.#handle(message);
  }

  #onStatus(code: number, message: Msg): void {
    if (code === 100) return;
    const left = Number(message.headers?.get("Nats-Pending-Messages") ?? "");
    this.#asked = Math.max(0, this.#asked - (Number.isFinite(left) && left > 0 ? left : this.#asked));
    // 404/408: the pull ran out without enough events. Else (409, 503): consumer or stream changed or went away.
    if (code === 404 || code === 408) this.#ask();
    else this.#restart();
  }

  async #handle(message: Msg): Promise<void> {
    const reply = message.reply ?? "";
    this.#running.add(reply);
    try {
      await this.#handler(message, this.#abort.signal);
      this.#answer(reply, ack);
    } catch (error) {
      this.#refuse(reply, error);
    } finally {
      this.#running.delete(reply);
      if (this.#running.size === 0) this.#onIdle?.();
      this.#ask();
    }
  }

  /** Redelivery after the backoff of this delivery; the last allowed delivery ends the event. */
  #refuse(reply: string, error: unknown): void {
    const { deliveries, sequence } = readAckSubject(reply);
    const { backoffMs, maxDeliver, topic } = this.#options;
    const text = error instanceof Error ? error.message : String(error);
    if (maxDeliver > 0 && deliveries >= maxDeliver) {
      this.#js.connection.settings.log("error", `event ${sequence} of ${topic} given up after ${deliveries} deliveries: ${text}`);
      return this.#answer(reply, terminate);
    }
    const delayMs = backoffMs[Math.min(deliveries, backoffMs.length) - 1] ?? 1_000;
    this.#answer(reply, Buffer.from(`-NAK {"delay": ${delayMs * nanosPerMs}}`));
  }

  /** An answer that cannot be sent is the same as none: the event comes again after its ack deadline. */
  #answer(reply: string, answer: Buffer): void {
    try {
      this.#js.connection.publish(reply, answer);
    } catch {
      this.#js.connection.settings.log("debug", `ack lost, NATS is away: ${reply}`);
    }
  }

  #tick(): void {
    const { clock } = this.#js.connection.settings;
    if (!this.#js.connection.connected) return;
    if (clock.monotonicMs() - this.#extendedMs >= this.#options.ackWaitMs / 3) {
      this.#extendedMs = clock.monotonicMs();
      for (const reply of this.#running) this.#answer(reply, progress);
    }
    if (this.#asked > 0 && clock.monotonicMs() - this.#heardMs > 2 * heartbeatMs + tickMs) this.#restart();
    else this.#ask();
  }

  /** The pull was lost with its server or consumer: create what is missing, then ask again. */
  #restart(): void {
    if (this.#recovering || this.#stopping) return;
    this.#recovering = true;
    this.#asked = 0;
    const { clock, log, random } = this.#js.connection.settings;
    void this.#target
      .create()
      .then(() => {
        this.#failures = 0;
      })
      .catch((error: unknown) => {
        this.#failures++;
        log("warn", `group ${this.#target.consumer}: ${String(error)}; trying again`);
      })
      .then(() => clock.sleep(Math.min(50 * 2 ** this.#failures, 5_000) * (0.5 + random()), this.#abort.signal))
      .catch(() => {})
      .then(() => {
        this.#recovering = false;
        if (this.#failures > 0) this.#restart();
        else this.#ask();
      });
  }
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
