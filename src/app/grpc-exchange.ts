/** One unary exchange on a client stream: request out, answer and status in, every other end mapped to a status. */
import { type ClientHttp2Stream, constants, type Http2Session, type IncomingHttpHeaders } from "node:http2";
import { ApiError, GrpcCode } from "../api/errors.ts";
import {
  encodeFrame,
  FrameReader,
  type GrpcFrame,
  GrpcWireError,
  isGrpcContentType,
  openFrame,
  percentDecode,
  sendablePairs,
} from "../lib/grpc-wire.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import type { AppGrpcResponse } from "./channel.ts";

/** The app surely did not begin the call (stream refused, or above the last one of a GOAWAY): it may be sent again. */
export class RefusedError extends GrpcStatusError {
  constructor(message: string) {
    super(GrpcCode.Unavailable, message);
    this.name = "RefusedError";
  }
}

/** Sends the message and half-closes; resolves with the only answer. Rejects with GrpcStatusError. */
export function exchange(
  stream: ClientHttp2Stream,
  message: Uint8Array,
  maxMessageBytes: number,
  signal: AbortSignal,
): Promise<AppGrpcResponse> {
  return new Promise((resolve, reject) => {
    const one = new Exchange(stream, maxMessageBytes, signal, resolve, reject);
    one.send(message);
  });
}

class Exchange {
  readonly #stream: ClientHttp2Stream;
  readonly #maxMessageBytes: number;
  readonly #signal: AbortSignal;
  readonly #resolve: (answer: AppGrpcResponse) => void;
  readonly #reject: (error: GrpcStatusError) => void;
  readonly #frames: FrameReader;
  readonly #session: Http2Session | undefined;
  readonly #onAbort = (): void => this.#fail(abortStatus(this.#signal.reason));
  #message: GrpcFrame | undefined;
  #headers: IncomingHttpHeaders | undefined;
  #rawHeaders: readonly string[] = [];
  #trailers: IncomingHttpHeaders | undefined;
  #rawTrailers: readonly string[] = [];
  /** The status has come; a compressed message may still be opened. */
  #completed = false;
  #settled = false;

  constructor(
    stream: ClientHttp2Stream,
    maxMessageBytes: number,
    signal: AbortSignal,
    resolve: (answer: AppGrpcResponse) => void,
    reject: (error: GrpcStatusError) => void,
  ) {
    this.#stream = stream;
    this.#session = stream.session;
    this.#maxMessageBytes = maxMessageBytes;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#frames = new FrameReader(maxMessageBytes);
  }

  send(message: Uint8Array): void {
    const stream = this.#stream;
    // `close` follows and maps the end.
    stream.on("error", () => {});
    stream.once("response", (headers, _flags, raw) => {
      this.#headers = headers;
      this.#rawHeaders = raw;
    });
    stream.once("trailers", (trailers, _flags, raw) => {
      this.#trailers = trailers;
      this.#rawTrailers = raw;
    });
    stream.on("data", (chunk: Buffer) => this.#take(chunk));
    stream.once("end", () => this.#complete());
    stream.once("close", () => this.#closed());
    if (this.#signal.aborted) return this.#onAbort();
    this.#signal.addEventListener("abort", this.#onAbort, { once: true });
    stream.end(encodeFrame(message));
  }

  #take(chunk: Buffer): void {
    if (this.#settled) return;
    this.#frames.push(chunk);
    try {
      for (let frame = this.#frames.next(); frame !== undefined; frame = this.#frames.next()) {
        if (this.#message !== undefined) {
          throw new GrpcWireError(GrpcCode.Internal, "a unary call was answered with more than one message");
        }
        this.#message = frame;
      }
    } catch (error) {
      this.#fail(asStatus(error));
    }
  }

  /** The app has ended its side. A status in the headers (trailers-only answer) counts like one in the trailers. */
  #complete(): void {
    const fields = this.#trailers ?? this.#headers;
    const code = fields?.["grpc-status"];
    if (this.#completed || fields === undefined || typeof code !== "string") return;
    this.#completed = true;
    const trailers = this.#trailers === undefined ? this.#rawHeaders : this.#rawTrailers;
    this.#finish(Number(code), fields, sendablePairs(trailers));
  }

  #finish(code: number, fields: IncomingHttpHeaders, trailers: readonly string[]): void {
    if (code !== GrpcCode.OK) {
      const text = percentDecode(String(fields["grpc-message"] ?? ""));
      const known = Number.isInteger(code) && code > 0;
      return this.#fail(
        new GrpcStatusError(known ? code : GrpcCode.Unknown, text, detailsOf(fields), trailers),
      );
    }
    const frame = this.#message;
    if (this.#frames.partial || frame === undefined) {
      const text = this.#frames.partial
        ? "the app's answer ended inside a message"
        : "the app answered OK without a message";
      return this.#fail(new GrpcStatusError(GrpcCode.Internal, text, undefined, trailers));
    }
    const headers = this.#trailers === undefined ? [] : sendablePairs(this.#rawHeaders);
    if (!frame.compressed)
      return this.#settle(() => this.#resolve({ message: frame.bytes, headers, trailers }));
    openFrame(frame, this.#headers?.["grpc-encoding"] as string | undefined, this.#maxMessageBytes).then(
      (message) => this.#settle(() => this.#resolve({ message, headers, trailers })),
      (error: unknown) => this.#fail(asStatus(error)),
    );
  }

  #closed(): void {
    this.#complete();
    if (this.#settled || this.#trailers?.["grpc-status"] === "0" || this.#headers?.["grpc-status"] === "0")
      return;
    this.#fail(this.#endWithoutStatus());
  }

  #endWithoutStatus(): GrpcStatusError {
    const { rstCode } = this.#stream;
    if (rstCode === constants.NGHTTP2_REFUSED_STREAM) return new RefusedError(resetText(rstCode));
    if (this.#headers !== undefined) {
      const refused = httpStatusError(this.#headers);
      if (refused !== undefined) return refused;
    }
    // node reports a lost connection as a cancel of its streams.
    if (
      this.#session?.destroyed === true ||
      rstCode === undefined ||
      rstCode === constants.NGHTTP2_NO_ERROR
    ) {
      return new GrpcStatusError(GrpcCode.Unavailable, "error reading from server: EOF");
    }
    return new GrpcStatusError(codeOfReset(rstCode), resetText(rstCode));
  }

  #fail(error: GrpcStatusError): void {
    this.#settle(() => this.#reject(error));
    if (!this.#stream.closed) this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  #settle(answer: () => void): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
    answer();
  }
}

/** The status of a call whose signal was aborted for this reason. */
export function abortStatus(reason: unknown): GrpcStatusError {
  if (reason instanceof GrpcStatusError) return reason;
  if (reason instanceof ApiError) return new GrpcStatusError(reason.grpcCode, reason.message);
  if (reason instanceof Error && reason.name === "TimeoutError") {
    return new GrpcStatusError(GrpcCode.DeadlineExceeded, "context deadline exceeded");
  }
  return new GrpcStatusError(GrpcCode.Canceled, "context canceled");
}

function asStatus(error: unknown): GrpcStatusError {
  if (error instanceof GrpcWireError) return new GrpcStatusError(error.code, error.message);
  return new GrpcStatusError(GrpcCode.Internal, error instanceof Error ? error.message : String(error));
}

function detailsOf(fields: IncomingHttpHeaders): Uint8Array | undefined {
  const text = fields["grpc-status-details-bin"];
  return typeof text === "string" && text !== "" ? Buffer.from(text, "base64") : undefined;
}

const codeByHttp: Readonly<Record<number, GrpcCode>> = {
  400: GrpcCode.Internal,
  401: GrpcCode.Unauthenticated,
  403: GrpcCode.PermissionDenied,
  404: GrpcCode.Unimplemented,
  429: GrpcCode.Unavailable,
  502: GrpcCode.Unavailable,
  503: GrpcCode.Unavailable,
  504: GrpcCode.Unavailable,
};

/** An answer that is no gRPC at all, e.g. of a web server on the app's port. */
function httpStatusError(headers: IncomingHttpHeaders): GrpcStatusError | undefined {
  const status = Number(headers[":status"]);
  const type = headers["content-type"];
  if (status === 200 && isGrpcContentType(type)) return undefined;
  const content =
    type === undefined
      ? "missing content-type field"
      : `received unexpected content-type ${JSON.stringify(type)}`;
  const text = `unexpected HTTP status code received from server: ${status}; transport: ${content}`;
  return new GrpcStatusError(codeByHttp[status] ?? GrpcCode.Unknown, text);
}

const codeByReset = new Map<number, GrpcCode>([
  [constants.NGHTTP2_FLOW_CONTROL_ERROR, GrpcCode.ResourceExhausted],
  [constants.NGHTTP2_REFUSED_STREAM, GrpcCode.Unavailable],
  [constants.NGHTTP2_CANCEL, GrpcCode.Canceled],
  [constants.NGHTTP2_ENHANCE_YOUR_CALM, GrpcCode.ResourceExhausted],
  [constants.NGHTTP2_INADEQUATE_SECURITY, GrpcCode.PermissionDenied],
]);

/** gRPC code of an HTTP/2 reset code; Internal for most. */
function codeOfReset(rstCode: number | undefined): GrpcCode {
  return codeByReset.get(rstCode ?? 0) ?? GrpcCode.Internal;
}

const resetNames = [
  "NO_ERROR",
  "PROTOCOL_ERROR",
  "INTERNAL_ERROR",
  "FLOW_CONTROL_ERROR",
  "SETTINGS_TIMEOUT",
  "STREAM_CLOSED",
  "FRAME_SIZE_ERROR",
  "REFUSED_STREAM",
  "CANCEL",
  "COMPRESSION_ERROR",
  "CONNECT_ERROR",
  "ENHANCE_YOUR_CALM",
  "INADEQUATE_SECURITY",
  "HTTP_1_1_REQUIRED",
];

function resetText(rstCode: number | undefined): string {
  return `stream terminated by RST_STREAM with error code: ${resetNames[rstCode ?? 0] ?? rstCode}`;
}
