/**
 * Connections to an HTTP/1.1 app: as many as there are calls at once, each used again while the app keeps it. Half the
 * cost of undici (docs/decisions/0032).
 */
import type { Clock, Timer } from "../../../mesh/index.ts";
import { asError } from "../../lib/thrown.ts";
import type { Exchange } from "../http-exchange.ts";
import { Call, Connection, type ConnectionOptions, type Request } from "./connection.ts";

export type PoolOptions = {
  readonly host: string;
  readonly port: number;
  /** Largest header section of an answer: names and values, bytes. */
  readonly maxHeaderBytes: number;
  readonly clock: Clock;
};

/** About what a socket gives in one read. */
const readBytes = 64 * 1024;

export class AppPool {
  readonly #options: ConnectionOptions;
  readonly #hostHeader: string;
  readonly #all = new Set<Connection>();
  /** The one that was used last is the next. */
  readonly #idle: Connection[] = [];
  /** Calls of this turn of the event loop. */
  #waiting: Call[] = [];
  /** Connections that became free in it. */
  #rested: Connection[] = [];
  #turning = false;
  #sweep: Timer | undefined;
  #sweepAtMs = Infinity;
  #closed: Error | undefined;
  #ended: Promise<void> | undefined;
  #onEmpty: (() => void) | undefined;

  constructor({ host, port, maxHeaderBytes, clock }: PoolOptions) {
    this.#hostHeader = new URL(`http://${host.includes(":") ? `[${host}]` : host}:${port}`).host;
    this.#options = {
      host,
      port,
      maxHeaderBytes,
      clock,
      buffer: Buffer.allocUnsafeSlow(readBytes),
      onFree: (connection, idleMs) => this.#free(connection, idleMs),
      onClose: (connection) => this.#forget(connection),
    };
  }

  /** The exchange is told all, refusals included. */
  dispatch(request: Request, exchange: Exchange): void {
    let call: Call;
    try {
      if (this.#closed !== undefined) throw this.#closed;
      call = new Call(request, exchange, this.#hostHeader);
    } catch (error) {
      return exchange.onResponseError(undefined, asError(error));
    }
    exchange.onRequestStart(call);
    if (call.done) return;
    this.#waiting.push(call);
    this.#turn();
  }

  /** Ends every call. */
  destroy(): Promise<void> {
    const error = new Error("The client is destroyed");
    this.#closed = error;
    for (const call of this.#waiting) call.fail(error);
    for (const connection of this.#all) connection.destroy(error);
    return this.#empty();
  }

  /** Takes no more calls; resolves when those under way have ended. */
  close(): Promise<void> {
    this.#closed ??= new Error("The client is closed");
    for (const connection of [...this.#idle, ...this.#rested]) connection.drop();
    return this.#empty();
  }

  #empty(): Promise<void> {
    this.#sweep?.cancel();
    this.#ended ??= new Promise((resolve) => (this.#onEmpty = resolve));
    this.#tellEmpty();
    return this.#ended;
  }

  /**
   * Calls are sent at the end of the turn of the event loop, when all that came from the app in it has been seen: the
   * end of a connection too, on which a request would be lost. For the same reason a connection rests for a turn.
   */
  #turn(): void {
    if (this.#turning) return;
    this.#turning = true;
    setImmediate(() => {
      this.#turning = false;
      const waiting = this.#waiting;
      const rested = this.#rested;
      if (waiting.length > 0) this.#waiting = [];
      if (rested.length > 0) this.#rested = [];
      for (const call of waiting) if (!call.done) this.#take().start(call);
      for (const connection of rested) this.#idle.push(connection);
      this.#tellEmpty();
    });
  }

  #take(): Connection {
    for (let free = this.#idle.pop(); free !== undefined; free = this.#idle.pop())
      if (!free.ended) return free;
    const connection = new Connection(this.#options);
    this.#all.add(connection);
    return connection;
  }

  #free(connection: Connection, idleMs: number): void {
    if (this.#closed !== undefined) return connection.drop();
    connection.idleUntilMs = this.#options.clock.monotonicMs() + idleMs;
    this.#rested.push(connection);
    this.#turn();
    if (connection.idleUntilMs < this.#sweepAtMs) this.#sweepAfter(connection.idleUntilMs, idleMs);
  }

  #forget(connection: Connection): void {
    this.#all.delete(connection);
    for (const free of [this.#idle, this.#rested]) {
      const at = free.indexOf(connection);
      if (at !== -1) free.splice(at, 1);
    }
    this.#tellEmpty();
  }

  #tellEmpty(): void {
    if (this.#all.size === 0 && !this.#turning) this.#onEmpty?.();
  }

  #sweepAfter(atMs: number, delayMs: number): void {
    this.#sweep?.cancel();
    this.#sweepAtMs = atMs;
    this.#sweep = this.#options.clock.setTimeout(() => this.#dropUnused(), delayMs);
  }

  #dropUnused(): void {
    this.#sweepAtMs = Infinity;
    const nowMs = this.#options.clock.monotonicMs();
    let nextMs = Infinity;
    for (const connection of this.#idle) {
      if (connection.idleUntilMs <= nowMs) connection.drop();
      else nextMs = Math.min(nextMs, connection.idleUntilMs);
    }
    if (nextMs !== Infinity) this.#sweepAfter(nextMs, nextMs - nowMs);
  }
}
