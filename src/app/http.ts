/**
 * Requests to an HTTP app on one keep-alive pool, by undici's dispatch (25 us; `request` takes 40, `fetch` 150).
 * Bodies of invocations may be streams both ways (http-exchange.ts), those of callbacks are whole; redirects are not
 * followed; there is no timeout but the caller's signal.
 */
// The pool alone: undici's index loads three times as much code and memory (docs/decisions/0005).
import Pool from "undici/lib/dispatcher/pool.js";
import type { Dispatcher } from "undici";
import type { BodyStream, Clock, MeshRequest, MeshResponse } from "../../mesh/index.ts";
import type { AppHttpRequest, AppHttpResponse } from "./channel.ts";
import { readGrpcCaller, withoutMeshOnly } from "../api/grpc-caller.ts";
import { forwardRequestHeaders, forwardResponseHeaders } from "./headers.ts";
import { type Answer, Exchange } from "./http-exchange.ts";
import { netErrorText, requestErrorText } from "./net-error.ts";

const connectTimeoutMs = 10_000;

export type HttpAppOptions = {
  readonly scheme: "http" | "https";
  readonly host: string;
  readonly port: number;
  /** APP_API_TOKEN, sent as `dapr-api-token`. */
  readonly apiToken: string | undefined;
  /** Largest header section of an answer, bytes (--read-buffer-size). */
  readonly maxHeaderBytes: number;
  readonly clock: Clock;
};

type Outgoing = {
  readonly verb: string;
  readonly path: string;
  readonly headers: readonly string[];
  readonly body: Uint8Array | BodyStream | undefined;
};

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

  /**
   * Service invocation. Hop-by-hop headers of the answer are dropped. Its body is whole when it is there at once. The
   * signal also counts while it is read. `onDone` is called when the app has sent all of it, or failed.
   */
  async invoke(request: MeshRequest, signal: AbortSignal, onDone?: () => void): Promise<MeshResponse> {
    const { verb, body } = request;
    const path = request.query === "" ? request.path : `${request.path}?${request.query}`;
    const outgoing = { verb, path, headers: appHeaders(request.headers), body };
    const answer = await this.#send(outgoing, signal, true, onDone);
    return { status: answer.status, headers: forwardResponseHeaders(answer.headers), body: answer.body };
  }

  async http(request: AppHttpRequest, signal: AbortSignal): Promise<AppHttpResponse> {
    return (await this.#send(request, signal, false)) as Answer & { readonly body: Buffer };
  }

  close(): Promise<void> {
    return this.#pool.destroy();
  }

  async #send(
    request: Outgoing,
    signal: AbortSignal,
    streams: boolean,
    onDone?: () => void,
  ): Promise<Answer> {
    const { apiToken } = this.#options;
    const { verb, path } = request;
    const given = request.headers as string[];
    let headers = apiToken === undefined ? given : withToken(given, apiToken);
    let body = request.body;
    if (body?.length === 0) body = undefined;
    else if (body !== undefined && !(body instanceof Uint8Array) && body.length !== undefined)
      headers = [...headers, "Content-Length", String(body.length)];
    try {
      return await this.#dispatch({ verb, path, headers, body }, signal, streams, onDone);
    } catch (cause) {
      if (signal.aborted) throw cause;
      throw this.#failure(request, cause);
    }
  }

  #failure({ verb, path }: Outgoing, cause: unknown): Error {
    const reason = netErrorText(cause, this.#options.host, this.#options.port);
    return new Error(requestErrorText(verb, this.#origin + path, reason), { cause });
  }

  #dispatch(
    request: Outgoing,
    signal: AbortSignal,
    streams: boolean,
    onDone: (() => void) | undefined,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const { path, verb: method, body } = request;
      const { clock } = this.#options;
      const explain = (error: Error): Error => this.#failure(request, error);
      const stream = body instanceof Uint8Array ? undefined : body;
      const exchange = new Exchange(
        { signal, clock, streams, body: stream, explain, onDone },
        resolve,
        reject,
      );
      const headers = request.headers as string[];
      this.#pool.dispatch({ path, method, headers, body: (body as Buffer) ?? null }, exchange);
    });
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

function withToken(headers: readonly string[], token: string): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]!.toLowerCase() !== "dapr-api-token") kept.push(headers[i]!, headers[i + 1]!);
  }
  return [...kept, "dapr-api-token", token];
}
