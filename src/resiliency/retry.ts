/** When an attempt is repeated and how long to wait before: constant or growing waits, and the codes that count. */
import type { CodeRange } from "../config/kinds/resiliency.ts";

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

/** Time and chance, as policies take them. */
export type Chance = {
  readonly monotonicMs: () => number;
  /** 0 <= value < 1. */
  readonly random: () => number;
};

/** Growing waits: each is so many times the one before, and differs from it by up to the spread. */
const growth = 1.5;
const spread = 0.5;

/** The waits of one call. */
export class Waits {
  readonly #rule: RetryRule;
  readonly #chance: Chance;
  readonly #startMs: number;
  #nextMs: number;
  #retries = 0;

  constructor(rule: RetryRule, chance: Chance) {
    this.#rule = rule;
    this.#chance = chance;
    this.#startMs = chance.monotonicMs();
    this.#nextMs = rule.waitMs;
  }

  /** Wait before the next try, ms; undefined when there is none any more. */
  next(): number | undefined {
    const { growing, maxRetries, maxElapsedMs, maxWaitMs, waitMs } = this.#rule;
    if (maxRetries >= 0 && this.#retries >= maxRetries) return undefined;
    this.#retries++;
    let nextMs = waitMs;
    if (growing) {
      nextMs = this.#nextMs * (1 - spread + 2 * spread * this.#chance.random());
      this.#nextMs = Math.min(this.#nextMs * growth, maxWaitMs);
    }
    const elapsedMs = this.#chance.monotonicMs() - this.#startMs;
    return elapsedMs + nextMs > maxElapsedMs ? undefined : nextMs;
  }
}

/** True when `code` is among the ranges, or there are none. */
export function matches(ranges: readonly CodeRange[] | undefined, code: number): boolean {
  return ranges === undefined || ranges.some(({ first, last }) => code >= first && code <= last);
}
