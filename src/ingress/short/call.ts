/** A request that is short and plain (head.ts). Its body is whole, and perhaps still on its way. */
import type { IncomingHttpHeaders } from "node:http";
import type { Socket } from "node:net";
import { bodyUnreadable } from "../../api/errors.ts";
import { IncomingCall } from "../http-call.ts";
import type { ShortHead } from "./head.ts";

const noBody = Buffer.alloc(0);

export class ShortCall extends IncomingCall {
  readonly #head: ShortHead;
  readonly #socket: Socket;
  /** The pieces of a body that did not come at once. */
  #pieces: Buffer[] | undefined;
  #missing: number;
  #whole: Buffer = noBody;
  #lost = false;
  #gone: AbortController | undefined;
  #wanted: PromiseWithResolvers<Buffer> | undefined;

  /** `came`: what followed the head in its chunk. */
  constructor(socket: Socket, head: ShortHead, came: Buffer, maxBodyBytes: number) {
    super(head.verb, head.target, maxBodyBytes);
    this.#socket = socket;
    this.#head = head;
    this.#missing = head.fields.bodyBytes;
    if (this.#missing > 0) this.take(came);
  }

  /** Body that has not come yet, bytes. */
  get missingBytes(): number {
    return this.#missing;
  }

  /** Takes what belongs to the body and returns how much that was, bytes. */
  take(chunk: Buffer): number {
    const taken = Math.min(chunk.length, this.#missing);
    if (taken === 0) return 0;
    const piece = taken === chunk.length ? chunk : chunk.subarray(0, taken);
    this.#missing -= taken;
    if (this.#missing > 0) (this.#pieces ??= []).push(piece);
    else {
      this.#whole = this.#pieces === undefined ? piece : Buffer.concat([...this.#pieces, piece]);
      this.#wanted?.resolve(this.#whole);
    }
    return taken;
  }

  /** The connection is over before the answer was sent. */
  lost(): void {
    this.#lost = true;
    if (this.#missing > 0) this.#wanted?.reject(bodyUnreadable("unexpected EOF"));
    this.#gone?.abort(clientGone());
  }

  override get protocol(): string {
    return "HTTP/1.1";
  }

  override get remoteAddress(): string {
    return this.#socket.remoteAddress ?? "";
  }

  override get remotePort(): number {
    return this.#socket.remotePort ?? 0;
  }

  override get signal(): AbortSignal {
    if (this.#gone === undefined) {
      this.#gone = new AbortController();
      if (this.#lost) this.#gone.abort(clientGone());
    }
    return this.#gone.signal;
  }

  protected override receivedHeaders(): IncomingHttpHeaders {
    return this.#head.fields.named;
  }

  protected override receivedRawHeaders(): readonly string[] {
    return this.#head.fields.raw;
  }

  protected override receivedBody(): Promise<Buffer> {
    if (this.#missing === 0) return Promise.resolve(this.#whole);
    if (this.#lost) return Promise.reject(bodyUnreadable("unexpected EOF"));
    return (this.#wanted ??= Promise.withResolvers<Buffer>()).promise;
  }

  protected override receivedContent(): Promise<Buffer> {
    return this.receivedBody();
  }
}

function clientGone(): Error {
  return new Error("the client went away");
}
