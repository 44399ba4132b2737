/**
 * One direction of a streamed body under credit: the sender numbers its chunks and stays within what the receiver has
 * granted; the receiver grants more as its reader takes. Normative: README.md, "Streams".
 */
import { BodyQueue } from "./body.ts";
import { MeshError } from "./errors.ts";
import { chunkPieces, encodeCredit, encodeEnd } from "./frame.ts";
import type { BodyStream } from "./types.ts";
import { YoungGarbage } from "./young-garbage.ts";

/**
 * Body of one chunk, bytes: what a socket gives at a time. Twice as much made streams no faster, and small messages of
 * other calls wait behind a chunk on the same connection.
 */
export const chunkBytes = 64 * 1024;
/** What a chunk costs beside its body, bytes, so that a million chunks of one byte cannot fill a receiver's memory. */
const chunkCostBytes = 256;
/** Head and prefix of a chunk frame, at most, bytes. */
const chunkHeadBytes = 32;
/** Credit of every stream at its start, bytes: two chunks are under way while the first credit frame travels. */
export const initialWindowBytes = 128 * 1024;
/** Credit of a stream whose reader keeps up, bytes: 300 MB/s at 3 ms from chunk to credit. */
const maxWindowBytes = 1024 * 1024;
/** What the windows of all streams of a participant may grow beyond their start, bytes. */
const maxGrownBytes = 32 * 1024 * 1024;

/** Shared by the streams of a participant. */
export class WindowBudget {
  readonly garbage = new YoungGarbage();
  #leftBytes = maxGrownBytes;

  take(bytes: number): boolean {
    if (bytes > this.#leftBytes) return false;
    this.#leftBytes -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#leftBytes += bytes;
  }
}

/** `body` follows the frame in the same message. */
type Send = (frame: Uint8Array, body?: Uint8Array) => void;

/** Reads a body and sends it in chunks. */
export class BodySender {
  readonly #body: BodyStream;
  readonly #send: Send;
  readonly #maxPayloadBytes: () => number;
  readonly #budget: WindowBudget;
  #n = 0;
  #sent = 0;
  #granted = initialWindowBytes;
  #done = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(body: BodyStream, send: Send, maxPayloadBytes: () => number, budget: WindowBudget) {
    this.#budget = budget;
    this.#body = body;
    this.#send = send;
    this.#maxPayloadBytes = maxPayloadBytes;
  }

  /** Number of the next chunk; undefined once the end is sent or the sending has been given up. */
  get next(): number | undefined {
    return this.#done ? undefined : this.#n;
  }

  /** True while the credit is used up. */
  get stalled(): boolean {
    return this.#wake !== undefined;
  }

  grant(total: number): void {
    if (total <= this.#granted) return;
    this.#granted = total;
    this.#resume();
  }

  /** Ends `run` with this error and cancels the body. */
  fail(error: Error): void {
    if (this.#done) return;
    this.#done = true;
    this.#failure = error;
    this.#body.cancel(error);
    this.#resume();
  }

  /** Resolves when the last frame is handed to the connection. Rejects with what ended the body or the stream. */
  async run(): Promise<void> {
    const most = Math.max(1, Math.min(chunkBytes, this.#maxPayloadBytes() - chunkHeadBytes));
    try {
      for await (const piece of this.#body) {
        for (let at = 0; at < piece.length;) {
          while (this.#leftBytes() <= 0) await this.#credit();
          const size = Math.min(piece.length - at, most, this.#leftBytes());
          this.#send(...chunkPieces(this.#n++, piece.subarray(at, at + size)));
          this.#sent += costOf(size, 1);
          this.#budget.garbage.passed(size);
          at += size;
        }
      }
      if (this.#failure !== undefined) throw this.#failure;
      this.#send(encodeEnd(this.#n, this.#body.trailers));
    } finally {
      this.#done = true;
    }
  }

  #leftBytes(): number {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#granted - this.#sent - chunkCostBytes;
  }

  #credit(): Promise<void> {
    return new Promise((resolve) => (this.#wake = resolve));
  }

  #resume(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/** Takes the chunks of a body; `body` is what its reader gets. */
export class BodyReceiver {
  readonly body: BodyQueue;
  readonly #send: Send;
  readonly #budget: WindowBudget;
  #windowBytes = initialWindowBytes;
  #granted = initialWindowBytes;
  #received = 0;
  #taken = 0;
  #next = 0;
  #done = false;

  /** `first`: the bytes that came with the head, beside the credit. `onCancel` is told when the reader gives up. */
  constructor(
    first: Uint8Array,
    length: number | undefined,
    send: Send,
    budget: WindowBudget,
    onCancel: (reason: Error) => void,
  ) {
    this.#send = send;
    this.#budget = budget;
    // What came with the head was not sent on credit, so taking it earns none.
    this.#taken = first.length === 0 ? 0 : -costOf(first.length, 1);
    const cancelled = (reason: Error): void => {
      this.#close();
      onCancel(reason);
    };
    this.body = new BodyQueue(
      { onTaken: (bytes, pieces) => this.#onTaken(costOf(bytes, pieces)), onCancel: cancelled },
      length,
    );
    this.body.push(first);
  }

  /** Throws MeshError: `interrupted` when chunks were lost, `protocol` when the sender exceeds its credit. */
  onChunk(n: number, bytes: Uint8Array): void {
    if (this.#done) return;
    this.#expect(n);
    this.#next++;
    this.#received += costOf(bytes.length, 1);
    this.#budget.garbage.passed(bytes.length);
    if (this.#received > this.#granted) {
      throw new MeshError(
        "protocol",
        `the peer sent ${this.#received} bytes with a credit of ${this.#granted}`,
      );
    }
    this.body.push(bytes);
  }

  onEnd(n: number, trailers: readonly string[]): void {
    if (this.#done) return;
    this.#expect(n);
    this.#close();
    this.body.end(trailers);
  }

  /** The sender is at chunk `n`: shows the loss of the last ones. */
  onProgress(n: number): void {
    if (!this.#done) this.#expect(n);
  }

  fail(error: Error): void {
    if (this.#done) return;
    this.#close();
    this.body.fail(error);
  }

  /** Repeats the credit, in case it was lost. */
  repeatCredit(): void {
    if (!this.#done) this.#send(encodeCredit(this.#granted));
  }

  #expect(n: number): void {
    if (n === this.#next) return;
    throw new MeshError("interrupted", `chunk ${this.#next} of the body is lost: the peer is at ${n}`);
  }

  #onTaken(cost: number): void {
    this.#taken += cost;
    if (this.#done || this.#taken + this.#windowBytes - this.#granted < this.#windowBytes / 2) return;
    // A reader that empties half a window deserves a larger one.
    if (this.#windowBytes < maxWindowBytes && this.#budget.take(this.#windowBytes)) this.#windowBytes *= 2;
    this.#granted = this.#taken + this.#windowBytes;
    this.#send(encodeCredit(this.#granted));
  }

  #close(): void {
    if (this.#done) return;
    this.#done = true;
    this.#budget.give(this.#windowBytes - initialWindowBytes);
  }
}

function costOf(bytes: number, chunks: number): number {
  return bytes + chunks * chunkCostBytes;
}
