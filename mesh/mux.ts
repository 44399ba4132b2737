/**
 * Our own reply multiplexer: one wildcard inbox, one map, one coarse sweep for deadlines. The client's built-in
 * request costs 2-4 times as much (see docs/decisions). Used by calls, KV, JetStream publishes and pulls.
 */
import type { Msg } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import type { MeshConnection } from "./connection.ts";
import { MeshError, cancelledBy } from "./errors.ts";
import { type EncodedHeaders, headerText, statusOf } from "./headers.ts";
import type { Peer } from "./peers.ts";

/** How often deadlines are looked at, ms; a deadline is late by at most this. */
const sweepMs = 50;
/** A sweep that is later than this means that this process stood still; what peers said meanwhile is still unread. */
const stallMs = 1_000;
/** After this long without any message `onQuiet` is called, ms: some more than peers take to show life first. */
const quietMs = 1_500;
/** Requests waiting at once; more are refused. */
const maxPending = 50_000;

/** `done` ends the request with the result, `more` keeps it open (and is a sign of life). */
export type Step<T> = { readonly done: T } | "more";

/** Takes over a request whose answer goes on after the promise has resolved. Must not throw. */
export type Follower = {
  onMessage(message: Msg): void;
  /** The caller gave up, the peer fell silent, or NATS went away. The request is forgotten. */
  onFail(error: MeshError): void;
};

/** A call under way, as peers.ts sees it. */
export type Watched = {
  readonly replySubject: string;
  /** The instance that serves it, once it is known. */
  peer: Peer | undefined;
  /** False once it has an answer or has failed. */
  readonly waits: boolean;
  /** Ends the request with this error. */
  fail(error: MeshError): void;
  /** To be told again when it goes on being silent. */
  askAgain(): void;
};

/** A request that waits, as its reader may handle it. */
export type Waiting = Watched & {
  readonly replySubject: string;
  /** From now on all messages and failures go here, without a deadline; the reader still resolves with `done`. */
  follow(follower: Follower): void;
  /** Forgets a request that is followed. */
  end(): void;
};

export type MuxOptions<T> = {
  readonly headers?: EncodedHeaders | undefined;
  /** Longest time until the end, ms; 0 = none. */
  readonly timeoutMs: number;
  /** Longest time between two messages of the peer, ms; 0 = none. */
  readonly idleMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Reads one reply; a throw rejects the request. */
  readonly read: (message: Msg, waiting: Waiting) => Step<T>;
  /** Called when nothing at all was heard for some time. Must not throw. */
  readonly onQuiet?: (waiting: Waiting) => void;
  /** Called with the reply subject when the caller gives up or times out, to tell the peer. Must not throw. */
  readonly onGiveUp?: (replySubject: string) => void;
};

class Pending<T> implements Waiting {
  readonly mux: Mux;
  readonly token: string;
  readonly subject: string;
  readonly options: MuxOptions<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
  deadlineMs: number;
  aliveMs: number;
  onAbort: (() => void) | undefined;
  follower: Follower | undefined;
  peer: Peer | undefined;
  waits = true;
  quietUntilMs: number;

  constructor(
    mux: Mux,
    token: string,
    subject: string,
    options: MuxOptions<T>,
    nowMs: number,
    resolve: (value: T) => void,
    reject: (error: unknown) => void,
  ) {
    this.mux = mux;
    this.token = token;
    this.subject = subject;
    this.options = options;
    this.resolve = resolve;
    this.reject = reject;
    this.deadlineMs = options.timeoutMs > 0 ? nowMs + options.timeoutMs : Number.POSITIVE_INFINITY;
    this.aliveMs = nowMs;
    this.quietUntilMs = nowMs + quietMs;
  }

  get replySubject(): string {
    return this.mux.prefix + this.token;
  }

  follow(follower: Follower): void {
    this.follower = follower;
    this.deadlineMs = Number.POSITIVE_INFINITY;
  }

  end(): void {
    this.mux.forget(this.token, this as unknown as Pending<never>);
  }

  fail(error: MeshError): void {
    if (!this.waits) return;
    this.end();
    if (this.follower === undefined) this.reject(error);
    else this.follower.onFail(error);
  }

  askAgain(): void {
    this.quietUntilMs = this.mux.nowMs + quietMs;
  }

  /** Nothing has been heard so far, for long enough to ask why. */
  quiet(nowMs: number): boolean {
    if (nowMs < this.quietUntilMs || this.options.onQuiet === undefined) return false;
    return this.peer === undefined && this.follower === undefined;
  }

  /** Why the request is over at this time; undefined while it may go on. */
  overdue(nowMs: number): MeshError | undefined {
    if (nowMs >= this.deadlineMs)
      return new MeshError("timeout", `no answer within ${this.options.timeoutMs} ms`);
    const idleMs = this.options.idleMs ?? 0;
    if (idleMs > 0 && nowMs - this.aliveMs >= idleMs) {
      return new MeshError("timeout", `the peer showed no sign of life for ${idleMs} ms`);
    }
    return undefined;
  }
}

export class Mux {
  readonly #connection: MeshConnection;
  /** Of all reply subjects. */
  readonly prefix: string;
  readonly #pending = new Map<string, Pending<never>>();
  #subscribed = false;
  #next = 0;
  #sweep: Timer | undefined;
  #sweptMs = 0;

  constructor(connection: MeshConnection) {
    this.#connection = connection;
    this.prefix = `${connection.settings.inbox}.`;
    connection.onChange((connected) => {
      if (connected) this.#subscribe();
      else this.#rejectAll(connection.closed ? "closed" : "interrupted");
    });
    connection.onRefusal((subject, reason) => this.#rejectRefused(subject, reason));
  }

  /** Requests that wait now; for tests and diagnostics. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  get nowMs(): number {
    return this.#connection.settings.clock.monotonicMs();
  }

  /** A fresh reply subject's token is never reused by this mux. */
  request<T>(subject: string, payload: Uint8Array, options: MuxOptions<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const { signal } = options;
      if (signal?.aborted) return reject(cancelledBy(signal));
      if (this.#pending.size >= maxPending) {
        return reject(new MeshError("disconnected", `${maxPending} requests are already waiting for NATS`));
      }
      const { clock } = this.#connection.settings;
      const token = (this.#next++).toString(36);
      this.#connection.publish(subject, payload, this.prefix + token, options.headers);
      const nowMs = clock.monotonicMs();
      const pending = new Pending(
        this,
        token,
        subject,
        options,
        nowMs,
        resolve,
        reject,
      ) as unknown as Pending<never>;
      this.#pending.set(token, pending);
      if (signal !== undefined) {
        pending.onAbort = () => this.#giveUp(token, pending, cancelledBy(signal));
        signal.addEventListener("abort", pending.onAbort);
      }
      if (this.#sweep === undefined) {
        this.#sweptMs = nowMs;
        this.#sweep = clock.setInterval(() => this.#sweepDeadlines(), sweepMs);
      }
    });
  }

  #subscribe(): void {
    if (this.#subscribed) return;
    this.#connection.subscribe(`${this.prefix}*`, (message) => this.#onReply(message));
    this.#subscribed = true;
  }

  #onReply(message: Msg): void {
    const token = message.subject.slice(this.prefix.length);
    const pending = this.#pending.get(token);
    if (pending === undefined) return;
    if (pending.peer !== undefined && isNoResponders(message)) return pending.peer.gone();
    if (pending.follower !== undefined) {
      pending.aliveMs = this.#connection.settings.clock.monotonicMs();
      return pending.follower.onMessage(message);
    }
    try {
      const step = pending.options.read(message, pending);
      if (step === "more") {
        pending.aliveMs = this.#connection.settings.clock.monotonicMs();
        return;
      }
      if (pending.follower === undefined) this.forget(token, pending);
      else pending.aliveMs = this.#connection.settings.clock.monotonicMs();
      pending.resolve(step.done);
    } catch (error) {
      this.forget(token, pending);
      pending.reject(error);
    }
  }

  /** Only for a request's own end. */
  forget(token: string, pending: Pending<never>): void {
    this.#pending.delete(token);
    pending.waits = false;
    pending.peer?.delete(pending);
    if (pending.onAbort !== undefined) pending.options.signal?.removeEventListener("abort", pending.onAbort);
  }

  #giveUp(token: string, pending: Pending<never>, error: MeshError): void {
    pending.fail(error);
    pending.options.onGiveUp?.(this.prefix + token);
  }

  #sweepDeadlines(): void {
    const nowMs = this.#connection.settings.clock.monotonicMs();
    const lateMs = nowMs - this.#sweptMs - sweepMs;
    this.#sweptMs = nowMs;
    for (const [token, pending] of this.#pending) {
      if (lateMs > stallMs) pending.aliveMs += lateMs;
      const error = pending.overdue(nowMs);
      if (error !== undefined) this.#giveUp(token, pending, error);
      else if (pending.quiet(nowMs)) {
        pending.quietUntilMs = Number.POSITIVE_INFINITY;
        pending.options.onQuiet!(pending);
      }
    }
    if (this.#pending.size > 0) return;
    this.#sweep?.cancel();
    this.#sweep = undefined;
  }

  #rejectAll(code: "closed" | "interrupted"): void {
    const text =
      code === "closed" ? "the mesh is closed" : "the NATS connection broke while the request was under way";
    for (const pending of [...this.#pending.values()]) {
      pending.fail(new MeshError(code, text));
    }
  }

  /** The server does not say which message it refused, yet all to this subject share its fate. */
  #rejectRefused(subject: string, reason: string): void {
    for (const pending of [...this.#pending.values()]) {
      if (pending.subject !== subject) continue;
      pending.fail(new MeshError("peer", `NATS refuses this participant: ${reason}`));
    }
  }
}

/** True for the server's immediate answer that nobody subscribes to the subject. */
export function isNoResponders(message: Msg): boolean {
  return message.data.length === 0 && statusOf(headerText(message)) === 503;
}
