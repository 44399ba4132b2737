/**
 * Bodies in pieces: a queue with one writer and one reader, and the step from pieces to a whole body. What holds a
 * writer back is told by the queue's user: mesh credit (stream.ts), or the pause of a socket.
 */
import { MeshError } from "./errors.ts";
import type { BodyStream } from "./types.ts";

export type BodyQueueEvents = {
  /** The reader took this many bytes in so many pieces. */
  readonly onTaken?: (bytes: number, pieces: number) => void;
  /** The reader wants no more, though the body has not ended. Called once. */
  readonly onCancel?: (reason: Error) => void;
};

const noBytes = new Uint8Array(0);

/** A body whose pieces are pushed in as they come. `length` is the number of bytes in all, when it is known. */
export class BodyQueue implements BodyStream {
  readonly length: number | undefined;
  readonly #events: BodyQueueEvents;
  #pieces: Uint8Array[] = [];
  #bufferedBytes = 0;
  /** Of what was put back, which is at the front: its taking has been told. */
  #toldBytes = 0;
  #toldPieces = 0;
  #ended = false;
  #trailers: readonly string[] = [];
  #failure: Error | undefined;
  #wake: (() => void) | undefined;
  #onEnd: (() => void) | undefined;

  constructor(events: BodyQueueEvents = {}, length?: number) {
    this.#events = events;
    this.length = length;
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** No piece will follow those that are buffered. */
  get ended(): boolean {
    return this.#ended;
  }

  get failure(): Error | undefined {
    return this.#failure;
  }

  get trailers(): readonly string[] {
    return this.#trailers;
  }

  /** Ignored after the end or a failure, so that a writer need not know what its reader did. */
  push(piece: Uint8Array): void {
    if (this.#ended || this.#failure !== undefined || piece.length === 0) return;
    this.#pieces.push(piece);
    this.#bufferedBytes += piece.length;
    this.#wakeReader();
  }

  end(trailers: readonly string[] = []): void {
    if (this.#ended || this.#failure !== undefined) return;
    this.#ended = true;
    this.#trailers = trailers;
    this.#wakeReader();
    this.#onEnd?.();
  }

  /** The body stays incomplete: the reader gets this error at once. */
  fail(error: Error): void {
    if (this.#failure !== undefined || (this.#ended && this.#bufferedBytes === 0)) return;
    const { ended } = this;
    this.#failure = error;
    this.#pieces = [];
    this.#bufferedBytes = 0;
    this.#wakeReader();
    if (!ended) this.#onEnd?.();
  }

  cancel(reason: Error): void {
    if (this.#failure !== undefined || (this.#ended && this.#bufferedBytes === 0)) return;
    const { ended } = this;
    this.fail(reason);
    if (!ended) this.#events.onCancel?.(reason);
  }

  onEnd(listener: () => void): void {
    if (this.#ended || this.#failure !== undefined) listener();
    else this.#onEnd = listener;
  }

  takeReady(maxBytes: number): Uint8Array {
    const first = this.#pieces[0];
    if (first === undefined || this.#bufferedBytes > maxBytes) return noBytes;
    const count = this.#pieces.length;
    const bytes = count === 1 ? first : Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#taken(bytes.length, count);
    return bytes;
  }

  putBack(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.#failure !== undefined) return;
    this.#pieces.unshift(bytes);
    this.#bufferedBytes += bytes.length;
    this.#toldBytes += bytes.length;
    this.#toldPieces++;
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return {
      next: () => this.#next(),
      return: () => {
        this.cancel(new MeshError("cancelled", "the body was not read to its end"));
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  async #next(): Promise<IteratorResult<Uint8Array, undefined>> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const piece = this.#pieces.shift();
      if (piece !== undefined) {
        this.#taken(piece.length, 1);
        return { done: false, value: piece };
      }
      if (this.#ended) return { done: true, value: undefined };
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #taken(bytes: number, pieces: number): void {
    this.#bufferedBytes -= bytes;
    if (this.#toldPieces === 0) return this.#events.onTaken?.(bytes, pieces);
    const toldBytes = Math.min(bytes, this.#toldBytes);
    const toldPieces = Math.min(pieces, this.#toldPieces);
    this.#toldBytes -= toldBytes;
    this.#toldPieces -= toldPieces;
    if (bytes > toldBytes) this.#events.onTaken?.(bytes - toldBytes, pieces - toldPieces);
  }

  #wakeReader(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/** A body that is already there, as pieces. */
export function bodyOfBytes(bytes: Uint8Array): BodyStream {
  const queue = new BodyQueue({}, bytes.length);
  queue.push(bytes);
  queue.end();
  return queue;
}

/** A body whose reader gets this error. */
export function failedBody(error: Error, length?: number): BodyStream {
  const queue = new BodyQueue({}, length);
  queue.fail(error);
  return queue;
}

/** The whole body. Rejects with MeshError `too-large` above `maxBytes`, and with whatever ends the body early. */
export async function collectBody(body: Uint8Array | BodyStream, maxBytes: number): Promise<Uint8Array> {
  if (body instanceof Uint8Array) return body;
  const whole = await tryCollect(body, maxBytes);
  if (whole !== undefined) return whole;
  const error = bodyTooLarge(body.length ?? maxBytes + 1, maxBytes);
  body.cancel(error);
  throw error;
}

/** The whole body; undefined above `maxBytes`, with all that was read put back. Rejects with what ends it early. */
export async function tryCollect(body: BodyStream, maxBytes: number): Promise<Uint8Array | undefined> {
  if ((body.length ?? 0) > maxBytes) return undefined;
  const pieces: Uint8Array[] = [];
  let size = 0;
  // Not `for await`: that cancels a body which is not read to its end.
  const reader = body[Symbol.asyncIterator]();
  for (let next = await reader.next(); next.done !== true; next = await reader.next()) {
    size += next.value.length;
    pieces.push(next.value);
    if (size > maxBytes) {
      body.putBack(Buffer.concat(pieces, size));
      return undefined;
    }
  }
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces, size);
}

function bodyTooLarge(bytes: number, maxBytes: number): MeshError {
  return new MeshError("too-large", `a body of ${bytes} bytes or more is above the limit of ${maxBytes}`);
}
