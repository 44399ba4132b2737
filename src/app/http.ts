/**
 * Requests to an HTTP app on one keep-alive pool: our own for plain HTTP/1.1 (http1/), undici's for all else. Bodies of
 * invocations may be streams both ways (http-exchange.ts), those of callbacks are whole; redirects are not followed;
 * there is no timeout but the caller's signal.
 */
import type { buildConnector } from "undici";
import type { BodyStream, Clock, MeshRequest, MeshResponse } from "../../mesh/index.ts";
import { upgradeName } from "../api/upgrade.ts";
import type { AppHttpRequest, AppHttpResponse } from "./channel.ts";
import { asksForGzip, isGzip, unpackGzip, unpackStream, withoutEncoding } from "./gzip.ts";
import { forwardResponseHeaders, headerValue } from "./headers.ts";
import { type Answer, Exchange, Unanswered } from "./http-exchange.ts";
import type { Request } from "./http1/connection.ts";
import { AppPool } from "./http1/pool.ts";
import { Http2Body } from "./http2-body.ts";
import { netErrorText, requestErrorText } from "./net-error.ts";
import { UndiciPool } from "./undici.ts";
import type { Tunnel } from "./websocket.ts";

/** Largest answer that is unpacked in one go, bytes: what was whole before may be a thousand times as large after. */
const maxUnpackedBytes = 64 * 1024 * 1024;

export type HttpAppOptions = {
  readonly scheme: "http" | "https";
  readonly host: string;
  readonly port: number;
  /** APP_API_TOKEN, sent as `dapr-api-token`. */
  readonly apiToken: string | undefined;
  /** Largest header section of an answer, bytes (--read-buffer-size). */
  readonly maxHeaderBytes: number;
  readonly clock: Clock;
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

/** How the answer to a request is taken. */
type Taking = { readonly signal: AbortSignal; readonly streams: boolean; readonly onDone?: () => void };

/** Verbs that may reach the app twice. */
const repeatable = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);
/** Further tries of a request whose connection broke before the answer began. */
const maxRepeats = 2;

export class HttpApp {
  readonly #options: HttpAppOptions;
  readonly #origin: string;
  readonly #pool: Pick<UndiciPool, "dispatch" | "destroy" | "close">;
  readonly #tunnels = new Set<Tunnel>();

  constructor(options: HttpAppOptions) {
    this.#options = options;
    const host = options.host.includes(":") ? `[${options.host}]` : options.host;
    this.#origin = options.origin ?? `${options.scheme}://${host}:${options.port}`;
    const plain = options.scheme === "http" && options.http2 === undefined && options.connect === undefined;
    this.#pool = plain ? new AppPool(options) : new UndiciPool(this.#origin, options);
  }

  /**
   * Service invocation. Hop-by-hop headers of the answer are dropped. Its body is whole when it is there at once. The
   * signal also counts while it is read. `onDone` is called when the app has sent all of it, or failed.
   */
  async invoke(request: MeshRequest, signal: AbortSignal, onDone?: () => void): Promise<MeshResponse> {
    const { verb, headers: given, body: content } = request;
    const path = request.query === "" ? request.path : `${request.path}?${request.query}`;
    if (!(content instanceof Uint8Array) && headerValue(given, upgradeName) !== undefined)
      return this.#openTunnel(path, request.headers, content, signal, onDone);
    const gzip = asksForGzip(verb, given);
    const asked = gzip ? [...given, "Accept-Encoding", "gzip"] : given;
    const taking = onDone === undefined ? { signal, streams: true } : { signal, streams: true, onDone };
    const { status, headers, body } = await this.#send(
      { verb, path, headers: asked, body: request.body },
      taking,
    );
    // Answers without a body keep the header: there is nothing to unpack.
    if (!gzip || body.length === 0 || !isGzip(headers))
      return { status, headers: forwardResponseHeaders(headers), body };
    const whole = body instanceof Uint8Array;
    return {
      status,
      headers: forwardResponseHeaders(withoutEncoding(headers)),
      body: whole ? await unpackGzip(body, maxUnpackedBytes) : unpackStream(body),
    };
  }

  async http(request: AppHttpRequest, signal: AbortSignal): Promise<AppHttpResponse> {
    return (await this.#send(request, { signal, streams: false })) as Answer & { readonly body: Buffer };
  }

  /** Ends what has no end of its own: WebSockets. */
  endTunnels(): void {
    for (const tunnel of this.#tunnels) tunnel.end();
  }

  close(): Promise<void> {
    return this.#pool.destroy();
  }

  /** Takes no more requests; ends when those under way are answered. */
  retire(): Promise<void> {
    return this.#pool.close();
  }

  async #openTunnel(
    path: string,
    given: readonly string[],
    body: BodyStream,
    signal: AbortSignal,
    onDone: (() => void) | undefined,
  ): Promise<MeshResponse> {
    const { apiToken, http2 } = this.#options;
    if (http2 === "prior-knowledge") throw new Error("an app on h2c takes no WebSocket");
    const headers = apiToken === undefined ? given : withToken(given, apiToken);
    const { openTunnel } = await import("./websocket.ts");
    const onOpen = (tunnel: Tunnel): void => void this.#tunnels.add(tunnel);
    const onClose = (tunnel: Tunnel): void => {
      this.#tunnels.delete(tunnel);
      onDone?.();
    };
    try {
      const options = { ...this.#options, signal, onOpen, onClose };
      const answer = await openTunnel(path, withoutName(headers, upgradeName), body, options);
      if (answer.status !== 101) onDone?.();
      return answer;
    } catch (cause) {
      if (signal.aborted) throw cause;
      throw this.#failure({ verb: "GET", path, headers, body: undefined }, cause);
    }
  }

  async #send(request: Request, taking: Taking): Promise<Answer> {
    const { apiToken, http2 } = this.#options;
    const { verb, path } = request;
    const given = request.headers as string[];
    let headers = apiToken === undefined ? given : withToken(given, apiToken);
    if (http2 !== undefined) headers = lowerNames(headers);
    let body = request.body;
    if (body?.length === 0) body = undefined;
    else if (body !== undefined && !(body instanceof Uint8Array) && body.length !== undefined)
      headers = [...headers, "Content-Length", String(body.length)];
    try {
      return await this.#exchange({ verb, path, headers, body }, taking);
    } catch (cause) {
      if (taking.signal.aborted) throw cause;
      throw this.#failure(request, cause);
    }
  }

  #failure({ verb, path }: Request, cause: unknown): Error {
    const reason = netErrorText(cause, this.#options.host, this.#options.port);
    return new Error(requestErrorText(verb, this.#origin + path, reason), { cause });
  }

  /**
   * An app that was restarted has closed connections which the pool still holds. A request on such a one gets no byte
   * of an answer: it is sent again when doing it twice does no harm. Others fail, because the app may have begun.
   */
  async #exchange(request: Request, taking: Taking): Promise<Answer> {
    const whole = request.body === undefined || request.body instanceof Uint8Array;
    for (let tries = 0; ; tries++) {
      try {
        return await this.#dispatch(request, taking);
      } catch (error) {
        const stale =
          whole && repeatable.has(request.verb) && error instanceof Unanswered && !taking.signal.aborted;
        if (!stale || tries === maxRepeats) throw error;
        // Other connections of the same app are noticed as closed in this turn of the event loop.
        await nextTurn();
      }
    }
  }

  #dispatch(request: Request, { signal, streams, onDone }: Taking): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const { clock, http2 } = this.#options;
      const explain = (error: Error): Error => this.#failure(request, error);
      const body = request.body instanceof Uint8Array ? undefined : request.body;
      const http2Body = http2 === undefined || body === undefined ? undefined : new Http2Body(body);
      const exchange = new Exchange(
        { signal, clock, streams, body, http2Body, explain, onDone },
        resolve,
        reject,
      );
      this.#pool.dispatch(request, exchange, http2Body);
    });
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** undici joins the values of one name in HTTP/2, and tells names apart by their case. */
function lowerNames(headers: readonly string[]): string[] {
  return headers.map((item, i) => (i % 2 === 0 ? item.toLowerCase() : item));
}

function withToken(headers: readonly string[], token: string): string[] {
  return [...withoutName(headers, "dapr-api-token"), "dapr-api-token", token];
}

/** `name` in lower case. */
function withoutName(headers: readonly string[], name: string): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]!.toLowerCase() !== name) kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}
