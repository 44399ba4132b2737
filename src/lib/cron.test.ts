import { expect, test } from "vitest";
import { parseSchedule } from "./cron.ts";

const start = Date.parse("2026-01-01T00:00:00Z");
const next = (text: string, zone = "UTC"): string | undefined => {
  const ms = parseSchedule(text, zone).next(start);
  return ms === undefined ? undefined : new Date(ms).toISOString();
};

test("five fields, six with seconds first, and names", () => {
  expect(next("*/5 * * * *")).toBe("2026-01-01T00:05:00.000Z");
  expect(next("*/2 * * * * *")).toBe("2026-01-01T00:00:02.000Z");
  expect(next("0 12 * JUL MON-FRI")).toBe("2026-07-01T12:00:00.000Z");
  expect(next("5/20 * * * *")).toBe("2026-01-01T00:05:00.000Z");
  expect(next("0 0 ? 2 *")).toBe("2026-02-01T00:00:00.000Z");
  expect(next("@daily")).toBe("2026-01-02T00:00:00.000Z");
});

test("@every counts from the time given, at least a second", () => {
  expect(next("@every 1m30s")).toBe("2026-01-01T00:01:30.000Z");
  expect(next("@every 10ms")).toBe("2026-01-01T00:00:01.000Z");
});

test("a zone prefix goes before the zone given", () => {
  expect(next("TZ=America/New_York 0 9 * * *")).toBe("2026-01-01T14:00:00.000Z");
  expect(next("CRON_TZ=Asia/Tokyo 0 9 * * *")).toBe("2026-01-02T00:00:00.000Z");
  expect(next("0 9 * * *", "Asia/Tokyo")).toBe("2026-01-02T00:00:00.000Z");
});

test("a day that never comes has no next time", () => {
  expect(next("0 0 31 2 *")).toBeUndefined();
});

test.each([
  "",
  "soon",
  "* * *",
  "1 2 3 4 5 6 7",
  "@every",
  "@every soon",
  "TZ=Moon/Base * * * * *",
  "61 * * * *",
])("%j is refused with the forms that are understood", (text) => {
  expect(() => parseSchedule(text, "UTC")).toThrow(/is not understood: .*@every 30s/s);
});
