/** Chance as a dependency: what uses it takes a `Random`, so that tests can decide. */

/** A number from 0 up to but not including 1. */
export type Random = () => number;

export const systemRandom: Random = () => Math.random();
