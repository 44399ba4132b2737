/**
 * One proxied call to the app: the bytes of both directions, headers and trailers pass through, and every end becomes a
 * status. No message is decoded. Whatever the app makes of the call is an answer, also that it cannot be reached.
 */
import type { ClientHttp2Stream, Http2Session, IncomingHttpHeaders } from "node:http2";
import { BodyQueue, type BodyStream, type MeshRequest, type MeshResponse } from "../../mesh/index.ts";
import { GrpcCode } from "../api/errors.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import { FrameScan } from "../lib/grpc-scan.ts";
import { relayedPairs, sendablePairs, statusCodeOf, statusPairs, trailerPairs } from "../lib/grpc-wire.ts";
import type { GrpcAppClient } from "./grpc.ts";
import { abortStatus, asStatus, endWithoutStatus, httpStatusError, RefusedError } from "./grpc-ends.ts";

/** The app's stream is paused above this, bytes; two reads. */
const highWaterBytes = 128 * 1024;
const noBody = new Uint8Array(0);

/**
 * `request.headers` are the caller's metadata and transport headers in wire form. The answer's trailers, with
 * `grpc-status` among them, are `grpc.trailers` of a whole answer, and `body.trailers` of one in pieces. Rejects only
 * when the signal is aborted.
 */
export async function relayToApp(
  client: GrpcAppClient,
  request: MeshRequest,
  signal: AbortSignal,
): Promise<MeshResponse> {
  // A call that the app surely did not begin is made once more, when all of it is still there.
  const repeatable = request.body instanceof Uint8Array;
  try {
    return await relayOnce(client, request, signal, repeatable);
  } catch (error) {
    if (!repeatable || signal.aborted || !(error instanceof RefusedError)) throw error;
    return relayOnce(client, request, signal, false);
  }
}

/** With `refusable`, rejects with RefusedError in place of answering Unavailable. */
async function relayOnce(
  client: GrpcAppClient,
  { path, headers, body }: MeshRequest,
  signal: AbortSignal,
  refusable: boolean,
): Promise<MeshResponse> {
  const reset = new AbortController();
  const abort = (): void => reset.abort(signal.reason);
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  let stream: ClientHttp2Stream;
  try {
    stream = await client.open(path, headers, reset.signal, relayedPairs(headers));
  } catch (error) {
    const status = asStatus(error);
    if (!(body instanceof Uint8Array)) body.cancel(status);
    if (signal.aborted) throw status;
    return statusAnswer(status);
  } finally {
    signal.removeEventListener("abort", abort);
  }
  return new Relay(stream, client.maxMessageBytes, signal, reset, refusable).run(body);
}

/** What a sidecar without an app answers. */
export function noAppAnswer(): MeshResponse {
  return statusAnswer(new GrpcStatusError(GrpcCode.Unavailable, "app channel is not initialized"));
}

/** An answer that is nothing but a status. */
function statusAnswer({ code, message, details }: GrpcStatusError): MeshResponse {
  return wholeAnswer([], noBody, statusPairs(code, message, details));
}

class Relay {
  readonly #stream: ClientHttp2Stream;
  readonly #session: Http2Session | undefined;
  readonly #signal: AbortSignal;
  readonly #reset: AbortController;
  readonly #refusable: boolean;
  readonly #sent: FrameScan;
  readonly #received: FrameScan;
  readonly #answer = Promise.withResolvers<MeshResponse>();
  readonly #body: BodyQueue;
  readonly #onAbort = (): void => this.#abandon();
  #request: Uint8Array | BodyStream = noBody;
  #headers: IncomingHttpHeaders | undefined;
  #rawHeaders: readonly string[] = [];
  #trailers: IncomingHttpHeaders | undefined;
  #rawTrailers: readonly string[] = [];
  #answered = false;
  #waiting = false;
  #over = false;

  /** Aborting `reset` cancels the stream; node's `close` would first tell the app that the request is complete. */
  constructor(
    stream: ClientHttp2Stream,
    maxMessageBytes: number,
    signal: AbortSignal,
    reset: AbortController,
    refusable: boolean,
  ) {
    this.#stream = stream;
    this.#session = stream.session;
    this.#signal = signal;
    this.#reset = reset;
    this.#refusable = refusable;
    this.#sent = new FrameScan(maxMessageBytes);
    this.#received = new FrameScan(maxMessageBytes);
    this.#body = new BodyQueue({
      onTaken: () => {
        if (this.#body.bufferedBytes < highWaterBytes / 2) stream.resume();
      },
      onCancel: () => this.#end(true),
    });
  }

  run(request: Uint8Array | BodyStream): Promise<MeshResponse> {
    const stream = this.#stream;
    this.#request = request;
    // `close` follows and tells how the call ended.
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
    const ended = (): void => {
      this.#complete();
      if (!this.#over) this.#fail(endWithoutStatus(stream, this.#session, this.#headers));
    };
    stream.once("end", () => {
      this.#complete();
      // Without a status, what came in the same packet may say why. An app that does not reset its stream, too, leaves
      // it open for requests that nobody answers.
      if (!this.#over) setImmediate(ended);
    });
    stream.once("close", ended);
    this.#signal.addEventListener("abort", this.#onAbort, { once: true });
    if (this.#signal.aborted) this.#onAbort();
    else void this.#send(request);
    return this.#answer.promise;
  }

  async #send(request: Uint8Array | BodyStream): Promise<void> {
    const stream = this.#stream;
    try {
      if (request instanceof Uint8Array) {
        this.#sent.push(request);
        stream.end(request);
        return;
      }
      for await (const piece of request) {
        if (this.#over) return;
        this.#sent.push(piece);
        if (!stream.write(piece)) await this.#drained();
      }
      stream.end();
    } catch (error) {
      this.#fail(asStatus(error));
    }
  }

  #drained(): Promise<void> {
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return Promise.resolve();
    return new Promise((resolve) => {
      const go = (): void => {
        stream.off("drain", go);
        stream.off("close", go);
        resolve();
      };
      stream.on("drain", go);
      stream.on("close", go);
    });
  }

  #take(chunk: Buffer): void {
    if (this.#over) return;
    try {
      this.#received.push(chunk);
    } catch (error) {
      return this.#fail(asStatus(error));
    }
    this.#body.push(chunk);
    if (this.#body.bufferedBytes >= highWaterBytes) this.#stream.pause();
    if (this.#answered || this.#waiting) return;
    // An answer of one message has its trailers in the same packet, or of servers on node in the next one: what is
    // there after two turns makes it whole.
    this.#waiting = true;
    setImmediate(() => setImmediate(() => this.#begin()));
  }

  /** The rest of the answer takes its time. */
  #begin(): void {
    if (this.#answered || this.#over) return;
    this.#answered = true;
    const grpc = { code: 0, message: "" };
    this.#answer.resolve({ status: 200, headers: answerPairs(this.#rawHeaders), body: this.#body, grpc });
  }

  /** The app has ended its side. A status in the headers (trailers-only answer) counts like one in the trailers. */
  #complete(): void {
    const fields = this.#trailers ?? this.#headers;
    if (this.#over || typeof fields?.["grpc-status"] !== "string") return;
    this.#finish(trailerPairs(this.#trailers === undefined ? this.#rawHeaders : this.#rawTrailers));
  }

  #fail(status: GrpcStatusError): void {
    if (this.#over) return;
    if (this.#refusable && status instanceof RefusedError) {
      this.#answer.reject(status);
      this.#end(true);
    } else this.#finish(statusPairs(status.code, status.message, status.details));
  }

  #finish(trailers: readonly string[]): void {
    if (this.#answered) this.#body.end(trailers);
    else {
      const bytes = this.#body.takeReady(Number.POSITIVE_INFINITY);
      this.#answer.resolve(wholeAnswer(answerPairs(this.#rawHeaders), bytes, trailers));
    }
    this.#end(!this.#stream.readableEnded);
  }

  /** The caller is gone. */
  #abandon(): void {
    if (this.#over) return;
    const status = abortStatus(this.#signal.reason);
    this.#answer.reject(status);
    this.#body.fail(status);
    this.#end(true);
  }

  #end(cancelled: boolean): void {
    if (this.#over) return;
    this.#over = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
    if (!(this.#request instanceof Uint8Array)) this.#request.cancel(new Error("the call is over"));
    // An app that has answered need not read the rest of the request. Node keeps a stream with something unsent for
    // ever, although the app has closed it.
    if (cancelled || !this.#stream.writableFinished) this.#reset.abort();
  }
}

function answerPairs(raw: readonly string[]): string[] {
  return [...sendablePairs(raw), ...relayedPairs(raw)];
}

function wholeAnswer(
  headers: readonly string[],
  body: Uint8Array,
  trailers: readonly string[],
): MeshResponse {
  const code = statusCodeOf(trailers) ?? GrpcCode.Unknown;
  return { status: 200, headers, body, grpc: { code, message: "", trailers } };
}
