/**
 * The HTTP API as blocks see it: a route table of plain functions over an already framed call.
 * Sockets, limits and the shared steps stand in ingress/http.ts and guard.ts.
 */
import type { BodyStream } from "../../mesh/index.ts";
import type { Span } from "../telemetry/tracing/span.ts";

/** One request. Everything lazy is computed on first use. */
export type HttpCall = {
  /** Name of what answers, for the API log: that of the route, unless a block says more (`InvokeService/orders`). */
  endpoint?: string;
  /** The span of this request, to go on with; undefined when tracing is off. */
  readonly span?: Span | undefined;
  readonly verb: string;
  /** Cleaned path, still percent-encoded, with its leading slash. */
  readonly path: string;
  /** Path as it came, neither cleaned nor decoded. */
  readonly rawPath: string;
  /** Path parameters in the order of the route, decoded by query rules (`+` is a space). */
  readonly params: readonly string[];
  /** Raw query without `?`. */
  readonly query: string;
  /** Lower-case names; repeated ones joined as node:http does. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** As received: name, value, name, value. */
  readonly rawHeaders: readonly string[];
  /** Aborted when the client goes away or the sidecar stops. */
  readonly signal: AbortSignal;
  /** The whole body. Rejects with ERR_BODY_READ above the size limit. */
  body(): Promise<Buffer>;
  /**
   * The body as service invocation passes it on: whole when it is short or there at once, else a stream, which fails
   * with BodyTooLarge above the size limit. Rejects as `body` does for a short one.
   */
  content(): Promise<Uint8Array | BodyStream>;
  /** The client wants to go on in WebSocket: `content` is what it will send, and a reply of status 101 is the start. */
  readonly upgrade?: "websocket";
  /** First value of a query parameter, decoded; undefined when absent. */
  queryValue(name: string): string | undefined;
  /** All values of a query parameter. */
  queryValues(name: string): string[];
  /** Query parameters `metadata.<name>=value`, prefix removed, first value wins. */
  metadata(): Record<string, string>;
};

/** A streamed body is above the size limit of this sidecar. The text is what clients of Dapr look for. */
export class BodyTooLarge extends Error {
  readonly limitBytes: number;

  constructor(limitBytes: number) {
    super("stream too large");
    this.name = "BodyTooLarge";
    this.limitBytes = limitBytes;
  }
}

/** `body` as a string is UTF-8. Without body and with status 204 nothing is sent. */
export type HttpReply = {
  readonly status: number;
  /** Name to value; a list repeats the header. Written as given. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  /** Further headers as a flat name, value list. */
  readonly rawHeaders?: readonly string[];
  readonly body?: Uint8Array | string | BodyStream;
};

export type HttpRoute = {
  readonly verbs: readonly string[];
  /**
   * Like `/v1.0/state/{store}/{key}`; a last part `{name...}` takes the rest, slashes included, and at least one
   * character.
   */
  readonly path: string;
  /** Name for API logging and metrics, e.g. `GetState`. */
  readonly name: string;
  /** API list group, e.g. `state`. */
  readonly group: string;
  readonly handle: (call: HttpCall) => Promise<HttpReply> | HttpReply;
};

/** Empty success, shared so that hot paths allocate nothing. */
export const noContent: HttpReply = Object.freeze({ status: 204 });

const jsonHeaders = Object.freeze({ "Content-Type": "application/json" });

/** A 200 (or other) JSON reply from text or bytes that already are JSON. */
export function jsonReply(body: string | Uint8Array, status = 200): HttpReply {
  return { status, headers: jsonHeaders, body };
}
