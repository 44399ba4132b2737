/** A clock that stands still until a test moves it. */
import type { Clock } from "../../mesh/index.ts";

export type ManualClock = Clock & {
  /** Moves time and runs what became due, in order. */
  advance(ms: number): void;
};

/** Starts at a fixed time in 2025. */
export function manualClock(): ManualClock {
  let nowMs = Date.UTC(2025, 0, 1);
  const timers = new Set<{
    dueMs: number;
    readonly everyMs: number | undefined;
    readonly task: () => void;
  }>();
  const start = (task: () => void, delayMs: number, everyMs?: number): { cancel(): void } => {
    const timer = { dueMs: nowMs + delayMs, everyMs, task };
    timers.add(timer);
    return { cancel: () => void timers.delete(timer) };
  };
  return {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    setTimeout: (task, delayMs) => start(task, delayMs),
    setInterval: (task, periodMs) => start(task, periodMs, periodMs),
    sleep: (delayMs, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted === true) return reject(signal.reason);
        const timer = start(resolve, delayMs);
        signal?.addEventListener("abort", () => {
          timer.cancel();
          reject(signal.reason);
        });
      }),
    advance(ms) {
      const untilMs = nowMs + ms;
      for (;;) {
        const [next] = [...timers]
          .filter((timer) => timer.dueMs <= untilMs)
          .sort((a, b) => a.dueMs - b.dueMs);
        if (next === undefined) break;
        nowMs = next.dueMs;
        if (next.everyMs === undefined) timers.delete(next);
        else next.dueMs += next.everyMs;
        next.task();
      }
      nowMs = untilMs;
    },
  };
}
