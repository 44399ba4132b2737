/** `--app-max-concurrency`: calls beyond the limit wait in line; a slot is held until the answer is complete. */

/** Calls waiting in line; more are refused, so that a stuck app cannot fill the memory. */
const maxWaiting = 10_000;

export class Slots {
  readonly #limit: number;
  readonly #waiting: (() => void)[] = [];
  #used = 0;

  /** `limit` <= 0: no limit. */
  constructor(limit: number) {
    this.#limit = limit > 0 ? limit : Number.POSITIVE_INFINITY;
  }

  /** Runs `task` when a slot is free. Rejects when the signal is aborted first or the line is full. */
  async run<T>(signal: AbortSignal, task: () => Promise<T>): Promise<T> {
    if (!this.limited) return task();
    const release = await this.hold(signal);
    try {
      return await task();
    } finally {
      release();
    }
  }

  /** Takes a slot when one is free; the result gives it back, once. Rejects as `run`. */
  async hold(signal: AbortSignal): Promise<() => void> {
    if (this.#used >= this.#limit) await this.#wait(signal);
    else this.#used++;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      // A slot goes straight to the next in line, so `used` only falls when nobody waits.
      const next = this.#waiting.shift();
      if (next === undefined) this.#used--;
      else next();
    };
  }

  get limited(): boolean {
    return this.#limit !== Number.POSITIVE_INFINITY;
  }

  #wait(signal: AbortSignal): Promise<void> {
    if (this.#waiting.length >= maxWaiting) {
      return Promise.reject(
        new Error(`${maxWaiting} calls already wait for the app (--app-max-concurrency=${this.#limit})`),
      );
    }
    return new Promise((resolve, reject) => {
      const enter = (): void => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const leave = (): void => {
        const place = this.#waiting.indexOf(enter);
        if (place >= 0) this.#waiting.splice(place, 1);
        reject(signal.reason instanceof Error ? signal.reason : new Error(String(signal.reason)));
      };
      if (signal.aborted) return leave();
      this.#waiting.push(enter);
      signal.addEventListener("abort", leave, { once: true });
    });
  }
}
