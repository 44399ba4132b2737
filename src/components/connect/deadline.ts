/** A bound in time for calls of client libraries that have none of their own. */
import type { Clock } from "../../../mesh/index.ts";

/** Nothing came back: no answer in time, or the connection ended. */
export class NoAnswer extends Error {}

/**
 * Settles as `work`, or rejects after `timeoutMs` with NoAnswer saying that `what` took longer, or when the signal
 * is aborted. The work itself goes on; what it does later is dropped.
 */
export function withDeadline<T>(
  work: Promise<T>,
  what: string,
  timeoutMs: number,
  clock: Clock,
  signal?: AbortSignal,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const end = (): void => {
      timer.cancel();
      signal?.removeEventListener("abort", onAbort);
    };
    const onAbort = (): void => {
      timer.cancel();
      reject(signal?.reason as Error);
    };
    const timer = clock.setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      reject(new NoAnswer(`${what}: no answer within ${timeoutMs} ms`));
    }, timeoutMs);
    if (signal?.aborted === true) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
    work.then(
      (value) => {
        end();
        resolve(value);
      },
      (error: unknown) => {
        end();
        reject(error);
      },
    );
  });
}
