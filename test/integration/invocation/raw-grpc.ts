/**
 * gRPC by hand on node:http2, for what no gRPC library lets one say or see: raw headers, cut frames, resets, ends
 * without a status.
 */
import {
  type ClientHttp2Stream,
  type Http2Server,
  connect,
  constants,
  createSecureServer,
  createServer,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { AddressInfo } from "node:net";
import { encodeFrame, FrameReader } from "../../../src/lib/grpc-wire.ts";

export type Answering = (stream: ServerHttp2Stream, seen: Seen) => void;

/** One call as the app saw it. */
export type Seen = {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  /** Flat list, in the order of the wire. */
  readonly raw: readonly string[];
};

export type RawApp = AsyncDisposable & {
  readonly port: number;
  readonly calls: Seen[];
  /** Reset codes of streams that ended, by path. */
  readonly resets: { readonly path: string; readonly code: number }[];
  /** Paths of the calls whose client said that it was done, and did not reset them in the same breath. */
  readonly completed: string[];
  /** Connections that are there. */
  sessions(): number;
  /** Streams that have not ended. */
  open(): number;
  on(path: string, answer: Answering): void;
  /** Ends all connections at once, as a killed process does. */
  break(): void;
};

export type RawAppOptions = {
  readonly tls?: { readonly key: string; readonly cert: string };
  readonly maxConcurrentStreams?: number;
};

/** An app on node ends a connection with more than 1,000 resets at a time; others have no such limit. */
const anyResets = { streamResetBurst: 1_000_000, streamResetRate: 1_000_000 };

/** Answers a path without a handler with what it got, as a unary or any other echo. */
export async function startRawApp({ tls, maxConcurrentStreams }: RawAppOptions = {}): Promise<RawApp> {
  const answers = new Map<string, Answering>();
  const calls: Seen[] = [];
  const resets: { path: string; code: number }[] = [];
  const completed: string[] = [];
  const sessions = new Set<ServerHttp2Session>();
  const streams = new Set<ServerHttp2Stream>();
  const settings = {
    maxHeaderListSize: 1024 * 1024,
    initialWindowSize: 64 * 1024,
    ...(maxConcurrentStreams === undefined ? {} : { maxConcurrentStreams }),
  };
  const server: Http2Server =
    tls === undefined
      ? createServer({ settings, ...anyResets })
      : (createSecureServer({ settings, ...anyResets, ...tls }) as never);
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", () => {});
    session.on("close", () => sessions.delete(session));
  });
  server.on("stream", (stream, headers, _flags, raw: string[]) => {
    const path = headers[":path"] ?? "";
    const seen = { path, headers, raw };
    calls.push(seen);
    streams.add(stream);
    stream.on("error", () => {});
    stream.on("end", () => {
      if (!stream.closed) completed.push(path);
    });
    stream.on("close", () => {
      streams.delete(stream);
      resets.push({ path, code: stream.rstCode ?? 0 });
    });
    (answers.get(path) ?? echo)(stream, seen);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const breakAll = (): void => {
    for (const session of sessions) session.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    calls,
    resets,
    completed,
    sessions: () => sessions.size,
    open: () => streams.size,
    on: (path, answer) => void answers.set(path, answer),
    break: breakAll,
    async [Symbol.asyncDispose]() {
      breakAll();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

const type = { "content-type": "application/grpc" };

/** Headers, then these trailers after whatever is written and `end()`. */
export function answer(
  stream: ServerHttp2Stream,
  headers: OutgoingHttpHeaders,
  trailers: OutgoingHttpHeaders = { "grpc-status": "0" },
): void {
  stream.respond({ ":status": 200, ...type, ...headers }, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers(trailers));
}

/** Bytes as they come, OK at the end. */
export const echo: Answering = (stream) => {
  answer(stream, {});
  stream.pipe(stream);
};

export type Ended = {
  readonly headers: IncomingHttpHeaders | undefined;
  readonly trailers: IncomingHttpHeaders | undefined;
  /** Of the trailers, or of the headers of an answer that is nothing but a status. */
  readonly code: number | undefined;
  readonly message: string;
  readonly resetCode: number;
  readonly bytes: number;
};

export type RawCall = {
  readonly stream: ClientHttp2Stream;
  /** Messages that have come, unless `read` is false. */
  readonly messages: Buffer[];
  readonly ended: Promise<Ended>;
  send(message: Uint8Array): void;
  /** Cancels it. (`stream.close` of node would say first that the request is complete.) */
  reset(): void;
};

export type RawClient = Disposable & {
  call(
    path: string,
    headers: OutgoingHttpHeaders,
    options?: { readonly end?: boolean; readonly read?: boolean },
  ): RawCall;
  /** Ends the connection at once. */
  break(): void;
};

/** A client of the gRPC port of a sidecar; several calls share its connection. */
export function rawClient(port: number): RawClient {
  const session = connect(`http://127.0.0.1:${port}`, {
    settings: { initialWindowSize: 64 * 1024, maxHeaderListSize: 1024 * 1024 },
  });
  session.on("error", () => {});
  return {
    call(path, headers, { end = false, read = true } = {}) {
      const reset = new AbortController();
      const stream = session.request(
        { ":method": "POST", ":path": path, ...type, te: "trailers", ...headers },
        { endStream: end, signal: reset.signal },
      );
      const messages: Buffer[] = [];
      const ended = read ? follow(stream, messages) : endOf(stream, () => 0);
      const send = (message: Uint8Array): void => void stream.write(encodeFrame(message));
      return { stream, messages, ended, send, reset: () => reset.abort() };
    },
    break: () => session.destroy(),
    [Symbol.dispose]: () => session.destroy(),
  };
}

function follow(stream: ClientHttp2Stream, messages: Buffer[]): Promise<Ended> {
  const frames = new FrameReader(Number.POSITIVE_INFINITY);
  let bytes = 0;
  stream.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    frames.push(chunk);
    for (let frame = frames.next(); frame !== undefined; frame = frames.next()) messages.push(frame.bytes);
  });
  return endOf(stream, () => bytes);
}

function endOf(stream: ClientHttp2Stream, bytes: () => number): Promise<Ended> {
  let headers: IncomingHttpHeaders | undefined;
  let trailers: IncomingHttpHeaders | undefined;
  stream.on("error", () => {});
  stream.once("response", (received) => (headers = received));
  stream.once("trailers", (received) => (trailers = received));
  // Node keeps a stream with something unsent for ever, although the server has closed it.
  stream.once("end", () => setImmediate(() => stream.closed && stream.destroy()));
  return new Promise((resolve) =>
    stream.once("close", () => {
      const status = trailers?.["grpc-status"] ?? headers?.["grpc-status"];
      const text = trailers?.["grpc-message"] ?? headers?.["grpc-message"];
      resolve({
        headers,
        trailers,
        code: status === undefined ? undefined : Number(status),
        message: decodeURIComponent(String(text ?? "")),
        resetCode: stream.rstCode ?? 0,
        bytes: bytes(),
      });
    }),
  );
}

export const cancelCode = constants.NGHTTP2_CANCEL;
