/**
 * Requests to an HTTP app on one keep-alive pool, by undici's dispatch (25 us; `request` takes 40, `fetch` 150).
 * Bodies are whole on both sides; redirects are not followed; there is no timeout but the caller's signal.
 */
// The pool alone: undici's index loads three times as much code and memory (docs/decisions/0005).
import Pool from "undici/lib/dispatcher/pool.js";
import type { Dispatcher } from "undici";
import type { MeshRequest, MeshResponse } from "../../mesh/index.ts";
import type { AppHttpRequest, AppHttpResponse } from "./channel.ts";
import { readGrpcCaller, withoutMeshOnly } from "../api/grpc-caller.ts";
import { forwardRequestHeaders, forwardResponseHeaders } from "./headers.ts";
import { netErrorText, requestErrorText } from "./net-error.ts";

/** Largest answer kept in memory, bytes; larger ones wait for streaming bodies. */
const maxResponseBytes = 64 * 1024 * 1024;
const connectTimeoutMs = 10_000;

export type HttpAppOptions = {
  readonly scheme: "http" | "https";
  readonly host: string;
  readonly port: number;
  /** APP_API_TOKEN, sent as `dapr-api-token`. */
  readonly apiToken: string | undefined;
  /** Largest header section of an answer, bytes (--read-buffer-size). */
  readonly maxHeaderBytes: number;
};

/** What undici's handler tells us about one exchange. */
type Answer = { status: number; headers: string[]; body: Buffer };

export class HttpApp {
  readonly #options: HttpAppOptions;
  readonly #origin: string;
  readonly #pool: Dispatcher;

  constructor(options: HttpAppOptions) {
    this.#options = options;
    const host = options.host.includes(":") ? `[${options.host}]` : options.host;
    this.#origin = `${options.scheme}://${host}:${options.port}`;
    this.#pool = new Pool(this.#origin, {
      connections: null,
      pipelining: 1,
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: 60_000,
      maxHeaderSize: options.maxHeaderBytes,
      // The app is on this host: its certificate names whatever it likes, as with daprd.
      connect: { timeout: connectTimeoutMs, rejectUnauthorized: false },
    });
  }

  /** Service invocation. Hop-by-hop headers of the answer are dropped. */
  async invoke(request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const path = request.query === "" ? request.path : `${request.path}?${request.query}`;
    const headers = appHeaders(request.headers);
    const answer = await this.#send(request.verb, path, headers, request.body, signal);
    return { status: answer.status, headers: forwardResponseHeaders(answer.headers), body: answer.body };
  }

  http(request: AppHttpRequest, signal: AbortSignal): Promise<AppHttpResponse> {
    return this.#send(request.verb, request.path, request.headers, request.body, signal);
  }

  close(): Promise<void> {
    return this.#pool.destroy();
  }

  async #send(
    verb: string,
    path: string,
    headers: readonly string[],
    body: Uint8Array | undefined,
    signal: AbortSignal,
  ): Promise<Answer> {
    const { apiToken } = this.#options;
    const all = apiToken === undefined ? (headers as string[]) : withToken(headers, apiToken);
    try {
      return await this.#dispatch({ verb, path, headers: all, body }, signal);
    } catch (cause) {
      if (signal.aborted) throw cause;
      const reason = netErrorText(cause, this.#options.host, this.#options.port);
      throw new Error(requestErrorText(verb, this.#origin + path, reason), { cause });
    }
  }

  #dispatch(
    request: { verb: string; path: string; headers: string[]; body: Uint8Array | undefined },
    signal: AbortSignal,
  ): Promise<Answer> {
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
    this.#reject(error);
  }

  #release(): void {
    if (this.#onAbort !== undefined) this.#signal.removeEventListener("abort", this.#onAbort);
  }
}

/** A gRPC caller's metadata comes unfiltered, because its sidecar cannot know that this app speaks HTTP. */
function appHeaders(headers: readonly string[]): readonly string[] {
  const caller = readGrpcCaller(headers);
  if (caller === undefined) return headers;
  const typed = caller.contentType === "" && caller.dataType !== "";
  const extra = typed ? ["Content-Type", "application/x-protobuf"] : [];
  return forwardRequestHeaders(withoutMeshOnly(headers), extra);
}

function textHeaders(raw: Dispatcher.DispatchController["rawHeaders"]): string[] {
  if (!Array.isArray(raw)) return Object.entries(raw ?? {}).flatMap(([name, value]) => [name, String(value)]);
  return raw.map((item) => (typeof item === "string" ? item : item.toString("latin1")));
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
