/** One unary exchange on a client stream: request out, answer and status in, every other end mapped to a status. */
import { type ClientHttp2Stream, constants, type Http2Session, type IncomingHttpHeaders } from "node:http2";
import { GrpcCode } from "../api/errors.ts";
import {
  encodeFrame,
  FrameReader,
  type GrpcFrame,
  GrpcWireError,
  openFrame,
  percentDecode,
  sendablePairs,
} from "../lib/grpc-wire.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import type { AppGrpcResponse } from "./channel.ts";
import { abortStatus, asStatus, detailsOf, endWithoutStatus, httpStatusError } from "./grpc-ends.ts";

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
      const foreign = httpStatusError(headers);
      if (foreign !== undefined) this.#fail(foreign);
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
    this.#fail(endWithoutStatus(this.#stream, this.#session, this.#headers));
  }

  #fail(error: GrpcStatusError): void {
    this.#settle(() => this.#reject(error));
    if (!this.#stream.closed) this.#stream.close(constants.NGHTTP2_CANCEL);
    this.#stream.destroy();
  }

  #settle(answer: () => void): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
    answer();
  }
}
