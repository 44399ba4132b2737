/** Waiting for a condition without a fixed sleep. */
import { setTimeout as sleep } from "node:timers/promises";

export type EventuallyOptions = {
  /** Longest wait, ms; 10,000 when not given. */
  readonly timeoutMs?: number;
  /** Wait between two tries, ms; 25 when not given. */
  readonly everyMs?: number;
  /** What is waited for, in words, for the error. */
  readonly what?: string;
};

/**
 * Calls `attempt` until it neither throws nor returns `false`, and gives its result. Rejects after `timeoutMs` with
 * the last error as cause and in the text.
 */
export async function eventually<T>(
  attempt: () => T | Promise<T>,
  options: EventuallyOptions = {},
): Promise<Exclude<T, false>> {
  const timeoutMs = options.timeoutMs ?? 10_000;
  const until = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const result = await attempt();
      if (result !== false) return result as Exclude<T, false>;
      last = new Error("the condition stayed false");
    } catch (error) {
      last = error;
    }
    if (performance.now() >= until) break;
    await sleep(options.everyMs ?? 25);
  }
  const text = last instanceof Error ? last.message : String(last);
  throw new Error(
    `not within ${timeoutMs} ms${options.what === undefined ? "" : ` (${options.what})`}: ${text}`,
    {
      cause: last,
    },
  );
}
