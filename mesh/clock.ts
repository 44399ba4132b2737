/**
 * Time as a dependency: the mesh and the sidecar take a `Clock`, so that tests can drive deadlines and leases.
 * This file and `src/lib` are the only places that touch the real clock.
 */

/** A running one-shot or repeating timer. */
export type Timer = {
  cancel(): void;
};

/** Wall-clock time, a monotonic time and timers. Times are milliseconds. */
export type Clock = {
  /** Unix time in milliseconds. */
  nowMs(): number;
  /** Milliseconds since an arbitrary start; never goes back. */
  monotonicMs(): number;
  /** Runs `task` once after `delayMs`. Does not keep the process alive. */
  setTimeout(task: () => void, delayMs: number): Timer;
  /** Runs `task` every `periodMs`. Does not keep the process alive. */
  setInterval(task: () => void, periodMs: number): Timer;
  /** Resolves after `delayMs`; rejects with the signal's reason when it is aborted first. Keeps the process alive. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
};

/** Longest delay of a Node timer, ms (24 days); a longer one would fire at once. */
const maxDelayMs = 2 ** 31 - 1;

/** The real clock of this machine. Delays above 24 days, Infinity too, become 24 days. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  setTimeout(task, delayMs) {
    const handle = setTimeout(task, Math.min(delayMs, maxDelayMs)).unref();
    return { cancel: () => clearTimeout(handle) };
  },
  setInterval(task, periodMs) {
    const handle = setInterval(task, periodMs).unref();
    return { cancel: () => clearInterval(handle) };
  },
  sleep(delayMs, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = (): void => {
        clearTimeout(handle);
        reject(signal?.reason);
      };
      const handle = setTimeout(
        () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
        Math.min(delayMs, maxDelayMs),
      );
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  },
};
