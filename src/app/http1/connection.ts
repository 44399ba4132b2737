/**
 * One connection to an HTTP/1.1 app, and the call it serves. Bytes are read into a buffer that all connections of the
 * pool share, and what is kept of them is copied.
 */
import { connect, type Socket } from "node:net";
import type { BodyStream, Clock } from "../../../mesh/index.ts";
import { asError } from "../../lib/thrown.ts";
import { writeWhole } from "../../lib/write-whole.ts";
import type { Controller, Exchange } from "../http-exchange.ts";
import { AnswerParser } from "./answer.ts";
import { type Head, type Outgoing, requestHead } from "./head.ts";

const connectTimeoutMs = 10_000;
/** Of unsent bytes; above it a stream waits. */
const writeHighWaterBytes = 64 * 1024;
/** The app's word for how long it keeps a connection is cut by this: a request under way must still arrive. */
const keepAliveMarginMs = 2_000;
const longestIdleMs = 600_000;
const usualIdleMs = 60_000;

/** A request whose body is whole or a stream. */
export type Request = Outgoing & { readonly body: Uint8Array | BodyStream | undefined };

/** The connection ended; whoever asked is told `EOF`. */
function closedByApp(): Error {
  return Object.assign(new Error("other side closed"), { code: "APP_CLOSED" });
}

/** A request and its exchange, from the moment it is asked for to its end. */
export class Call implements Controller {
  readonly head: Head;
  readonly request: Request;
  readonly exchange: Exchange;
  rawHeaders: string[] = [];
  connection: Connection | undefined;
  done = false;

  /** Throws Error for what cannot be sent. */
  constructor(request: Request, exchange: Exchange, host: string) {
    this.head = requestHead(request, host);
    const { body } = request;
    const { length } = this.head;
    if (body instanceof Uint8Array && length !== undefined && length !== body.length) throw lengthMismatch();
    this.request = request;
    this.exchange = exchange;
  }

  abort(reason: Error): void {
    if (this.done) return;
    this.connection?.drop();
    this.fail(reason);
  }

  pause(): void {
    if (!this.done) this.connection?.pause();
  }

  resume(): void {
    if (!this.done) this.connection?.resume();
  }

  fail(error: Error): void {
    if (this.done) return;
    this.done = true;
    this.exchange.onResponseError(this, error);
  }
}

export type ConnectionOptions = {
  readonly host: string;
  readonly port: number;
  readonly maxHeaderBytes: number;
  readonly clock: Clock;
  /** What all connections read into. */
  readonly buffer: Buffer;
  /** It may serve another call, for so long. */
  readonly onFree: (connection: Connection, idleMs: number) => void;
  /** Called once. */
  readonly onClose: (connection: Connection) => void;
};

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #socket: Socket;
  readonly #parser: AnswerParser;
  #call: Call | undefined;
  #writing = false;
  /** The call is the last: an app that expects no body may leave one on the connection. */
  #last = false;
  #onDrain: (() => void) | undefined;
  /** When it is closed for want of use; on the clock's monotonic time. */
  idleUntilMs = 0;

  /** Serves its first call as soon as it is open. */
  constructor(options: ConnectionOptions) {
    this.#options = options;
    const { host, port, clock, buffer } = options;
    this.#parser = new AnswerParser(this, options.maxHeaderBytes);
    const settings = {
      host,
      port,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
      highWaterMark: writeHighWaterBytes,
      onread: { buffer, callback: (size: number) => this.#onRead(size) },
    };
    this.#socket = connect(settings);
    const late = Object.assign(new Error("i/o timeout"), { code: "ETIMEDOUT" });
    const timer = clock.setTimeout(() => this.#socket.destroy(late), connectTimeoutMs);
    this.#socket
      .once("connect", () => timer.cancel())
      .on("error", (error: NodeJS.ErrnoException) => this.#onBroken(error, error.code === "ECONNRESET"))
      .on("end", () => this.#onBroken(closedByApp(), true))
      .on("drain", () => this.#wake())
      .on("close", () => {
        timer.cancel();
        this.#onBroken(closedByApp(), false);
        options.onClose(this);
      });
  }

  get ended(): boolean {
    return this.#socket.destroyed;
  }

  /** The call is sent at once, or when the connection is open. */
  start(call: Call): void {
    this.#call = call;
    call.connection = this;
    this.#parser.begin(call.request.verb);
    const { head, request } = call;
    const { body } = request;
    this.#last = head.last;
    if (body === undefined) {
      this.#socket.write(withoutBody(head), "latin1");
    } else if (body instanceof Uint8Array) {
      if (!head.wantsBody) this.#last = true;
      writeWhole(this.#socket, `${head.text}content-length: ${body.length}\r\n\r\n`, body);
    } else {
      void this.#sendStream(call, body);
    }
  }

  /** Closed without a word; its call learns nothing. */
  drop(): void {
    this.#call = undefined;
    this.#parser.stop();
    this.#socket.destroy();
    this.#wake();
  }

  /** Closed; its call fails. */
  destroy(error: Error): void {
    const call = this.#call;
    this.drop();
    call?.fail(error);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  onHead(status: number, headers: string[]): void {
    const call = this.#call!;
    call.rawHeaders = headers;
    call.exchange.onResponseStart(call, status);
  }

  onBody(chunk: Buffer, from: number, to: number): void {
    const piece = Buffer.allocUnsafe(to - from);
    chunk.copy(piece, 0, from, to);
    this.#call?.exchange.onResponseData(this.#call, piece);
  }

  onEnd(): void {
    const call = this.#call!;
    this.#call = undefined;
    call.done = true;
    call.exchange.onResponseEnd();
    const idleMs = this.#parser.reusable && !this.#last && !this.#writing ? this.#idleMs() : 0;
    if (idleMs <= 0) return this.drop();
    // The exchange may have held back the last piece.
    if (this.#socket.isPaused()) this.#socket.resume();
    this.#options.onFree(this, idleMs);
  }

  /** 0: not to be used again. */
  #idleMs(): number {
    const { keepAlive } = this.#parser;
    if (keepAlive === "") return usualIdleMs;
    const seconds = /(?:^|,)[\t ]*timeout=(\d+)/i.exec(keepAlive)?.[1];
    return seconds === undefined
      ? usualIdleMs
      : Math.min(Number(seconds) * 1000 - keepAliveMarginMs, longestIdleMs);
  }

  #onRead(size: number): boolean {
    try {
      // Bytes that nobody asked for leave the connection in doubt.
      if (this.#parser.feed(this.#options.buffer, size) < size) this.drop();
    } catch (error) {
      this.destroy(asError(error));
    }
    return true;
  }

  /** What follows the first sign of an end finds no call. `byApp`: that may be the end of an answer too. */
  #onBroken(error: Error, byApp: boolean): void {
    try {
      if (this.#call !== undefined && byApp && this.#parser.finish()) return;
      this.destroy(error);
    } catch (cut) {
      this.destroy(asError(cut));
    }
  }

  /** The head leaves with the first piece, so that an empty body can be told as such. */
  async #sendStream(call: Call, body: BodyStream): Promise<void> {
    const { text, length, wantsBody } = call.head;
    const socket = this.#socket;
    const chunked = length === undefined;
    let sent = 0;
    this.#writing = true;
    try {
      for await (const piece of body) {
        if (call.done) return;
        if (piece.length === 0) continue;
        if (length !== undefined && sent + piece.length > length) throw lengthMismatch();
        let before = sent === 0 ? text + framing(length) : chunked ? "\r\n" : "";
        if (chunked) before += `${piece.length.toString(16)}\r\n`;
        if (!wantsBody) this.#last = true;
        sent += piece.length;
        socket.cork();
        if (before !== "") socket.write(before, "latin1");
        const free = socket.write(piece);
        socket.uncork();
        if (!free) await new Promise<void>((resolve) => (this.#onDrain = resolve));
      }
      if (call.done) return;
      this.#writing = false;
      if (sent === 0) socket.write(withoutBody(call.head), "latin1");
      else if (chunked) socket.write("\r\n0\r\n\r\n", "latin1");
      if (length !== undefined && sent !== length) throw lengthMismatch();
    } catch (error) {
      call.abort(asError(error));
    }
  }

  #wake(): void {
    const wake = this.#onDrain;
    this.#onDrain = undefined;
    wake?.();
  }
}

function withoutBody({ text, wantsBody }: Head): string {
  return text + (wantsBody ? "content-length: 0\r\n\r\n" : "\r\n");
}

function framing(length: number | undefined): string {
  return length === undefined ? "transfer-encoding: chunked\r\n\r\n" : `content-length: ${length}\r\n\r\n`;
}

function lengthMismatch(): Error {
  return new Error("Request body length does not match content-length header");
}
