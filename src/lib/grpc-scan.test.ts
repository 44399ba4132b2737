// Messages found in bytes that come in pieces of any size.
import fc from "fast-check";
import { expect, test } from "vitest";
import { encodeFrame } from "./grpc-frames.ts";
import { FrameScan, HoldBudget, WholeMessages } from "./grpc-scan.ts";

const bytes = (text: string): Buffer => encodeFrame(Buffer.from(text));
const roomy = (): HoldBudget => new HoldBudget(1_000_000);

test("says how much of a chunk belongs to whole messages", () => {
  const scan = new FrameScan(100);
  const two = Buffer.concat([bytes("abc"), bytes("")]);
  expect(scan.push(two)).toBe(two.length);
  expect(scan.partial).toBe(false);
  expect(scan.push(Buffer.concat([bytes("de"), bytes("fgh").subarray(0, 3)]))).toBe(7);
  expect(scan.partial).toBe(true);
  expect(scan.begun).toBe(4);
  expect(scan.push(bytes("fgh").subarray(3))).toBe(5);
  expect([scan.partial, scan.begun]).toEqual([false, 4]);
});

test("refuses a message above the limit by its prefix, and a flag that is none", () => {
  const large = Buffer.from([0, 0, 0, 0, 11]);
  expect(() => new FrameScan(10).push(large)).toThrow("received message larger than max (11 vs. 10)");
  expect(new FrameScan(11).push(large)).toBe(0);
  const huge = Buffer.from([1, 255, 255, 255, 255]);
  expect(() => new FrameScan(10).push(huge)).toThrow("(4294967295 vs. 10)");
  expect(() => new FrameScan(10).push(Buffer.from([2]))).toThrow("unexpected payload format 2");
});

test("whatever the pieces: everything comes out in order, and never an unfinished message", () => {
  const messages = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 });
  fc.assert(
    fc.property(messages, fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }), (all, sizes) => {
      const wire = Buffer.concat(all.map((message) => encodeFrame(message)));
      const ends = new Set([0]);
      for (let at = 0, i = 0; i < all.length; i++) ends.add((at += all[i]!.length + 5));
      const whole = new WholeMessages(100, roomy());
      const out: Uint8Array[] = [];
      for (let at = 0, i = 0; at < wire.length; i++) {
        const size = sizes[i % sizes.length]!;
        out.push(...whole.push(wire.subarray(at, at + size)));
        at += size;
        expect(ends.has(Buffer.concat(out).length)).toBe(true);
      }
      expect(Buffer.concat(out).equals(wire)).toBe(true);
      expect(whole.partial).toBe(false);
    }),
  );
});

test("without room a message goes on as it comes, and room that was used is given back", () => {
  const budget = new HoldBudget(10);
  const whole = new WholeMessages(100, budget);
  const wire = bytes("0123456789abcdef");
  expect(whole.push(wire.subarray(0, 8))).toEqual([]);
  expect(Buffer.concat(whole.push(wire.subarray(8, 14))).equals(wire.subarray(0, 14))).toBe(true);
  expect(budget.take(10)).toBe(true);
  budget.give(10);
  expect(Buffer.concat(whole.push(wire.subarray(14))).equals(wire.subarray(14))).toBe(true);
  expect(whole.push(wire.subarray(0, 8))).toEqual([]);
  expect(budget.take(3)).toBe(false);
  whole.drop();
  expect(budget.take(10)).toBe(true);
});
