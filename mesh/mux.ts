/**
 * Our own reply multiplexer: one wildcard inbox, one map, one coarse sweep for deadlines. The client's built-in
 * request costs 2-4 times as much (see docs/decisions). Used by calls, KV, JetStream publishes and pulls.
 */
import type { Msg, MsgHdrs, Subscription } from "@nats-io/transport-node";
import type { Timer } from "./clock.ts";
import type { MeshConnection } from "./connection.ts";
import { MeshError } from "./errors.ts";

/** How often deadlines are looked at, ms; a deadline is late by at most this. */
const sweepMs = 50;
/** Requests waiting at once; more are refused. */
const maxPending = 50_000;

/** `done` ends the request with the result, `more` keeps it open (and is a sign of life). */
export type Step<T> = { readonly done: T } | "more";

export type MuxOptions<T> = {
  readonly headers?: MsgHdrs;
  /** Longest time until the end, ms; 0 = none. */
  readonly timeoutMs: number;
  /** Longest time between two messages of the peer, ms; 0 = none. */
  readonly idleMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Reads one reply; a throw rejects the request. */
  readonly read: (message: Msg) => Step<T>;
  /** Called with the reply subject when the caller gives up or times out, to tell the peer. */
  readonly onGiveUp?: (replySubject: string) => void;
};

class Pending<T> {
  readonly options: MuxOptions<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
  readonly deadlineMs: number;
  aliveMs: number;
  onAbort: (() => void) | undefined;

  constructor(options: MuxOptions<T>, nowMs: number, resolve: (value: T) => void, reject: (error: unknown) => void) {
    this.options = options;
    this.resolve = resolve;
    this.reject = reject;
    this.deadlineMs = options.timeoutMs > 0 ? nowMs + options.timeoutMs : Number.POSITIVE_INFINITY;
    this.aliveMs = nowMs;
  }

  /** Why the request is over at this time; undefined while it may go on. */
  overdue(nowMs: number): MeshError | undefined {
    if (nowMs >= this.deadlineMs) return new MeshError("timeout", `no answer within ${this.options.timeoutMs} ms`);
    const idleMs = this.options.idleMs ?? 0;
    if (idleMs > 0 && nowMs - this.aliveMs >= idleMs) {
      return new MeshError("timeout", `the peer showed no sign of life for ${idleMs} ms`);
    }
    return undefined;
  }
}

export class Mux {
  readonly #connection: MeshConnection;
  readonly #prefix: string;
  readonly #pending = new Map<string, Pending<never>>();
  #subscription: Subscription | undefined;
  #next = 0;
  #sweep: Timer | undefined;

  constructor(connection: MeshConnection) {
    this.#connection = connection;
    this.#prefix = `${connection.settings.inbox}.`;
    connection.onChange((connected) => {
      if (connected) this.#subscribe();
      else this.#rejectAll(connection.closed ? "closed" : "interrupted");
    });
  }

  /** Requests that wait now; for tests and diagnostics. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** A fresh reply subject's token is never reused by this mux. */
  request<T>(subject: string, payload: Uint8Array, options: MuxOptions<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const { signal } = options;
      if (signal?.aborted) return reject(cancelled(signal));
      if (this.#pending.size >= maxPending) {
        return reject(new MeshError("disconnected", `${maxPending} requests are already waiting for NATS`));
      }
      const token = (this.#next++).toString(36);
      const pending = new Pending<T>(options, this.#connection.settings.clock.monotonicMs(), resolve, reject);
      try {
        const publish = { reply: this.#prefix + token, ...(options.headers === undefined ? {} : { headers: options.headers }) };
        this.#connection.publish(subject, payload, publish);
      } catch (error) {
        return reject(error);
      }
      this.#pending.set(token, pending as unknown as Pending<never>);
      if (signal !== undefined) {
        pending.onAbort = () => this.#giveUp(token, pending as unknown as Pending<never>, cancelled(signal));
        signal.addEventListener("abort", pending.onAbort, { once: true });
      }
      this.#sweep ??= this.#connection.settings.clock.setInterval(() => this.#sweepDeadlines(), sweepMs);
    });
  }

  #subscribe(): void {
    this.#subscription ??= this.#connection.subscribe(`${this.#prefix}*`, (message) => this.#onReply(message));
  }

  #onReply(message: Msg): void {
    const token = message.subject.slice(this.#prefix.length);
    const pending = this.#pending.get(token);
    if (pending === undefined) return;
    let step: Step<never>;
    try {
      step = pending.options.read(message);
    } catch (error) {
      return this.#settle(token, pending, () => pending.reject(error));
    }
    if (step === "more") pending.aliveMs = this.#connection.settings.clock.monotonicMs();
    else this.#settle(token, pending, () => pending.resolve(step.done));
  }

  #settle(token: string, pending: Pending<never>, act: () => void): void {
    this.#pending.delete(token);
    if (pending.onAbort !== undefined) pending.options.signal?.removeEventListener("abort", pending.onAbort);
    act();
  }

  #giveUp(token: string, pending: Pending<never>, error: MeshError): void {
    this.#settle(token, pending, () => pending.reject(error));
    pending.options.onGiveUp?.(this.#prefix + token);
  }

  #sweepDeadlines(): void {
    const nowMs = this.#connection.settings.clock.monotonicMs();
    for (const [token, pending] of this.#pending) {
      const error = pending.overdue(nowMs);
      if (error !== undefined) this.#giveUp(token, pending, error);
    }
    if (this.#pending.size > 0) return;
    this.#sweep?.cancel();
    this.#sweep = undefined;
  }

  #rejectAll(code: "closed" | "interrupted"): void {
    const text = code === "closed" ? "the mesh is closed" : "the NATS connection broke while the request was under way";
    for (const [token, pending] of [...this.#pending]) {
      this.#settle(token, pending, () => pending.reject(new MeshError(code, text)));
    }
  }
}

function cancelled(signal: AbortSignal): MeshError {
  return new MeshError("cancelled", "the caller gave up", { cause: signal.reason });
}

/** True for the server's immediate answer that nobody subscribes to the subject. */
export function isNoResponders(message: Msg): boolean {
  return message.data.length === 0 && message.headers?.code === 503;
}
