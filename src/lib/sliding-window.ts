/** Counts and sums of what happened in the last so many milliseconds, in two halves that take turns. */
import type { Clock } from "../../mesh/index.ts";

const halves = 2;

export class SlidingWindow {
  readonly #clock: Clock;
  readonly #halfMs: number;
  readonly #counts = [0, 0];
  readonly #sums = [0, 0];
  /** Number of the half that was used last, counted from the clock's start. */
  #at = Number.NEGATIVE_INFINITY;

  constructor(intervalMs: number, clock: Clock) {
    this.#halfMs = intervalMs / halves;
    this.#clock = clock;
  }

  add(value: number): void {
    const half = this.#advance();
    this.#counts[half]! += 1;
    this.#sums[half]! += value;
  }

  get count(): number {
    this.#advance();
    return this.#counts[0]! + this.#counts[1]!;
  }

  get sum(): number {
    this.#advance();
    return this.#sums[0]! + this.#sums[1]!;
  }

  /** Forgets what is too old and tells which half is now's. */
  #advance(): number {
    const now = Math.floor(this.#clock.monotonicMs() / this.#halfMs);
    for (let past = Math.max(this.#at + 1, now - halves + 1, 0); past <= now; past++) {
      this.#counts[past % halves] = 0;
      this.#sums[past % halves] = 0;
    }
    this.#at = now;
    return now % halves;
  }
}
