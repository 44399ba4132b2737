import { describe, expect, it } from "vitest";
import { eachAtMost } from "./each-at-most.ts";

describe("eachAtMost", () => {
  it.each([
    [1, 1],
    [3, 3],
    [100, 10],
  ])("with a limit of %i has %i of ten steps at work at once", async (limit, most) => {
    let running = 0;
    let peak = 0;
    const begun: number[] = [];
    const items = Array.from({ length: 10 }, (_, i) => i);
    await eachAtMost(items, limit, async (item, index) => {
      expect(item).toBe(index);
      begun.push(item);
      peak = Math.max(peak, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      running--;
    });
    expect(begun).toEqual(items);
    expect([peak, running]).toEqual([most, 0]);
  });

  it("does nothing for an empty list", async () => {
    await eachAtMost([], 5, () => Promise.reject(new Error("never")));
  });

  it("begins no further step after a failure", async () => {
    const begun: number[] = [];
    const work = eachAtMost([1, 2, 3, 4], 2, async (item) => {
      begun.push(item);
      if (item === 1) throw new Error("no");
      await new Promise((resolve) => setImmediate(resolve));
    });
    await expect(work).rejects.toThrow("no");
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    expect(begun).toEqual([1, 2]);
  });
});
