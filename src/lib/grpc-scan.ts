/**
 * Looks at the messages of a gRPC stream while its bytes pass by: where each ends, and whether one is too large.
 * Nothing is decoded or copied; chunks may be cut anywhere.
 */
import { GrpcWireError, receivedTooLarge } from "./grpc-frames.ts";

const prefixBytes = 5;
const internal = 13;

export class FrameScan {
  readonly #maxMessageBytes: number;
  /** Bytes of the prefix that have been seen. */
  #prefix = 0;
  #begun = 0;
  #lengthBytes = 0;
  /** What is missing of the message whose prefix is complete. */
  #left = 0;

  constructor(maxMessageBytes: number) {
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Whether a message has begun that is not complete. */
  get partial(): boolean {
    return this.#prefix > 0;
  }

  /** Messages of which there is at least one byte. */
  get begun(): number {
    return this.#begun;
  }

  /**
   * Takes the next chunk. Returns how many of its bytes belong to complete messages; the rest begins or continues an
   * incomplete one. Throws GrpcWireError for a bad prefix or a message above the limit.
   */
  push(chunk: Uint8Array): number {
    let complete = 0;
    for (let at = 0; at < chunk.length;) {
      if (this.#prefix < prefixBytes) {
        this.#takePrefix(chunk[at++]!);
        if (this.#prefix < prefixBytes) continue;
      }
      const taken = Math.min(this.#left, chunk.length - at);
      this.#left -= taken;
      at += taken;
      if (this.#left > 0) break;
      this.#prefix = 0;
      complete = at;
    }
    return complete;
  }

  #takePrefix(byte: number): void {
    if (this.#prefix === 0) {
      if (byte > 1) throw new GrpcWireError(internal, `grpc: received unexpected payload format ${byte}`);
      this.#begun++;
      this.#lengthBytes = 0;
    } else this.#lengthBytes = this.#lengthBytes * 256 + byte;
    this.#prefix++;
    if (this.#prefix < prefixBytes) return;
    if (this.#lengthBytes > this.#maxMessageBytes)
      throw receivedTooLarge(this.#lengthBytes, this.#maxMessageBytes);
    this.#left = this.#lengthBytes;
  }
}

/** Bytes that all streams together hold back. */
export class HoldBudget {
  #leftBytes: number;

  constructor(bytes: number) {
    this.#leftBytes = bytes;
  }

  take(bytes: number): boolean {
    if (bytes > this.#leftBytes) return false;
    this.#leftBytes -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#leftBytes += bytes;
  }
}

/**
 * Lets bytes go on at the ends of messages, so that a stream which breaks off leaves no torn message before its status.
 * A message for which the budget has no room goes on as it comes.
 */
export class WholeMessages {
  readonly #scan: FrameScan;
  readonly #budget: HoldBudget;
  #held: Uint8Array[] = [];
  #heldBytes = 0;

  constructor(maxMessageBytes: number, budget: HoldBudget) {
    this.#scan = new FrameScan(maxMessageBytes);
    this.#budget = budget;
  }

  /** Whether the stream so far ends inside a message. */
  get partial(): boolean {
    return this.#scan.partial;
  }

  /** What may go on now. Throws GrpcWireError as FrameScan does. */
  push(chunk: Uint8Array): readonly Uint8Array[] {
    const complete = this.#scan.push(chunk);
    if (complete === chunk.length && this.#heldBytes === 0) return [chunk];
    const go: Uint8Array[] = [];
    if (complete > 0) {
      go.push(...this.#release(), chunk.subarray(0, complete));
      if (complete === chunk.length) return go;
    }
    const rest = complete === 0 ? chunk : chunk.subarray(complete);
    if (!this.#budget.take(rest.length)) return [...go, ...this.#release(), rest];
    this.#held.push(rest);
    this.#heldBytes += rest.length;
    return go;
  }

  /** Gives up what is held. To be called at every end of the stream. */
  drop(): void {
    this.#release();
  }

  #release(): Uint8Array[] {
    const held = this.#held;
    this.#budget.give(this.#heldBytes);
    this.#held = [];
    this.#heldBytes = 0;
    return held;
  }
}
