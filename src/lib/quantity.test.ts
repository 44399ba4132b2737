import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseQuantityBytes } from "./quantity.ts";

describe("parseQuantityBytes", () => {
  // Expected values were printed by Kubernetes' own resource.ParseQuantity(...).Value().
  it.each([
    ["4Mi", 4_194_304],
    ["64Ki", 65_536],
    ["1G", 1_000_000_000],
    ["512", 512],
    ["1.5Mi", 1_572_864],
    ["-1", -1],
    ["0", 0],
    ["+5", 5],
    ["1e3", 1_000],
    ["1E3", 1_000],
    ["12e6", 12_000_000],
    ["1k", 1_000],
    ["1.5", 2],
    ["-1.5", -2],
    ["100m", 1],
    ["1n", 1],
    ["1e-3", 1],
    [".5Mi", 524_288],
    ["5.", 5],
    ["0.1Ki", 103],
    ["1Ti", 1_099_511_627_776],
    [".", 0],
    ["9Ei", Number.MAX_SAFE_INTEGER],
  ])("reads %s", (text, bytes) => {
    expect(parseQuantityBytes(text)).toBe(bytes);
  });

  it.each(["", "abc", "4 Mi", "4MiB", "4mb", "1..2", "1.2.3Mi"])("refuses the shape of %j", (text) => {
    expect(() => parseQuantityBytes(text)).toThrow(
      "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
  });

  it.each(["1K", "1e", "1ki", "1MM"])("refuses the suffix of %s", (text) => {
    expect(() => parseQuantityBytes(text)).toThrow("unable to parse quantity's suffix");
  });

  it("multiplies by the binary suffix", () => {
    fc.assert(
      fc.property(fc.nat(1 << 20), (count) => {
        expect(parseQuantityBytes(`${count}Ki`)).toBe(count * 1024);
        expect(parseQuantityBytes(`${count}`)).toBe(count);
      }),
    );
  });
});
