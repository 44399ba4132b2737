/**
 * The way to a gRPC app: bytes in, bytes out, on node:http2 (docs/decisions: no grpc-js). One shared connection
 * (grpc-session.ts); unary callbacks (grpc-exchange.ts); raw streams for the proxy; service invocation
 * (grpc-invoke.ts).
 */
import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import type { Clock } from "../../mesh/index.ts";
import { GrpcCode } from "../api/errors.ts";
import { sendablePairs, sentTooLarge } from "../lib/grpc-wire.ts";
import type { Log } from "../telemetry/log.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import type { AppGrpcRequest, AppGrpcResponse } from "./channel.ts";
import { abortStatus, RefusedError } from "./grpc-ends.ts";
import { exchange } from "./grpc-exchange.ts";
import { authorityOf, type GrpcAddress, GrpcSessions, unavailable } from "./grpc-session.ts";

export { invokeGrpcApp } from "./grpc-invoke.ts";
export { noAppAnswer, relayToApp } from "./grpc-relay.ts";

/** Connections that the app may end before a call has begun on them. */
const maxLostSessions = 3;

export type GrpcAppClientOptions = GrpcAddress & {
  /** Both ways. */
  readonly maxMessageBytes: number;
  /** APP_API_TOKEN: sent as `dapr-api-token` with nearly every call, in place of a caller's own. */
  readonly apiToken?: string | undefined;
  readonly clock: Clock;
  readonly log: Log;
};

export type GrpcAppClient = {
  readonly maxMessageBytes: number;
  /**
   * One message out, one back; `metadata` in wire form (`-bin` in base64). Rejects with GrpcStatusError: the app's own
   * status, Unavailable when it cannot be reached, Canceled or DeadlineExceeded when the signal is aborted (the latter
   * for a TimeoutError). A call that the app surely did not begin is sent once more.
   */
  unary(request: AppGrpcRequest, signal: AbortSignal): Promise<AppGrpcResponse>;
  /**
   * A stream of any kind, with its request headers sent and nothing else: the caller moves frames, reads headers and
   * trailers and must listen for `error`. `transport` replaces the sidecar's own transport headers (content type,
   * agent, encodings) and may add `grpc-timeout`.
   * Rejects with GrpcStatusError Unavailable; aborting `signal` ends the wait for a connection and resets the stream.
   */
  open(
    path: string,
    metadata: readonly string[],
    signal: AbortSignal,
    transport?: readonly string[],
  ): Promise<ClientHttp2Stream>;
  /** Another number after every loss of all connections; 0 while there is none. */
  generation(): number;
  /** Ends everything at once. */
  close(): void;
};

export function createGrpcAppClient(options: GrpcAppClientOptions): GrpcAppClient {
  const sessions = new GrpcSessions(options, options.clock, options.log);
  const head = new RequestHead(options);

  /** `bound` resets the stream when it is aborted. */
  const begin = async (
    headers: readonly string[],
    signal: AbortSignal,
    bound: AbortSignal | undefined,
  ): Promise<ClientHttp2Stream> => {
    for (let lost = 0; lost < maxLostSessions;) {
      const session = sessions.free();
      if (session !== undefined) return request(session, headers, sessions, bound);
      await unlessAborted(sessions.dial(), signal);
      // With many calls at once, the others may have taken all places of a session that is well.
      if (sessions.size === 0) lost++;
    }
    throw unavailable("the app ends its connections as soon as they are there");
  };

  return {
    maxMessageBytes: options.maxMessageBytes,
    async unary({ path, metadata, message }, signal) {
      if (signal.aborted) throw abortStatus(signal.reason);
      if (message.length > options.maxMessageBytes) {
        const { code, message: text } = sentTooLarge(message.length, options.maxMessageBytes);
        throw new GrpcStatusError(code, text);
      }
      for (let first = true; ; first = false) {
        try {
          // Not bound to the signal: the exchange minds it, so a second listener for each call is spared.
          const stream = await begin(head.of(path, metadata, ownTransport), signal, undefined);
          return await exchange(stream, message, options.maxMessageBytes, signal);
        } catch (error) {
          if (!(first && error instanceof RefusedError)) throw error;
        }
      }
    },
    async open(path, metadata, signal, transport = ownTransport) {
      if (signal.aborted) throw abortStatus(signal.reason);
      const headers = head.of(path, metadata, transport);
      try {
        return await begin(headers, signal, signal);
      } catch (error) {
        if (!(error instanceof RefusedError)) throw error;
        return begin(headers, signal, signal);
      }
    },
    generation: () => sessions.generation,
    close: () => sessions.close(),
  };
}

/** Methods that Dapr calls without the token. */
const withoutToken: ReadonlySet<string> = new Set([
  "/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions",
  "/dapr.proto.runtime.v1.AppCallback/ListInputBindings",
]);

/** Builds the header block; what is the same for all calls is made once. */
class RequestHead {
  readonly #before: readonly string[];
  readonly #token: string | undefined;

  constructor(options: GrpcAppClientOptions) {
    const scheme = options.tls ? "https" : "http";
    this.#before = [":method", "POST", ":scheme", scheme, ":authority", authorityOf(options)];
    this.#token = options.apiToken;
  }

  of(path: string, metadata: readonly string[], transport: readonly string[]): string[] {
    const headers = [...this.#before, ":path", path, "te", "trailers", ...transport];
    const pairs = sendablePairs(metadata);
    for (let i = 0; i + 1 < pairs.length; i += 2) {
      if (this.#token === undefined || pairs[i] !== "dapr-api-token") headers.push(pairs[i]!, pairs[i + 1]!);
    }
    if (this.#token !== undefined && !withoutToken.has(path)) headers.push("dapr-api-token", this.#token);
    return headers;
  }
}

/** Of calls that begin in this sidecar. */
const ownTransport: readonly string[] = [
  "content-type",
  "application/grpc",
  "user-agent",
  "weft",
  "grpc-accept-encoding",
  "identity,gzip",
];

/** Opens the stream; a session that can take no more is put aside, so that the next try dials anew. */
function request(
  session: ClientHttp2Session,
  headers: readonly string[],
  sessions: GrpcSessions,
  signal: AbortSignal | undefined,
): ClientHttp2Stream {
  try {
    const stream = session.request(
      headers,
      signal === undefined ? { endStream: false } : { endStream: false, signal },
    );
    sessions.track(session, stream);
    return stream;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (!sessionIsOver.has(code)) {
      throw new GrpcStatusError(
        GrpcCode.Internal,
        `the call cannot be sent to the app: ${(error as Error).message}`,
      );
    }
    sessions.retire(session);
    throw new RefusedError(`error reading from server: ${(error as Error).message}`);
  }
}

const sessionIsOver = new Set([
  "ERR_HTTP2_INVALID_SESSION",
  "ERR_HTTP2_GOAWAY_SESSION",
  "ERR_HTTP2_OUT_OF_STREAMS",
]);

/** The dial goes on for others when one of its callers leaves. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(abortStatus(signal.reason));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise
      .then(resolve, (error: unknown) =>
        reject(error instanceof GrpcStatusError ? error : unavailable(String(error))),
      )
      .finally(() => signal.removeEventListener("abort", onAbort));
  });
}
