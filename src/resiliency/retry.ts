/** When an attempt is repeated and how long to wait before: constant or growing waits, and the codes that count. */
import type { Clock } from "../../mesh/index.ts";
import type { CodeRange } from "../config/kinds/resiliency.ts";
import type { Random } from "../lib/random.ts";

/** A retry policy, ready to be used. */
export type RetryRule = {
  readonly growing: boolean;
  /** The wait, or the first of growing ones, ms. */
  readonly waitMs: number;
  /** Limit of growing waits, ms. */
  readonly maxWaitMs: number;
  /** Tries after the first; -1 for no limit. */
  readonly maxRetries: number;
  /** No try begins later than this after the first one, ms; Infinity for no limit. */
  readonly maxElapsedMs: number;
  /** Codes of an app's answer that are retried; undefined for all. */
  readonly httpCodes: readonly CodeRange[] | undefined;
  readonly grpcCodes: readonly CodeRange[] | undefined;
};

/** Growing waits: each is so many times the one before, and differs from it by up to the spread. */
const growth = 1.5;
const spread = 0.5;

/** The waits of one call. */
export class Waits {
  readonly #rule: RetryRule;
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #random: Random;
  readonly #startMs: number;
  #nextMs: number;
  #retries = 0;

  constructor(rule: RetryRule, clock: Pick<Clock, "monotonicMs">, random: Random) {
    this.#rule = rule;
    this.#clock = clock;
    this.#random = random;
    this.#startMs = clock.monotonicMs();
    this.#nextMs = rule.waitMs;
  }

  /** Wait before the next try, ms; undefined when there is none any more. */
  next(): number | undefined {
    const { growing, maxRetries, maxElapsedMs, maxWaitMs, waitMs } = this.#rule;
    if (maxRetries >= 0 && this.#retries >= maxRetries) return undefined;
    this.#retries++;
    let nextMs = waitMs;
    if (growing) {
      nextMs = this.#nextMs * (1 - spread + 2 * spread * this.#random());
      this.#nextMs = Math.min(this.#nextMs * growth, maxWaitMs);
    }
    const elapsedMs = this.#clock.monotonicMs() - this.#startMs;
    return elapsedMs + nextMs > maxElapsedMs ? undefined : nextMs;
  }
}

/** True when `code` is among the ranges, or there are none. */
export function matches(ranges: readonly CodeRange[] | undefined, code: number): boolean {
  return ranges === undefined || ranges.some(({ first, last }) => code >= first && code <= last);
}
