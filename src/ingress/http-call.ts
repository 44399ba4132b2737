/** One HTTP request as blocks see it (api/http.ts), over node:http. Everything is computed on first use. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { type ApiError, bodyTooLarge, bodyUnreadable } from "../api/errors.ts";
import { BodyTooLarge, type HttpCall } from "../api/http.ts";
import { BodyQueue, type BodyStream, failedBody } from "../../mesh/index.ts";
import type { Span } from "../telemetry/tracing/span.ts";
import { cleanPath } from "./router.ts";

const noBody = Buffer.alloc(0);
/** A body of known length is whole up to this, bytes; larger ones would make a slow client visible as memory. */
const wholeBytes = 256 * 1024;
/** The client's socket is paused above this, bytes; two reads. */
const highWaterBytes = 128 * 1024;

export class NodeHttpCall implements HttpCall {
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
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  #streaming = false;
  #refused = false;
  #changed: { readonly flat: readonly string[]; named: IncomingMessage["headers"] | undefined } | undefined;
  #body: Buffer | undefined;
  #abort: AbortController | undefined;
  #search: URLSearchParams | undefined;

  /** `target` as in the request line. */
  constructor(request: IncomingMessage, response: ServerResponse, target: string, maxBodyBytes: number) {
    this.#request = request;
    this.#response = response;
    this.verb = request.method ?? "GET";
    const url = pathOf(target);
    const mark = url.indexOf("?");
    this.rawPath = mark < 0 ? url : url.slice(0, mark);
    this.path = cleanPath(this.rawPath);
    this.query = mark < 0 ? "" : url.slice(mark + 1);
    this.maxBodyBytes = maxBodyBytes;
  }

  /** A streamed body is above the limit; the connection cannot be used again. */
  get bodyRefused(): boolean {
    return this.#refused;
  }

  /** A streamed body of which more may come. */
  get bodyOpen(): boolean {
    return (this.#streaming || this.#refused) && !this.bodyComplete() && !this.#request.destroyed;
  }

  /** Calls back when no more of the body can come. */
  onBodyEnd(listener: () => void): void {
    if (this.bodyComplete() || this.#request.destroyed) return listener();
    this.#request.once("end", listener);
    this.#request.once("close", listener);
  }

  /** Lets the rest of the body pass by, unread. */
  discardBody(): void {
    this.#request.resume();
  }

  get headers(): IncomingMessage["headers"] {
    return this.#changed === undefined
      ? this.receivedHeaders()
      : (this.#changed.named ??= byName(this.#changed.flat));
  }

  get rawHeaders(): readonly string[] {
    return this.#changed?.flat ?? this.receivedRawHeaders();
  }

  /** `HTTP/1.1` or `HTTP/2.0`. */
  get protocol(): string {
    return `HTTP/${this.#request.httpVersion}`;
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

  get remoteAddress(): string {
    return this.#request.socket.remoteAddress ?? "";
  }

  get remotePort(): number {
    return this.#request.socket.remotePort ?? 0;
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = new AbortController();
      this.#abort = abort;
      this.#response.once("close", () => {
        if (!this.#response.writableFinished) abort.abort(new Error("the client went away"));
      });
    }
    return this.#abort.signal;
  }

  body(): Promise<Buffer> {
    if (this.#body !== undefined) return Promise.resolve(this.#body);
    const request = this.#request;
    if (!this.hasBody()) return Promise.resolve(noBody);
    const declared = request.headers["content-length"];
    if (declared !== undefined && Number(declared) > this.maxBodyBytes)
      return Promise.reject(this.#bodyTooLarge());
    if (this.expectsContinue()) this.#response.writeContinue();
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let size = 0;
      request.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (size > this.maxBodyBytes) {
          request.pause();
          reject(this.#bodyTooLarge());
          return;
        }
        chunks.push(chunk);
      });
      request.once("end", () => {
        if (!this.bodyComplete()) return reject(bodyUnreadable("unexpected EOF"));
        resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, size));
      });
      request.once("error", (cause) => reject(bodyUnreadable(cause.message, cause)));
      request.once("close", () => {
        if (!this.bodyComplete()) reject(bodyUnreadable("unexpected EOF"));
      });
    });
  }

  async content(): Promise<Uint8Array | BodyStream> {
    if (this.#body !== undefined) return this.#body;
    if (!this.hasBody()) return noBody;
    const stated = this.#request.headers["content-length"];
    const declared = stated === undefined ? undefined : Number(stated);
    if (declared !== undefined && declared > this.maxBodyBytes) {
      this.#refused = true;
      return failedBody(new BodyTooLarge(this.maxBodyBytes), declared);
    }
    if (declared !== undefined && declared <= wholeBytes) return this.body();
    if (this.expectsContinue()) this.#response.writeContinue();
    const queue = this.#stream(declared);
    if (declared !== undefined) return queue;
    // What came in one packet with the head is there after this.
    await new Promise<void>((resolve) => setImmediate(resolve));
    return queue.ended ? queue.takeReady(this.maxBodyBytes) : queue;
  }

  #stream(length: number | undefined): BodyQueue {
    const request = this.#request;
    this.#streaming = true;
    let size = 0;
    const onTaken = (): void => {
      if (queue.bufferedBytes < highWaterBytes / 2) request.resume();
    };
    const queue = new BodyQueue({ onTaken, onCancel: () => this.discardBody() }, length);
    request.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size > this.maxBodyBytes) {
        this.#refused = true;
        queue.fail(new BodyTooLarge(this.maxBodyBytes));
      }
      queue.push(chunk);
      if (queue.bufferedBytes >= highWaterBytes) request.pause();
    });
    const cutOff = (): void => queue.fail(bodyUnreadable("unexpected EOF"));
    request.once("end", () => (this.bodyComplete() ? queue.end() : cutOff()));
    request.once("error", (cause) => queue.fail(bodyUnreadable(cause.message, cause)));
    request.once("close", () => this.bodyComplete() || cutOff());
    return queue;
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

  protected receivedHeaders(): IncomingMessage["headers"] {
    return this.#request.headers;
  }

  protected receivedRawHeaders(): readonly string[] {
    return this.#request.rawHeaders;
  }

  /** The client has sent the body to its end. */
  protected bodyComplete(): boolean {
    return this.#request.complete;
  }

  protected hasBody(): boolean {
    const { headers } = this.#request;
    return headers["content-length"] !== undefined || headers["transfer-encoding"] !== undefined;
  }

  /** The client sends the body only when asked: `Expect: 100-continue`. */
  protected expectsContinue(): boolean {
    return this.#request.headers.expect?.toLowerCase() === "100-continue";
  }

  #parameters(): URLSearchParams {
    return (this.#search ??= new URLSearchParams(this.query));
  }

  /** The rest of such a body is never read, so its connection ends with the answer. */
  #bodyTooLarge(): ApiError {
    this.#response.shouldKeepAlive = false;
    return bodyTooLarge(this.maxBodyBytes);
  }
}

/** As node names them: lower case, repeated ones joined. */
function byName(flat: readonly string[]): IncomingMessage["headers"] {
  const named: Record<string, string> = {};
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const name = flat[i]!.toLowerCase();
    const before = named[name];
    named[name] =
      before === undefined ? flat[i + 1]! : `${before}${name === "cookie" ? "; " : ", "}${flat[i + 1]!}`;
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
