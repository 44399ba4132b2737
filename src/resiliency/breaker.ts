/**
 * A circuit breaker: closed it counts, and opens when its rule says so; open it refuses every call for a while; then,
 * half-open, it lets a few calls through, and their outcome closes or opens it again.
 */
import type { Clock } from "../../mesh/index.ts";
import { PolicyStop } from "./stop.ts";

export type BreakerState = "closed" | "half-open" | "open";

/** Calls since the last change of state, or the last clearing. */
export type Counts = {
  requests: number;
  totalSuccesses: number;
  totalFailures: number;
  consecutiveSuccesses: number;
  consecutiveFailures: number;
};

export type BreakerRule = {
  /** Calls let through while half-open, and successes that close the breaker. */
  readonly maxRequests: number;
  /** While closed, counts are cleared after each such time, ms; 0 for never. */
  readonly intervalMs: number;
  /** From open to half-open, ms. */
  readonly openMs: number;
  /** Asked after each failure while closed. */
  readonly trips: (counts: Readonly<Counts>) => boolean;
};

export class Breaker {
  readonly #rule: BreakerRule;
  readonly #clock: Clock;
  readonly #onChange: (state: BreakerState) => void;
  #state: BreakerState = "closed";
  #counts = noCounts();
  /** Grows with each change and clearing: a call that began before does not count after. */
  #generation = 0;
  /** Monotonic time at which the state ends or the counts are cleared. */
  #endMs: number;

  constructor(rule: BreakerRule, clock: Clock, onChange: (state: BreakerState) => void) {
    this.#rule = rule;
    this.#clock = clock;
    this.#onChange = onChange;
    this.#endMs = this.#endOf("closed");
  }

  get state(): BreakerState {
    this.#passTime();
    return this.#state;
  }

  /** Begins a call; the result goes to `settle`. Throws PolicyStop when the call may not be made. */
  enter(): number {
    this.#passTime();
    if (this.#state === "open") throw new PolicyStop("open");
    if (this.#state === "half-open" && this.#counts.requests >= this.#rule.maxRequests) {
      throw new PolicyStop("busy");
    }
    this.#counts.requests++;
    return this.#generation;
  }

  /** Ends a call. `unknown`: it was given up by its caller and says nothing about its target. */
  settle(generation: number, outcome: "success" | "failure" | "unknown"): void {
    this.#passTime();
    if (generation !== this.#generation) return;
    const counts = this.#counts;
    if (outcome === "unknown") {
      counts.requests--;
    } else if (outcome === "success") {
      counts.totalSuccesses++;
      counts.consecutiveSuccesses++;
      counts.consecutiveFailures = 0;
      if (this.#state === "half-open" && counts.consecutiveSuccesses >= this.#rule.maxRequests) {
        this.#change("closed");
      }
    } else {
      counts.totalFailures++;
      counts.consecutiveFailures++;
      counts.consecutiveSuccesses = 0;
      if (this.#state === "half-open" || this.#rule.trips(counts)) this.#change("open");
    }
  }

  #passTime(): void {
    if (this.#clock.monotonicMs() < this.#endMs) return;
    if (this.#state === "open") this.#change("half-open");
    else this.#begin("closed");
  }

  #change(state: BreakerState): void {
    this.#begin(state);
    this.#onChange(state);
  }

  #begin(state: BreakerState): void {
    this.#state = state;
    this.#counts = noCounts();
    this.#generation++;
    this.#endMs = this.#endOf(state);
  }

  #endOf(state: BreakerState): number {
    const nowMs = this.#clock.monotonicMs();
    if (state === "open") return nowMs + this.#rule.openMs;
    const { intervalMs } = this.#rule;
    return state === "closed" && intervalMs > 0 ? nowMs + intervalMs : Number.POSITIVE_INFINITY;
  }
}

function noCounts(): Counts {
  return {
    requests: 0,
    totalSuccesses: 0,
    totalFailures: 0,
    consecutiveSuccesses: 0,
    consecutiveFailures: 0,
  };
}
