/**
 * One HTTP request as blocks see it (api/http.ts), whatever it came in on. Everything is computed on first use.
 * node-call.ts has what came through node:http, short-call.ts what did not need it.
 */
import type { IncomingHttpHeaders } from "node:http";
import type { HttpCall } from "../api/http.ts";
import type { BodyStream } from "../../mesh/index.ts";
import type { Span } from "../telemetry/tracing/span.ts";
import { cleanPath } from "./router.ts";

/** A body of known length is whole up to this, bytes; larger ones would make a slow client visible as memory. */
export const wholeBodyBytes = 256 * 1024;

export abstract class IncomingCall implements HttpCall {
  verb: string;
  path: string;
  rawPath: string;
  query: string;
  readonly maxBodyBytes: number;
  params: readonly string[] = [];
  endpoint?: string;
  /** Group of the route; empty for the fallback. */
  group = "";
  /** It came as far as the API log. */
  logged = false;
  span: Span | undefined;
  #changed: { readonly flat: readonly string[]; named: IncomingHttpHeaders | undefined } | undefined;
  #body: Buffer | undefined;
  #search: URLSearchParams | undefined;

  /** `target` as in the request line. */
  constructor(verb: string, target: string, maxBodyBytes: number) {
    this.verb = verb;
    const url = pathOf(target);
    const mark = url.indexOf("?");
    this.rawPath = mark < 0 ? url : url.slice(0, mark);
    this.path = cleanPath(this.rawPath);
    this.query = mark < 0 ? "" : url.slice(mark + 1);
    this.maxBodyBytes = maxBodyBytes;
  }

  /** `HTTP/1.1` or `HTTP/2.0`. */
  abstract get protocol(): string;
  abstract get remoteAddress(): string;
  abstract get remotePort(): number;
  abstract get signal(): AbortSignal;

  get headers(): IncomingHttpHeaders {
    return this.#changed === undefined
      ? this.receivedHeaders()
      : (this.#changed.named ??= headersByName(this.#changed.flat));
  }

  get rawHeaders(): readonly string[] {
    return this.#changed?.flat ?? this.receivedRawHeaders();
  }

  /** A middleware wants another path (encoded) and query (raw). */
  moveTo(rawPath: string, query: string): void {
    this.rawPath = rawPath;
    this.path = cleanPath(rawPath);
    this.query = query;
    this.#search = undefined;
  }

  /** A middleware wants these headers, a flat list. */
  setHeaders(flat: readonly string[]): void {
    this.#changed = { flat, named: undefined };
  }

  /** A middleware has read the body, or wants another. */
  setBody(body: Uint8Array): void {
    this.#body = Buffer.from(body.buffer, body.byteOffset, body.length);
  }

  body(): Promise<Buffer> {
    return this.#body === undefined ? this.receivedBody() : Promise.resolve(this.#body);
  }

  content(): Promise<Uint8Array | BodyStream> {
    return this.#body === undefined ? this.receivedContent() : Promise.resolve(this.#body);
  }

  queryValue(name: string): string | undefined {
    return this.query === "" ? undefined : (this.#parameters().get(name) ?? undefined);
  }

  queryValues(name: string): string[] {
    return this.query === "" ? [] : this.#parameters().getAll(name);
  }

  metadata(): Record<string, string> {
    const metadata: Record<string, string> = {};
    if (this.query === "") return metadata;
    for (const [name, value] of this.#parameters()) {
      if (!name.startsWith("metadata.")) continue;
      const key = name.slice("metadata.".length);
      if (!Object.hasOwn(metadata, key)) metadata[key] = value;
    }
    return metadata;
  }

  protected abstract receivedHeaders(): IncomingHttpHeaders;
  protected abstract receivedRawHeaders(): readonly string[];
  protected abstract receivedBody(): Promise<Buffer>;
  protected abstract receivedContent(): Promise<Uint8Array | BodyStream>;

  #parameters(): URLSearchParams {
    return (this.#search ??= new URLSearchParams(this.query));
  }
}

/** As node names them: lower case, repeated ones joined. */
export function headersByName(flat: readonly string[]): IncomingHttpHeaders {
  const named: Record<string, string> = {};
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const name = flat[i]!.toLowerCase();
    const before: unknown = named[name];
    const value = flat[i + 1]!;
    // Not what every object has, such as `constructor`.
    named[name] = typeof before === "string" ? `${before}${name === "cookie" ? "; " : ", "}${value}` : value;
  }
  return named;
}

/** Path and query of a request target; clients of proxies send a whole URL, CONNECT an authority. */
function pathOf(target: string): string {
  if (target.startsWith("/")) return target;
  const path = /^[a-z][a-z0-9+.-]*:\/\/[^/?]*(.*)$/is.exec(target)?.[1];
  if (path === undefined) return "/";
  return path.startsWith("/") ? path : `/${path}`;
}
