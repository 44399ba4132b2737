/**
 * A call to a service that the sidecar does not have, on its client's side: bytes in and out of the socket with
 * backpressure, message limits, and the answer's headers and trailers. Who answers is the proxy's business
 * (api/grpc.ts).
 */
import { type BodyStream, BodyQueue, type MeshResponse } from "../../mesh/index.ts";
import { GrpcCode } from "../api/errors.ts";
import type { GrpcProxy } from "../api/grpc.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import { passingStatus } from "../api/mesh-status.ts";
import { FrameScan, HoldBudget, WholeMessages } from "../lib/grpc-scan.ts";
import { GrpcWireError, statusCodeOf } from "../lib/grpc-wire.ts";
import { type ServerCall, statusError, truncated } from "./grpc-call.ts";

/** The client's stream is paused above this, bytes; two reads. */
const highWaterBytes = 128 * 1024;
/** How long the first message is waited for before the call goes on without it, ms. */
const gatherMs = 5;
/** Parts of messages that all calls together hold until the rest is there, bytes. */
const maxHeldBytes = 64 * 1024 * 1024;

export type ProxyOptions = {
  readonly proxy: GrpcProxy;
  /** Both ways. */
  readonly maxMessageBytes: number;
};

/** The proxied calls of one server. */
export class ProxyIngress {
  readonly #options: ProxyOptions;
  readonly #held = new HoldBudget(maxHeldBytes);

  constructor(options: ProxyOptions) {
    this.#options = options;
  }

  /** Serves one call to its end. Rejects with what ends it, unless its status is already out. */
  async serve(call: ServerCall): Promise<void> {
    call.startDeadline();
    const request = new RequestBody(call, this.#options.maxMessageBytes);
    await request.gather();
    if (call.ended) return;
    const { path, rawHeaders: headers, signal, span } = call;
    const timeLeftMs = (): number | undefined => call.timeLeftMs();
    const answer = await this.#options.proxy({
      path,
      headers,
      body: request.content,
      signal,
      span,
      timeLeftMs,
    });
    const { body } = answer;
    if (body instanceof Uint8Array) this.#passWhole(call, answer, body);
    else await this.#passStream(call, answer.headers, body);
  }

  #passWhole(call: ServerCall, { headers, grpc }: MeshResponse, body: Uint8Array): void {
    const complete = new FrameScan(this.#options.maxMessageBytes).push(body);
    const trailers = grpc?.trailers ?? [];
    if (complete < body.length && statusCodeOf(trailers) === GrpcCode.OK) throw truncated();
    // The status tells more than a torn message.
    call.endPassed(headers, body.subarray(0, complete), trailers);
  }

  async #passStream(call: ServerCall, headers: readonly string[], body: BodyStream): Promise<void> {
    const messages = new WholeMessages(this.#options.maxMessageBytes, this.#held);
    try {
      for await (const piece of body) {
        if (call.ended) return;
        for (const bytes of messages.push(piece)) await call.passOn(headers, bytes);
      }
      const { trailers } = body;
      if (messages.partial && statusCodeOf(trailers) === GrpcCode.OK) throw truncated();
      call.endPassed(headers, noBytes, trailers);
    } catch (error) {
      throw error instanceof GrpcWireError ? error : passingStatus(error);
    } finally {
      messages.drop();
    }
  }
}

const noBytes = new Uint8Array(0);

/** What the client sends, as a body. */
class RequestBody {
  readonly #call: ServerCall;
  readonly #queue: BodyQueue;
  readonly #scan: FrameScan;
  #gathered = false;
  /** Lets `gather` look again. */
  #wake: () => void = () => {};

  constructor(call: ServerCall, maxMessageBytes: number) {
    const { stream } = call;
    this.#call = call;
    this.#scan = new FrameScan(maxMessageBytes);
    this.#queue = new BodyQueue({
      onTaken: () => {
        if (this.#queue.bufferedBytes < highWaterBytes / 2) stream.resume();
      },
      // What still comes is of no use, and must not keep the client from reading the status.
      onCancel: () => stream.resume(),
    });
    stream.on("data", (chunk: Buffer) => this.#take(chunk));
    stream.once("end", () => {
      // Clients on node end their side before they reset it; what comes behind the end is seen a turn later.
      if (this.#gathered) setImmediate(() => this.#complete());
      else this.#complete();
    });
    stream.once("close", () => {
      if (!this.#queue.ended) this.#queue.fail(new GrpcStatusError(GrpcCode.Canceled, "context canceled"));
      this.#wake();
    });
  }

  #complete(): void {
    // A reset ends the readable side too; `close` follows.
    if (this.#call.stream.closed) return;
    if (this.#scan.partial) this.#refuse(truncated());
    else this.#queue.end();
    this.#wake();
  }

  /** Everything, when the client has said it all. */
  get content(): Uint8Array | BodyStream {
    return this.#queue.ended ? this.#queue.takeReady(Number.POSITIVE_INFINITY) : this.#queue;
  }

  /** Gives a client that sends one message the time to do so: its call then needs one message of the mesh. */
  async gather(): Promise<void> {
    await turn();
    if (!(this.#queue.ended || this.#queue.bufferedBytes > 0 || this.#call.ended)) {
      await new Promise<void>((resolve) => {
        const limit = this.#call.clock.setTimeout(resolve, gatherMs);
        this.#wake = () => {
          limit.cancel();
          resolve();
        };
      });
      this.#wake = () => {};
      if (!this.#queue.ended) await turn();
    }
    this.#gathered = true;
  }

  #take(chunk: Buffer): void {
    try {
      this.#scan.push(chunk);
    } catch (error) {
      return this.#refuse(error as GrpcWireError);
    }
    this.#queue.push(chunk);
    if (this.#queue.bufferedBytes >= highWaterBytes) this.#call.stream.pause();
    this.#wake();
  }

  /** Ends the call: what the client sends cannot be passed on. */
  #refuse({ code, message }: GrpcWireError): void {
    this.#queue.fail(new GrpcStatusError(code, message));
    this.#call.abort(statusError(code as GrpcCode, message));
  }
}

/** Whatever one packet held has been read after this. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
