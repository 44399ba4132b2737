/**
 * What a middleware component must do: it stands around the handling of a request, sees and may change it, and passes
 * it on or answers itself. Bodies stream past a middleware that does not ask for them.
 */
import type { BodyStream } from "../../mesh/index.ts";

/** A request on its way. Fields are replaced, not changed inside; what stands here when it is passed on counts. */
export type MiddlewareRequest = {
  verb: string;
  /** Percent-encoded, with its leading slash. */
  path: string;
  /** Raw query without `?`. */
  query: string;
  /** Flat list as received; names in the case of the sender. */
  headers: readonly string[];
  /** Address of the client's socket; empty on the way to an app. */
  readonly remoteAddress: string;
  /** `HTTP/1.1` or `HTTP/2.0`. */
  readonly protocol: string;
  /** Largest body that may be held in memory, bytes. */
  readonly maxBodyBytes: number;
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal;
  /** The whole body, which is then in memory. Rejects with ApiError above `maxBodyBytes`. May be asked again. */
  body(): Promise<Uint8Array>;
  /** Replaces the body. */
  setBody(body: Uint8Array): void;
};

/** An answer on its way back. Replace what shall change. */
export type MiddlewareReply = {
  readonly status: number;
  /** Flat list. */
  readonly headers: readonly string[];
  /** A stream is read once: pass it on, read it whole (`wholeBody`) or cancel it. */
  readonly body: Uint8Array | BodyStream;
};

/** Passes the request on. To be called once at most. */
export type Next = () => Promise<MiddlewareReply>;

export type Middleware = {
  /** A throw is answered with 500 and logged; what `next` throws should be let through. */
  handle(request: MiddlewareRequest, next: Next): Promise<MiddlewareReply>;
  close(): Promise<void>;
};
