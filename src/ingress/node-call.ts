/** A request that came through node:http: its body may be of any size, or a stream. */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { type ApiError, bodyTooLarge, bodyUnreadable } from "../api/errors.ts";
import { BodyTooLarge } from "../api/http.ts";
import { BodyQueue, type BodyStream, failedBody } from "../../mesh/index.ts";
import { IncomingCall, wholeBodyBytes } from "./http-call.ts";

const noBody = Buffer.alloc(0);
/** The client's socket is paused above this, bytes; two reads. */
const highWaterBytes = 128 * 1024;

export class NodeHttpCall extends IncomingCall {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  #refused = false;
  #abort: AbortController | undefined;

  /** `target` as in the request line. */
  constructor(request: IncomingMessage, response: ServerResponse, target: string, maxBodyBytes: number) {
    super(request.method ?? "GET", target, maxBodyBytes);
    this.#request = request;
    this.#response = response;
  }

  /** The body is above the limit; the connection cannot be used again. */
  get bodyRefused(): boolean {
    return this.#refused;
  }

  /** More of the body may come. */
  get bodyOpen(): boolean {
    return this.hasBody() && !this.bodyComplete() && !this.#request.destroyed;
  }

  /** Calls back once, when no more of the body can come. */
  onBodyEnd(listener: () => void): void {
    const ended = (): void => {
      this.#request.off("end", ended).off("close", ended);
      listener();
    };
    this.#request.once("end", ended).once("close", ended);
  }

  /** Lets the rest of the body pass by, unread. */
  discardBody(): void {
    this.#request.resume();
  }

  override get protocol(): string {
    return `HTTP/${this.#request.httpVersion}`;
  }

  override get remoteAddress(): string {
    return this.#request.socket.remoteAddress ?? "";
  }

  override get remotePort(): number {
    return this.#request.socket.remotePort ?? 0;
  }

  override get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = new AbortController();
      this.#abort = abort;
      this.#response.once("close", () => {
        if (!this.#response.writableFinished) abort.abort(new Error("the client went away"));
      });
    }
    return this.#abort.signal;
  }

  protected override receivedBody(): Promise<Buffer> {
    const request = this.#request;
    if (!this.hasBody()) return Promise.resolve(noBody);
    const declared = request.headers["content-length"];
    if (declared !== undefined && Number(declared) > this.maxBodyBytes)
      return Promise.reject(this.#bodyTooLarge());
    if (this.bodyLost()) return Promise.reject(bodyUnreadable("unexpected EOF"));
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

  protected override async receivedContent(): Promise<Uint8Array | BodyStream> {
    if (!this.hasBody()) return noBody;
    const stated = this.#request.headers["content-length"];
    const declared = stated === undefined ? undefined : Number(stated);
    if (declared !== undefined && declared > this.maxBodyBytes) {
      this.#refused = true;
      return failedBody(new BodyTooLarge(this.maxBodyBytes), declared);
    }
    if (declared !== undefined && declared <= wholeBodyBytes) return this.receivedBody();
    if (this.expectsContinue()) this.#response.writeContinue();
    if (this.bodyLost()) throw bodyUnreadable("unexpected EOF");
    const queue = this.#stream(declared);
    if (declared !== undefined) return queue;
    // What came in one packet with the head is there after this.
    await new Promise<void>((resolve) => setImmediate(resolve));
    return queue.ended ? queue.takeReady(this.maxBodyBytes) : queue;
  }

  #stream(length: number | undefined): BodyQueue {
    const request = this.#request;
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

  protected override receivedHeaders(): IncomingHttpHeaders {
    return this.#request.headers;
  }

  protected override receivedRawHeaders(): readonly string[] {
    return this.#request.rawHeaders;
  }

  /** The client has sent the body to its end. */
  protected bodyComplete(): boolean {
    return this.#request.complete;
  }

  /** The client went away before the body was asked for, as a slow middleware may do; nothing would tell of its end. */
  protected bodyLost(): boolean {
    return this.#request.destroyed;
  }

  protected hasBody(): boolean {
    const { headers } = this.#request;
    return headers["content-length"] !== undefined || headers["transfer-encoding"] !== undefined;
  }

  /** The client sends the body only when asked: `Expect: 100-continue`. */
  protected expectsContinue(): boolean {
    return this.#request.headers.expect?.toLowerCase() === "100-continue";
  }

  #bodyTooLarge(): ApiError {
    this.#refused = true;
    return bodyTooLarge(this.maxBodyBytes);
  }
}
