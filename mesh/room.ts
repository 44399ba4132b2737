/**
 * Bytes of answers that may be on their way at once: NATS ends a connection for which more than 64 MB wait. Others wait
 * here, in their order.
 */
import { cancelledBy } from "./errors.ts";

export class Room {
  readonly #bytes: number;
  #free: number;
  readonly #waiting = new Set<{ readonly bytes: number; readonly begin: () => void }>();

  constructor(bytes: number) {
    this.#bytes = bytes;
    this.#free = bytes;
  }

  /** Does the work when its answer has room; one that is larger than all of it goes alone. */
  async run<T>(bytes: number, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    const taken = Math.min(bytes, this.#bytes);
    if (this.#waiting.size > 0 || taken > this.#free) await this.#turn(taken, signal);
    else this.#free -= taken;
    try {
      return await work();
    } finally {
      this.#free += taken;
      this.#next();
    }
  }

  /** Resolves with the bytes taken. */
  #turn(bytes: number, signal: AbortSignal | undefined): Promise<void> {
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
      const waiter = { bytes, begin };
      this.#waiting.add(waiter);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
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
