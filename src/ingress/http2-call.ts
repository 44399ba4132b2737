/** One HTTP/2 request as blocks see it: the same call over node:http2, its pseudo headers turned into plain ones. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { NodeHttpCall } from "./node-call.ts";

export class Http2Call extends NodeHttpCall {
  readonly #http2: Http2ServerRequest;
  #flat: string[] | undefined;
  #named: IncomingMessage["headers"] | undefined;
  #gone: AbortController | undefined;
  #complete = false;

  constructor(request: Http2ServerRequest, response: Http2ServerResponse, url: string, maxBodyBytes: number) {
    // node keeps both APIs alike; what differs is overridden here.
    super(request as unknown as IncomingMessage, response as unknown as ServerResponse, url, maxBodyBytes);
    this.#http2 = request;
    const { stream } = request;
    // node ends the request of a stream that was reset, too, and then calls it complete.
    stream.once("end", () => (this.#complete = !stream.closed));
  }

  protected override receivedHeaders(): IncomingMessage["headers"] {
    if (this.#named === undefined) {
      const named: Record<string, string | string[] | undefined> = {};
      for (const [name, value] of Object.entries(this.#http2.headers))
        if (!name.startsWith(":")) named[name] = value;
      named["host"] ??= this.#http2.authority;
      this.#named = named;
    }
    return this.#named;
  }

  protected override receivedRawHeaders(): readonly string[] {
    if (this.#flat === undefined) {
      const raw = this.#http2.rawHeaders;
      const flat: string[] = [];
      for (let i = 0; i + 1 < raw.length; i += 2)
        if (!raw[i]!.startsWith(":")) flat.push(raw[i]!, raw[i + 1]!);
      this.#flat = flat;
    }
    return this.#flat;
  }

  override get signal(): AbortSignal {
    if (this.#gone === undefined) {
      const gone = new AbortController();
      this.#gone = gone;
      const { stream } = this.#http2;
      stream.once("close", () => {
        if (!stream.writableFinished) gone.abort(new Error("the client went away"));
      });
    }
    return this.#gone.signal;
  }

  protected override bodyComplete(): boolean {
    return this.#complete;
  }

  protected override bodyLost(): boolean {
    return this.#http2.stream.destroyed;
  }

  protected override hasBody(): boolean {
    return !this.#http2.stream.endAfterHeaders;
  }

  protected override expectsContinue(): boolean {
    return this.#http2.headers.expect?.toLowerCase() === "100-continue";
  }
}
