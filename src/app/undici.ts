/** undici's pool, loaded with the first request: for apps with TLS or HTTP/2, and for servers outside. */
import type { Dispatcher } from "undici";
import { asError } from "../lib/thrown.ts";
import type { HttpAppOptions } from "./http.ts";
import type { Exchange } from "./http-exchange.ts";
import type { Http2Body } from "./http2-body.ts";
import type { Request } from "./http1/connection.ts";

/** The app is on this host: its certificate names whatever it likes, as with daprd. HTTP/2 goes first where offered. */
const appConnection = { timeout: 10_000, rejectUnauthorized: false, preferH2: true };

export class UndiciPool {
  readonly #open: () => Promise<Dispatcher>;
  #pool: Promise<Dispatcher> | undefined;
  #closed = false;

  constructor(origin: string, options: HttpAppOptions) {
    this.#open = () => openPool(origin, options);
  }

  /** The exchange is told all, refusals included. `http2Body` goes in place of the request's own body. */
  dispatch({ verb, path, headers, body }: Request, exchange: Exchange, http2Body?: Http2Body): void {
    if (this.#closed) return exchange.onResponseError(undefined, new Error("The client is closed"));
    this.#pool ??= this.#open();
    const sent = http2Body ?? (body as Buffer | undefined) ?? null;
    const request = { path, method: verb, headers: headers as string[], body: sent };
    this.#pool.then(
      (pool) => pool.dispatch(request, exchange),
      (error) => exchange.onResponseError(undefined, asError(error)),
    );
  }

  /** Ends every request. */
  async destroy(): Promise<void> {
    this.#closed = true;
    await (await this.#pool)?.destroy();
  }

  /** Takes no more requests; resolves when those under way have ended. */
  async close(): Promise<void> {
    this.#closed = true;
    await (await this.#pool)?.close();
  }
}

async function openPool(origin: string, options: HttpAppOptions): Promise<Dispatcher> {
  // The pool alone: undici's index loads three times as much code and memory (docs/decisions/0005).
  const { default: Pool } = await import("undici/lib/dispatcher/pool.js");
  return new Pool(origin, {
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
