import { describe, expect, it } from "vitest";
import { builtInRetries } from "./built-in.ts";
import { matches, type RetryRule, Waits } from "./retry.ts";

const constant: RetryRule = { ...builtInRetries.DaprBuiltInServiceRetries, waitMs: 200 };
const growing: RetryRule = {
  ...builtInRetries.DaprBuiltInActorReminderRetries,
  maxElapsedMs: 15 * 60_000,
};

/** All waits, time passing as they say, up to `limit`. */
function waitsOf(rule: RetryRule, random: number, limit = 1_000): number[] {
  let nowMs = 0;
  const waits = new Waits(rule, { monotonicMs: () => nowMs }, () => random);
  const all: number[] = [];
  for (let next = waits.next(); next !== undefined && all.length < limit; next = waits.next()) {
    all.push(next);
    nowMs += next;
  }
  return all;
}

describe("waits between tries", () => {
  it("are constant and as many as allowed", () => {
    expect(waitsOf({ ...constant, maxRetries: 3 }, 0.5)).toEqual([200, 200, 200]);
    expect(waitsOf({ ...constant, maxRetries: 0 }, 0.5)).toEqual([]);
    expect(waitsOf({ ...constant, maxRetries: -1 }, 0.5)).toHaveLength(1_000);
  });

  it("grow by half up to their limit", () => {
    const rule = { ...growing, maxWaitMs: 2_000, maxRetries: 6 };
    expect(waitsOf(rule, 0.5)).toEqual([500, 750, 1125, 1687.5, 2000, 2000]);
  });

  it.each([
    [0, 0.5],
    [1, 1.5],
  ])("differ from that by up to half: chance %f gives %f times", (random, factor) => {
    const all = waitsOf({ ...growing, maxRetries: 3 }, random);
    expect(all.map((ms) => Math.round(ms))).toEqual([500, 750, 1125].map((ms) => Math.round(ms * factor)));
  });

  it("end before the longest time has passed", () => {
    const all = waitsOf(growing, 0.5);
    const totalMs = all.reduce((sum, ms) => sum + ms, 0);
    expect(totalMs).toBeLessThanOrEqual(15 * 60_000);
    expect(totalMs).toBeGreaterThan(15 * 60_000 - 60_000);
  });
});

it("codes match when they are in a range, or when none is given", () => {
  const ranges = [
    { first: 429, last: 429 },
    { first: 500, last: 503 },
  ];
  expect([428, 429, 499, 500, 503, 504].map((code) => matches(ranges, code))).toEqual([
    false,
    true,
    false,
    true,
    true,
    false,
  ]);
  expect(matches(undefined, 404)).toBe(true);
});
