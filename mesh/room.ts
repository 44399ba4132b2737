/**
 * Bytes of answers that may be on their way at once: NATS ends a connection for which more than 64 MB wait. Others wait
 * here, in their order. What was taken is given back.
 */
import { cancelledBy } from "./errors.ts";

/** Least that a value is taken for, bytes. */
const leastBytes = 4_096;

export class Room {
  readonly #bytes: number;
  #free: number;
  readonly #waiting = new Set<{ readonly bytes: number; readonly begin: () => void }>();

  constructor(bytes: number) {
    this.#bytes = bytes;
    this.#free = bytes;
  }

  /** False when there is no room now: then `turn`. More than all of it is taken as all of it. */
  take(bytes: number): boolean {
    const wanted = Math.min(bytes, this.#bytes);
    if (this.#waiting.size > 0 || wanted > this.#free) return false;
    this.#free -= wanted;
    return true;
  }

  /** Resolves when the bytes are taken. Rejects with MeshError `cancelled`. */
  turn(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(cancelledBy(signal));
      const onAbort = (): void => {
        this.#waiting.delete(waiter);
        reject(cancelledBy(signal!));
        this.#next();
      };
      const begin = (): void => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      };
      const waiter = { bytes: Math.min(bytes, this.#bytes), begin };
      this.#waiting.add(waiter);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  give(bytes: number): void {
    this.#free += Math.min(bytes, this.#bytes);
    this.#next();
  }

  #next(): void {
    for (const waiter of this.#waiting) {
      if (waiter.bytes > this.#free) return;
      this.#waiting.delete(waiter);
      this.#free -= waiter.bytes;
      waiter.begin();
    }
  }
}

/** Reads of one table: each takes room for what the table's values had of late. */
export class Reads {
  readonly #room: Room;
  readonly #maxBytes: () => number;
  /** Largest value of late; undefined before the first. */
  #valueBytes: number | undefined;

  /** `maxBytes`: what a value may have of which nothing is known. */
  constructor(room: Room, maxBytes: () => number) {
    this.#room = room;
    this.#maxBytes = maxBytes;
  }

  /** Resolves with the bytes taken, for `leave`. Rejects with MeshError `cancelled`. */
  async enter(values: number, signal: AbortSignal | undefined): Promise<number> {
    const bytes = values * (this.#valueBytes ?? this.#maxBytes());
    if (!this.#room.take(bytes)) await this.#room.turn(bytes, signal);
    return bytes;
  }

  leave(bytes: number): void {
    this.#room.give(bytes);
  }

  /** A value had so many bytes; what is not seen again is forgotten over some hundred reads. */
  learn(bytes: number): void {
    this.#valueBytes = Math.max(leastBytes, bytes, 0.99 * (this.#valueBytes ?? 0));
  }
}
