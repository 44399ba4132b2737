/**
 * Requests to an HTTP app on one keep-alive pool, by undici's dispatch (25 us; `request` takes 40, `fetch` 150).
 * Bodies are whole on both sides; redirects are not followed; there is no timeout but the caller's signal.
 */
// The pool alone: undici's index loads three times as much code and memory (docs/decisions/0005).
import Pool from "undici/lib/dispatcher/pool.js";
import type { buildConnector, Dispatcher } from "undici";
import type { MeshRequest, MeshResponse } from "../../mesh/index.ts";
import type { AppHttpRequest, AppHttpResponse } from "./channel.ts";
import { asksForGzip, isGzip, unpackGzip, withoutEncoding } from "./gzip.ts";
import { forwardResponseHeaders } from "./headers.ts";
import { netErrorText, requestErrorText } from "./net-error.ts";

/** Largest answer kept in memory, bytes; larger ones wait for streaming bodies. */
const maxResponseBytes = 64 * 1024 * 1024;
const connectTimeoutMs = 10_000;
/** The app is on this host: its certificate names whatever it likes, as with daprd. HTTP/2 goes first where offered. */
const appConnection = { timeout: connectTimeoutMs, rejectUnauthorized: false, preferH2: true };

export type HttpAppOptions = {
  readonly scheme: "http" | "https";
  readonly host: string;
  readonly port: number;
  /** APP_API_TOKEN, sent as `dapr-api-token`. */
  readonly apiToken: string | undefined;
  /** Largest header section of an answer, bytes (--read-buffer-size). */
  readonly maxHeaderBytes: number;
  /** Origin for requests and messages; made of scheme, host and port when not given. */
  readonly origin?: string;
  /** Opens connections to servers outside; the app itself needs none. */
  readonly connect?: buildConnector.connector;
  /**
   * HTTP/2: `prior-knowledge` for an app on h2c, `offered` to a TLS server that may choose it; HTTP/1.1 when not given.
   * Values of a repeated header then travel in one line.
   */
  readonly http2?: "prior-knowledge" | "offered";
};

/** What undici's handler tells us about one exchange. */
type Answer = { status: number; headers: string[]; body: Buffer };

type Outgoing = { verb: string; path: string; headers: string[]; body: Uint8Array | undefined };

/** Verbs that may reach the app twice. */
const repeatable = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);
/** Further tries of a request whose connection broke before the answer began. */
const maxRepeats = 2;

/** The connection ended before the first byte of the answer. */
class Unanswered extends Error {
  constructor(cause: Error) {
    super(cause.message, { cause });
  }
}

export class HttpApp {
  readonly #options: HttpAppOptions;
  readonly #origin: string;
  readonly #pool: Dispatcher;

  constructor(options: HttpAppOptions) {
    this.#options = options;
    const host = options.host.includes(":") ? `[${options.host}]` : options.host;
    this.#origin = options.origin ?? `${options.scheme}://${host}:${options.port}`;
    this.#pool = new Pool(this.#origin, {
      connections: null,
      pipelining: 1,
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: 60_000,
      maxHeaderSize: options.maxHeaderBytes,
      allowH2: options.http2 !== undefined,
      ...(options.http2 === "prior-knowledge" ? { useH2c: true } : {}),
      connect: options.connect ?? appConnection,
    });
  }

  /** Service invocation. Hop-by-hop headers of the answer are dropped. */
  async invoke(request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const path = request.query === "" ? request.path : `${request.path}?${request.query}`;
    const gzip = asksForGzip(request.verb, request.headers);
    const asked = gzip ? [...request.headers, "Accept-Encoding", "gzip"] : request.headers;
    const answer = await this.#send(request.verb, path, asked, request.body, signal);
    // Answers without a body keep the header: there is nothing to unpack.
    if (gzip && answer.body.length > 0 && isGzip(answer.headers)) {
      const headers = forwardResponseHeaders(withoutEncoding(answer.headers));
      return { status: answer.status, headers, body: await unpackGzip(answer.body, maxResponseBytes) };
    }
    return { status: answer.status, headers: forwardResponseHeaders(answer.headers), body: answer.body };
  }

  http(request: AppHttpRequest, signal: AbortSignal): Promise<AppHttpResponse> {
    return this.#send(request.verb, request.path, request.headers, request.body, signal);
  }

  close(): Promise<void> {
    return this.#pool.destroy();
  }

  /** Takes no more requests; ends when those under way are answered. */
  retire(): Promise<void> {
    return this.#pool.close();
  }

  async #send(
    verb: string,
    path: string,
    headers: readonly string[],
    body: Uint8Array | undefined,
    signal: AbortSignal,
  ): Promise<Answer> {
    const { apiToken, http2 } = this.#options;
    const all = apiToken === undefined ? (headers as string[]) : withToken(headers, apiToken);
    const named = http2 === undefined ? all : lowerNames(all);
    try {
      return await this.#exchange({ verb, path, headers: named, body }, signal);
    } catch (cause) {
      if (signal.aborted) throw cause;
      const reason = netErrorText(cause, this.#options.host, this.#options.port);
      throw new Error(requestErrorText(verb, this.#origin + path, reason), { cause });
    }
  }

  /**
   * An app that was restarted has closed connections which the pool still holds. A request on such a one gets no byte
   * of an answer: it is sent again when doing it twice does no harm. Others fail, because the app may have begun.
   */
  async #exchange(request: Outgoing, signal: AbortSignal): Promise<Answer> {
    for (let tries = 0; ; tries++) {
      try {
        return await this.#dispatch(request, signal);
      } catch (error) {
        const stale = repeatable.has(request.verb) && error instanceof Unanswered && !signal.aborted;
        if (!stale || tries === maxRepeats) throw error;
        // Other connections of the same app are noticed as closed in this turn of the event loop.
        await nextTurn();
      }
    }
  }

  #dispatch(request: Outgoing, signal: AbortSignal): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const exchange = new Exchange(signal, resolve, reject);
      const body = request.body !== undefined && request.body.length > 0 ? request.body : null;
      const { path, verb: method, headers } = request;
      this.#pool.dispatch({ path, method, headers, body }, exchange);
    });
  }
}

/** Collects one answer. A status below 100 cannot reach us: undici refuses it. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #signal: AbortSignal;
  readonly #resolve: (answer: Answer) => void;
  readonly #reject: (error: unknown) => void;
  readonly #chunks: Buffer[] = [];
  #size = 0;
  #status = 0;
  #headers: string[] = [];
  #onAbort: (() => void) | undefined;

  constructor(signal: AbortSignal, resolve: (answer: Answer) => void, reject: (error: unknown) => void) {
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    const abort = (): void => controller.abort(asError(this.#signal.reason));
    if (this.#signal.aborted) return abort();
    this.#onAbort = abort;
    this.#signal.addEventListener("abort", abort, { once: true });
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status < 200) return;
    this.#status = status;
    this.#headers = textHeaders(controller.rawHeaders);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#size += chunk.length;
    if (this.#size > maxResponseBytes)
      return controller.abort(new Error(`the app's answer is above ${maxResponseBytes} bytes`));
    this.#chunks.push(chunk);
  }

  onResponseEnd(): void {
    this.#release();
    const body = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks, this.#size);
    this.#resolve({ status: this.#status, headers: this.#headers, body });
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#release();
    const code = (error as NodeJS.ErrnoException).code ?? "";
    this.#reject(this.#status === 0 && brokenConnection.has(code) ? new Unanswered(error) : error);
  }

  #release(): void {
    if (this.#onAbort !== undefined) this.#signal.removeEventListener("abort", this.#onAbort);
  }
}

const brokenConnection = new Set(["ECONNRESET", "EPIPE", "UND_ERR_SOCKET"]);

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** HTTP/2 gives an object, in which only cookies may be lists. */
function textHeaders(raw: Dispatcher.DispatchController["rawHeaders"]): string[] {
  if (!Array.isArray(raw)) {
    return Object.entries(raw ?? {}).flatMap(([name, value]) =>
      Array.isArray(value) ? value.flatMap((item) => [name, item]) : [name, String(value)],
    );
  }
  return raw.map((item) => (typeof item === "string" ? item : item.toString("latin1")));
}

/** undici joins the values of one name in HTTP/2, and tells names apart by their case. */
function lowerNames(headers: readonly string[]): string[] {
  return headers.map((item, i) => (i % 2 === 0 ? item.toLowerCase() : item));
}

function withToken(headers: readonly string[], token: string): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]!.toLowerCase() !== "dapr-api-token") kept.push(headers[i]!, headers[i + 1]!);
  }
  return [...kept, "dapr-api-token", token];
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}
