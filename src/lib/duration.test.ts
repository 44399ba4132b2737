import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  DurationError,
  formatGoDuration,
  parseDuration,
  parseDurationOrMilliseconds,
  parseDurationOrSeconds,
  parseGoDuration,
  parseIsoDuration,
} from "./duration.ts";

describe("parseGoDuration", () => {
  // Expected values and texts were printed by Go 1.26's time.ParseDuration and Duration.String.
  it.each([
    ["1h30m", 5_400_000, "1h30m0s"],
    ["1.5s", 1_500, "1.5s"],
    ["-5s", -5_000, "-5s"],
    ["300ms", 300, "300ms"],
    ["1us", 0.001, "1µs"],
    ["1\u00b5s", 0.001, "1µs"],
    ["1\u03bcs", 0.001, "1µs"],
    ["0", 0, "0s"],
    ["-0", 0, "0s"],
    ["+0", 0, "0s"],
    [".5s", 500, "500ms"],
    ["5.s", 5_000, "5s"],
    ["1.0000000001s", 1_000, "1s"],
    ["00005s", 5_000, "5s"],
    ["1m61s", 121_000, "2m1s"],
    ["0.1ns", 0, "0s"],
    ["100ns", 0.0001, "100ns"],
    ["1.5us", 0.0015, "1.5µs"],
    ["1.1h", 3_960_000, "1h6m0s"],
    ["1h0m0.5s", 3_600_500, "1h0m0.5s"],
    ["24h", 86_400_000, "24h0m0s"],
    ["90s", 90_000, "1m30s"],
    ["1.s5s", 6_000, "6s"],
  ])("reads %s as %d ms and prints %s", (text, ms, printed) => {
    expect(parseGoDuration(text) + 0).toBe(ms);
    expect(formatGoDuration(ms)).toBe(printed);
  });

  it.each([
    ["5", 'time: missing unit in duration "5"'],
    ["1.5.5s", 'time: missing unit in duration "1.5.5s"'],
    ["1h5", 'time: missing unit in duration "1h5"'],
    ["", 'time: invalid duration ""'],
    ["-", 'time: invalid duration "-"'],
    [".s", 'time: invalid duration ".s"'],
    ["s", 'time: invalid duration "s"'],
    ["1s.", 'time: invalid duration "1s."'],
    ["3000000h", 'time: invalid duration "3000000h"'],
    ["9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'],
    [`${"9".repeat(60)}s`, `time: invalid duration "${"9".repeat(60)}s"`],
    ["1d", 'time: unknown unit "d" in duration "1d"'],
    ["1 s", 'time: unknown unit " s" in duration "1 s"'],
    ["1h-5m", 'time: unknown unit "h-" in duration "1h-5m"'],
    ["1é", 'time: unknown unit "\\xc3\\xa9" in duration "1\\xc3\\xa9"'],
    ['1"s', 'time: unknown unit "\\"s" in duration "1\\"s"'],
    ["1\n", 'time: unknown unit "\\x0a" in duration "1\\x0a"'],
  ])("refuses %j as Go does", (text, message) => {
    expect(() => parseGoDuration(text)).toThrow(new DurationError(message));
  });

  it("reads back whatever it prints", () => {
    fc.assert(
      fc.property(fc.integer({ min: -9_223_372_036_854, max: 9_223_372_036_854 }), (ms) => {
        expect(parseGoDuration(formatGoDuration(ms))).toBe(ms);
      }),
    );
  });

  it("adds the parts of any mixture of units", () => {
    const parts = fc.array(fc.tuple(fc.nat(999), fc.constantFrom("h", "m", "s", "ms")), { minLength: 1 });
    const scale = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };
    fc.assert(
      fc.property(parts, (list) => {
        const text = list.map(([count, unit]) => `${count}${unit}`).join("");
        const ms = list.reduce((sum, [count, unit]) => sum + count * scale[unit], 0);
        expect(parseGoDuration(text)).toBe(ms);
      }),
    );
  });

  it("either gives a number or a DurationError, whatever the text", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          expect(parseGoDuration(text)).toBeTypeOf("number");
        } catch (error) {
          expect(error).toBeInstanceOf(DurationError);
        }
      }),
    );
  });
});

describe("parseIsoDuration", () => {
  const zero = { years: 0, months: 0, days: 0, timeMs: 0, repetitions: undefined };

  it.each([
    ["PT30S", { ...zero, timeMs: 30_000 }],
    ["R5/PT30S", { ...zero, timeMs: 30_000, repetitions: 5 }],
    ["P1Y2M3DT4H5M6S", { years: 1, months: 2, days: 3, timeMs: 14_706_000, repetitions: undefined }],
    ["P2W", { ...zero, days: 14 }],
    ["P1W1D", { ...zero, days: 8 }],
    ["PT0S", zero],
    ["R0/P1M", { ...zero, months: 1, repetitions: 0 }],
  ])("reads %s", (text, expected) => {
    expect(parseIsoDuration(text)).toEqual(expected);
  });

  it.each(["", "P", "PT", "P1DT", "R5", "R5/", "R5PT1S", "PT1.5S", "P1S", "PT1D", "-PT1S", "pt1s", "P1D1Y"])(
    "refuses %j",
    (text) => {
      expect(() => parseIsoDuration(text)).toThrow(
        `unsupported ISO8601 duration format ${JSON.stringify(text)}`,
      );
    },
  );
});

describe("the mixed forms", () => {
  it("chooses ISO by the first letter", () => {
    expect(parseDuration("R2/PT1M")).toMatchObject({ timeMs: 60_000, repetitions: 2 });
    expect(parseDuration("1m")).toMatchObject({ timeMs: 60_000, repetitions: undefined });
    expect(() => parseDuration("P1x")).toThrow("ISO8601");
    expect(() => parseDuration("1x")).toThrow("unknown unit");
  });

  it.each([
    ["30", 30_000, 30],
    ["-1", -1_000, -1],
    ["1m", 60_000, 60_000],
    ["500ms", 500, 500],
  ])("%s is %d ms where integers are seconds and %d ms where they are milliseconds", (text, seconds, ms) => {
    expect(parseDurationOrSeconds(text)).toBe(seconds);
    expect(parseDurationOrMilliseconds(text)).toBe(ms);
  });

  it("refuses fractions without a unit", () => {
    expect(() => parseDurationOrSeconds("1.5")).toThrow('time: missing unit in duration "1.5"');
    expect(() => parseDurationOrMilliseconds("abc")).toThrow('time: invalid duration "abc"');
  });
});
