/**
 * One exchange with an HTTP app, as the handler of our own client and of undici. An answer that is there at once is
 * whole, as it always was; one that takes its time or is large becomes a stream whose reader holds the socket back.
 */
import type { Dispatcher } from "undici";
import { BodyQueue, type BodyStream, type Clock, type Timer } from "../../mesh/index.ts";
import { asError } from "../lib/thrown.ts";
import type { Http2Body } from "./http2-body.ts";

/** Largest answer that may be whole, bytes, where a stream would do; about what fits in the fewest mesh messages. */
const wholeBytes = 256 * 1024;
/** Largest answer to a callback, which is always whole, bytes. */
const maxCallbackBytes = 64 * 1024 * 1024;
/** How long the rest of a short answer of known length is waited for before it becomes a stream, ms. */
const gatherMs = 10;
/** The app's socket is paused above this, bytes; two reads. */
const highWaterBytes = 128 * 1024;

/** What an exchange asks of its connection. */
export type Controller = {
  /** Flat name, value list, or an object with HTTP/2. */
  readonly rawHeaders?: Dispatcher.DispatchController["rawHeaders"];
  abort(reason: Error): void;
  pause(): void;
  resume(): void;
};

export type Answer = {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: Buffer | BodyStream;
};

export type ExchangeOptions = {
  readonly signal: AbortSignal;
  readonly clock: Clock;
  /** The answer may be a stream. */
  readonly streams: boolean;
  /** The request's body, when it is a stream: cancelled when the app answers without reading it. */
  readonly body: BodyStream | undefined;
  /** The same on its way over HTTP/2. */
  readonly http2Body: Http2Body | undefined;
  /** Words for an error that breaks off an answer. */
  readonly explain: (error: Error) => Error;
  /** Called once, when the answer is complete or failed. */
  readonly onDone: (() => void) | undefined;
};

/** The connection ended before the first byte of the answer. */
export class Unanswered extends Error {
  constructor(cause: Error) {
    super(cause.message, { cause });
  }
}

const brokenConnection = new Set(["ECONNRESET", "EPIPE", "UND_ERR_SOCKET", "APP_CLOSED"]);

/** A status below 100 cannot reach us: undici refuses it. Those below 200 are not passed on. */
export class Exchange implements Dispatcher.DispatchHandler {
  readonly #options: ExchangeOptions;
  readonly #resolve: (answer: Answer) => void;
  readonly #reject: (error: unknown) => void;
  #chunks: Buffer[] = [];
  #size = 0;
  #status = 0;
  #headers: string[] = [];
  #length: number | undefined;
  #queue: BodyQueue | undefined;
  #looking = false;
  #done = false;
  #gathering: Timer | undefined;
  #onAbort: (() => void) | undefined;

  constructor(options: ExchangeOptions, resolve: (answer: Answer) => void, reject: (error: unknown) => void) {
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  onRequestStart(controller: Controller): void {
    const { signal } = this.#options;
    const abort = (): void => this.#abort(controller, asError(signal.reason));
    if (signal.aborted) return abort();
    this.#onAbort = abort;
    signal.addEventListener("abort", abort, { once: true });
  }

  onResponseStart(controller: Controller, status: number): void {
    if (status < 200) return;
    this.#status = status;
    this.#headers = textHeaders(controller.rawHeaders);
    this.#length = lengthOf(this.#headers);
    if (this.#options.streams && this.#length === undefined) this.#lookAfterThisRead(controller);
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#queue !== undefined) {
      this.#queue.push(chunk);
      if (this.#queue.bufferedBytes >= highWaterBytes) controller.pause();
      return;
    }
    this.#size += chunk.length;
    this.#chunks.push(chunk);
    if (this.#options.streams) {
      if (this.#size !== this.#length) this.#lookAfterThisRead(controller);
    } else if (this.#size > maxCallbackBytes) {
      controller.abort(new Error(`the app's answer is above ${maxCallbackBytes} bytes`));
    }
  }

  onResponseEnd(): void {
    this.#finish();
    if (this.#queue !== undefined) return this.#queue.end();
    const body = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks, this.#size);
    this.#resolve({ status: this.#status, headers: this.#headers, body });
  }

  onResponseError(_controller: Controller | undefined, error: Error): void {
    this.#finish();
    if (this.#queue === undefined) {
      const code = (error as NodeJS.ErrnoException).code ?? "";
      this.#reject(this.#status === 0 && brokenConnection.has(code) ? new Unanswered(error) : error);
    } else this.#queue.fail(this.#options.signal.aborted ? error : this.#options.explain(error));
  }

  /** What the app wrote in one go arrives in one read, and its end with it. */
  #lookAfterThisRead(controller: Controller): void {
    if (this.#looking) return;
    this.#looking = true;
    queueMicrotask(() => {
      if (this.#done) return;
      const short = this.#length !== undefined && this.#length <= wholeBytes;
      if (!short) return this.#stream(controller);
      this.#gathering = this.#options.clock.setTimeout(() => this.#stream(controller), gatherMs);
    });
  }

  #stream(controller: Controller): void {
    if (this.#done) return;
    const onTaken = (): void => {
      if (queue.bufferedBytes < highWaterBytes / 2 && !this.#done) controller.resume();
    };
    const onCancel = (reason: Error): void => this.#abort(controller, reason);
    const queue = new BodyQueue({ onTaken, onCancel }, this.#length);
    for (const chunk of this.#chunks) queue.push(chunk);
    this.#chunks = [];
    this.#queue = queue;
    this.#resolve({ status: this.#status, headers: this.#headers, body: queue });
  }

  #abort(controller: Controller, reason: Error): void {
    this.#options.http2Body?.cancel();
    controller.abort(reason);
  }

  #finish(): void {
    this.#done = true;
    this.#gathering?.cancel();
    const { signal, body, onDone } = this.#options;
    if (this.#onAbort !== undefined) signal.removeEventListener("abort", this.#onAbort);
    body?.cancel(new Error("the app answered without reading the rest of the body"));
    onDone?.();
  }
}

function lengthOf(headers: readonly string[]): number | undefined {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!;
    // The length of the name alone rules out nearly all others.
    if (name.length !== 14 || name.toLowerCase() !== "content-length") continue;
    const length = Number(headers[i + 1]);
    return Number.isSafeInteger(length) ? length : undefined;
  }
  return undefined;
}

/** HTTP/2 gives an object, in which only cookies may be lists. */
function textHeaders(raw: Controller["rawHeaders"]): string[] {
  if (!Array.isArray(raw)) {
    return Object.entries(raw ?? {}).flatMap(([name, value]) =>
      Array.isArray(value) ? value.flatMap((item) => [name, item]) : [name, String(value)],
    );
  }
  if (typeof raw[0] === "string") return raw as string[];
  return raw.map((item) => (typeof item === "string" ? item : item.toString("latin1")));
}
