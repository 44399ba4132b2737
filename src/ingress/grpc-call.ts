/**
 * One call on the gRPC server: its metadata, deadline and cancellation, its messages in and out with backpressure,
 * and the one place that ends a stream with a status.
 */
import {
  constants,
  type Http2Session,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import type { Clock, Timer } from "../../mesh/index.ts";
import { ApiError, GrpcCode } from "../api/errors.ts";
import type { GrpcCall, GrpcMetadata } from "../api/grpc.ts";
import type { Span } from "../telemetry/tracing/span.ts";
import {
  encodeFrame,
  encodeValue,
  FrameReader,
  type GrpcFrame,
  GrpcWireError,
  headerText,
  knownEncoding,
  maxTimerMs,
  openFrame,
  parseTimeout,
  percentDecode,
  percentEncode,
  readMetadata,
  relayedPairs,
  sendableName,
  sentTooLarge,
  statusCodeOf,
  trailerPairs,
} from "../lib/grpc-wire.ts";

/** A status text above this is cut, and larger details are left out: clients refuse larger header blocks. */
const maxStatusTextBytes = 16 * 1024;
const maxDetailsBytes = 32 * 1024;

/** How a call ends. */
export type GrpcStatus = {
  readonly code: number;
  readonly message: string;
  /** Binary google.rpc.Status in base64. */
  readonly details?: string | undefined;
};

/** What a call needs of its server. */
export type CallHost = {
  readonly maxMessageBytes: number;
  readonly clock: Clock;
  /** Called once per call, when its stream has closed; its status may have been known long before. */
  closed(stream: ServerHttp2Stream, session: Http2Session): void;
  /** Called once per call, when its status is known (sent, or Canceled because the client went away). */
  ended(call: ServerCall, code: number, message: string): void;
};

export class ServerCall implements GrpcCall {
  readonly path: string;
  readonly stream: ServerHttp2Stream;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly startMs: number;
  /** Of the messages of a unary call; -1 before its request came, and for streams. */
  receivedBytes = -1;
  sentBytes = 0;
  span: Span | undefined;
  readonly #host: CallHost;
  #metadata: GrpcMetadata | undefined;
  #abort: AbortController | undefined;
  #abortReason: ApiError | undefined;
  #deadline: Timer | undefined;
  #deadlineMs: number | undefined;
  #extraHeaders: OutgoingHttpHeaders | undefined;
  #trailers: OutgoingHttpHeaders | undefined;
  #ended = false;
  /** Lets a writer go on that waits for the client to read. */
  #writer: () => void = ignore;

  constructor(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    raw: readonly string[],
    host: CallHost,
  ) {
    this.path = headers[":path"] ?? "";
    this.stream = stream;
    this.headers = headers;
    this.rawHeaders = raw;
    this.#host = host;
    this.startMs = host.clock.monotonicMs();
    // A reset by the client is an ordinary end of a call; `close` follows and does the work.
    stream.on("error", ignore);
    const { session } = stream;
    stream.once("close", () => {
      if (session !== undefined) host.closed(stream, session);
      this.#closed();
    });
  }

  get metadata(): GrpcMetadata {
    return (this.#metadata ??= readMetadata(this.rawHeaders));
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#abortReason !== undefined) this.#abort.abort(this.#abortReason);
    }
    return this.#abort.signal;
  }

  /** Whether the status is out (or the client gone): nothing more is sent. */
  get ended(): boolean {
    return this.#ended;
  }

  get clock(): Clock {
    return this.#host.clock;
  }

  get encoding(): string | undefined {
    return this.headers["grpc-encoding"] as string | undefined;
  }

  setHeader(name: string, value: string): void {
    this.#extraHeaders = added(this.#extraHeaders, name, value);
  }

  setTrailer(name: string, value: string): void {
    this.#trailers = added(this.#trailers, name, value);
  }

  /** A trailer whose value already is in wire form (`-bin` in base64). */
  setWireTrailer(name: string, value: string): void {
    const lower = name.toLowerCase();
    const text = sendableName(lower) ? headerText(value) : undefined;
    if (text !== undefined) this.#trailers = append(this.#trailers, lower, text);
  }

  /** Checks the transport's own headers and starts the deadline. Throws ApiError. */
  begin(): void {
    if (!knownEncoding(this.encoding)) {
      const text = `grpc: Decompressor is not installed for grpc-encoding "${this.encoding}"`;
      throw statusError(GrpcCode.Unimplemented, text);
    }
    this.startDeadline();
  }

  /** Throws ApiError for a deadline that cannot be read, and for one that has passed. */
  startDeadline(): void {
    const timeout = this.headers["grpc-timeout"] as string | undefined;
    if (timeout === undefined) return;
    const timeoutMs = parseTimeout(timeout);
    if (timeoutMs === undefined)
      throw statusError(GrpcCode.Internal, `malformed grpc-timeout: ${JSON.stringify(timeout)}`);
    this.#deadlineMs = this.startMs + timeoutMs;
    const leftMs = this.#deadlineMs - this.#host.clock.monotonicMs();
    if (leftMs <= 0) throw deadlineExceeded();
    if (leftMs > maxTimerMs) return;
    this.#deadline = this.#host.clock.setTimeout(() => this.abort(deadlineExceeded()), Math.ceil(leftMs));
  }

  /** What is left of the client's deadline, ms; undefined without one. */
  timeLeftMs(): number | undefined {
    return this.#deadlineMs === undefined ? undefined : this.#deadlineMs - this.#host.clock.monotonicMs();
  }

  /** Ends the call from outside with this error: the handler's signal is aborted, the status goes out. */
  abort(reason: ApiError): void {
    if (this.#ended) return;
    this.#signalAbort(reason);
    this.end({ code: reason.grpcCode, message: reason.message });
  }

  /** The whole request of a unary call. Rejects with GrpcWireError; never settles when the client goes away. */
  readUnary(): Promise<Uint8Array> {
    const { stream } = this;
    const { maxMessageBytes } = this.#host;
    const frames = new FrameReader(maxMessageBytes);
    let first: GrpcFrame | undefined;
    return new Promise((resolve, reject) => {
      const take = (chunk: Buffer): void => {
        frames.push(chunk);
        try {
          for (let frame = frames.next(); frame !== undefined; frame = frames.next()) {
            if (first !== undefined)
              throw new GrpcWireError(GrpcCode.Internal, "a unary call got a second message");
            first = frame;
            this.receivedBytes = frame.bytes.length;
          }
        } catch (error) {
          stream.off("data", take);
          reject(error);
        }
      };
      stream.on("data", take);
      stream.once("end", () => {
        // A reset ends the readable side too; `close` follows.
        if (stream.closed) return;
        if (frames.partial) reject(truncated());
        else if (first === undefined) {
          reject(new GrpcWireError(GrpcCode.Internal, "a unary call got no message"));
        } else resolve(first.compressed ? openFrame(first, this.encoding, maxMessageBytes) : first.bytes);
      });
    });
  }

  /**
   * The client's messages; reads ahead no more than the stream's buffer. Ends when the client half-closes or the status
   * is out; throws GrpcWireError, or the abort reason.
   */
  async *readStream<T>(decode: (message: Uint8Array) => T): AsyncGenerator<T> {
    const { stream } = this;
    const frames = new FrameReader(this.#host.maxMessageBytes);
    const arrivals = new Arrivals(stream);
    while (!this.#ended) {
      const frame = frames.next();
      if (frame !== undefined) {
        yield decode(await openFrame(frame, this.encoding, this.#host.maxMessageBytes));
        continue;
      }
      const chunk = stream.read() as Buffer | null;
      if (chunk !== null) frames.push(chunk);
      else if (arrivals.complete) {
        if (frames.partial) throw truncated();
        return;
      } else await arrivals.next();
    }
    if (this.#abortReason !== undefined) throw this.#abortReason;
  }

  /**
   * Sends one message of several; resolves when the stream takes more or the call has ended. Throws GrpcWireError
   * above the size limit.
   */
  async sendMessage(message: Uint8Array): Promise<void> {
    this.#checkSize(message);
    if (this.#gone()) return;
    if (!this.stream.headersSent) this.#respond();
    await this.#write(encodeFrame(message));
  }

  /** Bytes of messages as they are, behind these headers if they are the first. */
  async passOn(headers: readonly string[], bytes: Uint8Array): Promise<void> {
    if (this.#gone()) return;
    if (!this.stream.headersSent) this.#respondWith(headers);
    await this.#write(bytes);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    const { stream } = this;
    if (stream.write(bytes)) return;
    await new Promise<void>((resolve) => {
      this.#writer = resolve;
      stream.once("drain", resolve);
    });
    stream.off("drain", this.#writer);
    this.#writer = ignore;
  }

  /**
   * Ends a proxied call with the trailers of the app's answer, and its last or only bytes before them. Without any
   * bytes there are no headers either.
   */
  endPassed(headers: readonly string[], bytes: Uint8Array, trailers: readonly string[]): void {
    if (this.#gone()) return;
    const fields = fieldsOf(trailers);
    const code = statusCodeOf(trailers);
    if (code === undefined) fields["grpc-status"] = String(GrpcCode.Unknown);
    if (bytes.length > 0 && !this.stream.headersSent) this.#respondWith(headers);
    this.#finish(code ?? GrpcCode.Unknown, percentDecode(String(fields["grpc-message"] ?? "")));
    this.#endWith(fields, bytes);
  }

  /** Sends the only message of a unary call and OK. */
  endUnary(message: Uint8Array): void {
    this.#checkSize(message);
    if (this.#gone()) return;
    this.sentBytes = message.length;
    this.#respond();
    this.#finish(GrpcCode.OK, "");
    this.#sendTrailers({ ...this.#trailers, "grpc-status": "0" });
    this.stream.end(encodeFrame(message));
  }

  /** Ends the call with a status; a second end does nothing. Never throws. */
  end(status: GrpcStatus): void {
    if (this.#gone()) return;
    this.#finish(status.code, status.message);
    this.#endWith(statusHeaders(status, this.#trailers), noBytes);
  }

  #endWith(trailers: OutgoingHttpHeaders, bytes: Uint8Array): void {
    const { stream } = this;
    if (stream.headersSent) {
      this.#sendTrailers(trailers);
      if (bytes.length === 0) stream.end();
      else stream.end(bytes);
      return;
    }
    stream.respond({ ...baseHeaders, ...this.#extraHeaders, ...trailers }, { endStream: true });
    // What the client still sends is of no use; without the reset it would wait for window updates.
    if (!stream.readableEnded) stream.close(constants.NGHTTP2_NO_ERROR);
  }

  /** Ended, or the client is gone and `close` about to say so. */
  #gone(): boolean {
    return this.#ended || this.stream.destroyed || this.stream.closed;
  }

  #respond(): void {
    const headers =
      this.#extraHeaders === undefined ? baseHeaders : { ...baseHeaders, ...this.#extraHeaders };
    this.stream.respond(headers, { waitForTrailers: true });
  }

  #respondWith(headers: readonly string[]): void {
    const fields = { ...baseHeaders, ...this.#extraHeaders, ...fieldsOf(headers) };
    this.stream.respond(fields, { waitForTrailers: true });
  }

  #sendTrailers(trailers: OutgoingHttpHeaders): void {
    const { stream } = this;
    stream.once("wantTrailers", () => {
      if (stream.destroyed) return;
      stream.sendTrailers(trailers);
      // node sends the trailers in the next turn; a client that has not half-closed is let go after them.
      if (!stream.readableEnded) setImmediate(() => stream.close(constants.NGHTTP2_NO_ERROR));
    });
  }

  #checkSize(message: Uint8Array): void {
    if (message.length > this.#host.maxMessageBytes)
      throw sentTooLarge(message.length, this.#host.maxMessageBytes);
  }

  #finish(code: number, message: string): void {
    this.#ended = true;
    this.#deadline?.cancel();
    this.#writer();
    this.#host.ended(this, code, message);
  }

  #closed(): void {
    if (this.#ended) return;
    const reason = statusError(GrpcCode.Canceled, "context canceled");
    this.#signalAbort(reason);
    this.#finish(GrpcCode.Canceled, reason.message);
  }

  #signalAbort(reason: ApiError): void {
    this.#abortReason = reason;
    this.#abort?.abort(reason);
  }
}

/** Wakes a reader whenever a paused stream may have something. */
class Arrivals {
  #complete = false;
  #pending = false;
  #wake: (() => void) | undefined;

  constructor(stream: ServerHttp2Stream) {
    const arrived = (): void => {
      this.#pending = true;
      this.#wake?.();
    };
    const ended = (): void => {
      // A reset ends the readable side too; `close` follows.
      if (!stream.closed) this.#complete = true;
      arrived();
    };
    stream.on("readable", arrived);
    stream.once("end", ended);
    stream.once("close", arrived);
  }

  /** The client has half-closed and everything is read. */
  get complete(): boolean {
    return this.#complete;
  }

  async next(): Promise<void> {
    if (!this.#pending) await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#pending = false;
    this.#wake = undefined;
  }
}

const noBytes = new Uint8Array(0);

const baseHeaders: OutgoingHttpHeaders = Object.freeze({
  ":status": 200,
  "content-type": "application/grpc",
  "grpc-accept-encoding": "identity,gzip",
});

function statusHeaders(status: GrpcStatus, trailers: OutgoingHttpHeaders | undefined): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = { ...trailers, "grpc-status": String(status.code) };
  if (status.message !== "") headers["grpc-message"] = statusText(status.message);
  if (status.details !== undefined && status.details.length <= maxDetailsBytes) {
    headers["grpc-status-details-bin"] = status.details;
  }
  return headers;
}

function statusText(message: string): string {
  const text = percentEncode(message);
  if (text.length <= maxStatusTextBytes) return text;
  // An escape must not be cut in two.
  return text.slice(0, maxStatusTextBytes).replace(/%[0-9A-F]?$/, "");
}

function added(
  headers: OutgoingHttpHeaders | undefined,
  name: string,
  value: string,
): OutgoingHttpHeaders | undefined {
  const lower = name.toLowerCase();
  const text = sendableName(lower) ? encodeValue(lower, value) : undefined;
  return text === undefined ? headers : append(headers, lower, text);
}

/** Wire pairs as node takes them. Whatever node would refuse is left out: pairs may come from any participant. */
function fieldsOf(pairs: readonly string[]): OutgoingHttpHeaders {
  const fields: OutgoingHttpHeaders = {};
  for (const list of [trailerPairs(pairs), relayedPairs(pairs)]) {
    for (let i = 0; i + 1 < list.length; i += 2) append(fields, list[i]!, list[i + 1]!);
  }
  return fields;
}

function append(headers: OutgoingHttpHeaders | undefined, name: string, text: string): OutgoingHttpHeaders {
  const all = headers ?? {};
  const known = all[name];
  if (known === undefined) all[name] = text;
  else if (Array.isArray(known)) known.push(text);
  else all[name] = [String(known), text];
  return all;
}

/** The peer ended its side inside a message. */
export function truncated(): GrpcWireError {
  return new GrpcWireError(GrpcCode.Internal, "unexpected EOF: the stream ended inside a message");
}

/** An error of the transport itself: code and text, no details. */
export function statusError(grpcCode: GrpcCode, message: string): ApiError {
  return new ApiError({ code: "ERROR", httpStatus: 500, grpcCode, message });
}

function ignore(): void {}

function deadlineExceeded(): ApiError {
  return statusError(GrpcCode.DeadlineExceeded, "context deadline exceeded");
}
