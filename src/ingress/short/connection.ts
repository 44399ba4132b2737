/**
 * Connections of an HTTP/1.1 port while their requests are short and plain: read, answered and written without node's
 * HTTP server, which costs as much again as all of a state read in the sidecar (docs/decisions/0033). With the first
 * request of another kind a connection goes over to node, with all that it has not answered yet, and stays there.
 */
import type { Socket } from "node:net";
import type { Clock, Timer } from "../../../mesh/index.ts";
import { stackOf } from "../../lib/thrown.ts";
import type { Log } from "../../telemetry/log.ts";
import { wholeBodyBytes } from "../http-call.ts";
import type { SendReply } from "../http-reply.ts";
import { ShortCall } from "./call.ts";
import { type HeadFields, readShortHead } from "./head.ts";
import { type Ending, sendShort } from "./reply.ts";

/** How often idle connections are looked for, ms. */
const sweepEveryMs = 2_000;

export type ShortConnectionsOptions = {
  readonly answer: (call: ShortCall, send: SendReply) => Promise<void>;
  /** Takes a connection whose bytes are not for us; they are put back into the socket. */
  readonly leave: (socket: Socket) => void;
  readonly maxHeaderBytes: number;
  readonly maxBodyBytes: number;
  /** A client that sends nothing at all is cut off after this, ms. */
  readonly firstBytesMs: number;
  readonly keepAliveMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

/** Those of one port. */
export class ShortConnections {
  readonly options: ShortConnectionsOptions;
  readonly limits: { readonly maxHeaderBytes: number; readonly maxBodyBytes: number };
  readonly #open = new Set<ShortConnection>();
  readonly #keepAlive: string;
  #date = { second: -1, text: "" };
  #closing = false;
  #sweep: Timer | undefined;

  constructor(options: ShortConnectionsOptions) {
    this.options = options;
    const { maxHeaderBytes, maxBodyBytes, keepAliveMs } = options;
    this.limits = { maxHeaderBytes, maxBodyBytes: Math.min(maxBodyBytes, wholeBodyBytes) };
    this.#keepAlive = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(keepAliveMs / 1000)}\r\n`;
  }

  /** No further requests: what is being answered is the last one of its connection. */
  get closing(): boolean {
    return this.#closing;
  }

  take(socket: Socket): void {
    this.#sweepLater();
    this.#open.add(new ShortConnection(this, socket));
  }

  forget(connection: ShortConnection): void {
    this.#open.delete(connection);
  }

  ending(): Ending {
    const nowMs = this.options.clock.nowMs();
    const second = Math.floor(nowMs / 1000);
    if (second !== this.#date.second)
      this.#date = { second, text: `Date: ${new Date(nowMs).toUTCString()}\r\n` };
    return { date: this.#date.text, connection: this.#closing ? "Connection: close\r\n" : this.#keepAlive };
  }

  /** Ends idle connections, and the others with their answer. */
  close(): void {
    this.#closing = true;
    for (const connection of this.#open) if (connection.idle) connection.destroy();
  }

  destroy(): void {
    for (const connection of this.#open) connection.destroy();
  }

  #sweepLater(): void {
    if (this.#sweep !== undefined) return;
    this.#sweep = this.options.clock.setTimeout(() => {
      this.#sweep = undefined;
      const nowMs = this.options.clock.monotonicMs();
      for (const connection of this.#open) if (connection.isStale(nowMs)) connection.destroy();
      if (this.#open.size > 0) this.#sweepLater();
    }, sweepEveryMs);
  }
}

class ShortConnection {
  readonly #port: ShortConnections;
  readonly #socket: Socket;
  /** The request that is being answered. */
  #call: ShortCall | undefined;
  /** The rest of a body whose request is answered already. */
  #unread: ShortCall | undefined;
  /** What came behind the request; the socket is paused meanwhile. */
  #next: Buffer | undefined;
  #fields: HeadFields | undefined;
  #idleSinceMs: number;
  #answered = false;
  readonly #onData = (chunk: Buffer): void => this.#take(chunk);
  readonly #onEnd = (): void => void this.#socket.end();
  readonly #onClose = (): void => this.#lost();
  readonly #onError = (): void => void this.#socket.destroy();
  readonly #send: SendReply = async (reply) => {
    const call = this.#call;
    if (call === undefined || this.#socket.destroyed) return 0;
    const sent = sendShort(this.#socket, reply, this.#port.ending());
    const sizeBytes = typeof sent === "number" ? sent : await sent;
    this.#done(call);
    return sizeBytes;
  };

  constructor(port: ShortConnections, socket: Socket) {
    this.#port = port;
    this.#socket = socket;
    this.#idleSinceMs = port.options.clock.monotonicMs();
    socket.on("data", this.#onData).on("end", this.#onEnd);
    socket.on("close", this.#onClose).on("error", this.#onError);
  }

  get idle(): boolean {
    return this.#call === undefined;
  }

  /** It is without a request for too long. */
  isStale(nowMs: number): boolean {
    const { firstBytesMs, keepAliveMs } = this.#port.options;
    return this.idle && nowMs - this.#idleSinceMs > (this.#answered ? keepAliveMs : firstBytesMs);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    const waiting = this.#call ?? this.#unread;
    if (waiting === undefined) return this.#socket.writableNeedDrain ? this.#hold(chunk) : this.#begin(chunk);
    const taken = waiting.take(chunk);
    if (waiting === this.#unread && waiting.missingBytes === 0) this.#unread = undefined;
    if (taken < chunk.length) this.#later(taken === 0 ? chunk : chunk.subarray(taken));
  }

  /** Keeps what is for a request after this one. Nothing further is read until then. */
  #later(bytes: Buffer): void {
    if (this.#call === undefined) return this.#take(bytes);
    this.#next = this.#next === undefined ? bytes : Buffer.concat([this.#next, bytes]);
    this.#socket.pause();
  }

  /** The requests of a client that does not read their answers wait. */
  #hold(bytes: Buffer): void {
    this.#next = bytes;
    this.#socket.pause();
    this.#goOn();
  }

  #begin(chunk: Buffer): void {
    const { limits, options } = this.#port;
    const head = readShortHead(chunk, limits, this.#fields);
    if (head === undefined) return this.#leave(chunk);
    this.#fields = head.fields;
    const behind = head.sizeBytes < chunk.length ? chunk.subarray(head.sizeBytes) : nothing;
    const call = new ShortCall(this.#socket, head, behind, options.maxBodyBytes);
    this.#call = call;
    const { bodyBytes } = head.fields;
    if (bodyBytes < behind.length) this.#later(behind.subarray(bodyBytes));
    options.answer(call, this.#send).catch((error: unknown) => {
      options.log.error(`HTTP answer failed: ${stackOf(error)}`);
      this.#socket.destroy();
    });
  }

  #done(call: ShortCall): void {
    this.#call = undefined;
    this.#answered = true;
    this.#idleSinceMs = this.#port.options.clock.monotonicMs();
    if (call.missingBytes > 0) this.#unread = call;
    if (this.#port.closing) this.#socket.destroySoon();
    else if (this.#next !== undefined) this.#goOn();
  }

  #goOn(): void {
    if (this.#socket.writableNeedDrain) return void this.#socket.once("drain", () => this.#goOn());
    const next = this.#next!;
    this.#next = undefined;
    this.#socket.resume();
    this.#take(next);
  }

  #leave(chunk: Buffer): void {
    const socket = this.#socket;
    this.#port.forget(this);
    socket.off("data", this.#onData).off("end", this.#onEnd);
    socket.off("close", this.#onClose).off("error", this.#onError);
    socket.pause();
    socket.unshift(chunk);
    this.#port.options.leave(socket);
    socket.resume();
  }

  #lost(): void {
    this.#port.forget(this);
    this.#call?.lost();
  }
}

const nothing = Buffer.alloc(0);
