/** The part of CEL that expressions of users rely on, and, in a table of their own, the gaps that are known. */
import { describe, expect, it } from "vitest";
import { celCompiler, CelError } from "./cel.ts";

const compile = celCompiler({ event: "dyn", n: "int" });
const event = {
  id: "1",
  type: "order.created",
  data: { x: 5, half: 1.5, no: false, list: [1, 2, 3], inner: { a: 1 }, nothing: null, text: "héllo" },
};
const values = { event, n: 6n };

/** The value, with an `n` behind an int; or `error`. */
function shown(text: string): string {
  try {
    return show(compile(text).run(values));
  } catch (error) {
    expect(error).toBeInstanceOf(CelError);
    return "error";
  }
}

function show(value: unknown): string {
  if (typeof value === "bigint") return `${value}n`;
  if (value instanceof Uint8Array) return `b${JSON.stringify(Buffer.from(value).toString())}`;
  if (Array.isArray(value)) return `[${value.map(show).join(",")}]`;
  if (typeof value === "object" && value !== null && value.constructor.name === "UnsignedInt")
    return `${String(value)}u`;
  return typeof value === "object"
    ? JSON.stringify(value)
    : typeof value === "string"
      ? value
      : String(value);
}

/** One `expression => value` a line. */
function table(text: string): [string, string][] {
  return text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(" => ") as [string, string]);
}

describe("arithmetic", () => {
  it.each(
    table(`
      1 + 2 * 3 - 4 / 2 => 5n
      7 / 2 => 3n
      -7 / 2 => -3n
      -7 % 3 => -1n
      5 % 2 => 1n
      7.0 / 2.0 => 3.5
      1.0 / 0.0 => Infinity
      1 / 0 => error
      1 % 0 => error
      9223372036854775807 + 1 => error
      -9223372036854775808 => -9223372036854775808n
      0xFF => 255n
      1e3 => 1000
      1.5e-3 => 0.0015
      --3 => 3n
      -n => -6n
      string(1u + 2u) => 3
      1u - 2u => error
      "a" + "b" => ab
      [1] + [2] => [1n,2n]
      1 + 1.0 => error
      "a" * 2 => error
      n / 4 => 1n
      double(n) / 4.0 => 1.5
    `),
  )("%s = %s", (text, value) => expect(shown(text)).toBe(value));
});

describe("comparison and logic", () => {
  it.each(
    table(`
      1 < 1.5 => true
      2u > 1 => true
      dyn(1) == 1.0 => true
      dyn(1) == "1" => false
      1 == "1" => error
      "a" < "b" => true
      b"a" < b"b" => true
      b"abc" == b"abc" => true
      [1, 2] == [1, 2] => true
      {"a": 1} == {"a": 1} => true
      null == null => true
      true > false => true
      null < 1 => error
      [1] < [2] => error
      true && false || true => true
      !!true => true
      true || 1 / 0 > 0 => true
      1 / 0 > 0 || true => true
      false && 1 / 0 > 0 => false
      1 / 0 > 0 && false => false
      1 / 0 > 0 || false => error
      n > 5 ? "many" : "few" => many
      true ? 1 : 1 / 0 => 1n
      1 in [1, 2] => true
      "a" in {"a": 1} => true
      "x" in "xyz" => error
    `),
  )("%s = %s", (text, value) => expect(shown(text)).toBe(value));
});

describe("text, bytes and conversions", () => {
  it.each(
    table(String.raw`
      size("héllo") => 5n
      "👍".size() => 1n
      "abc".contains("b") => true
      "abc".startsWith("a") => true
      "abc".endsWith("c") => true
      "abc".matches("^a.c$") => true
      matches("abc", "b") => true
      "a-b".matches("^a\\-b$") => true
      matches("a-b", "^a\\-b$") => true
      "abc".matches("(") => error
      r"\n".size() => 2n
      "\u00e9\x41\n".size() => 3n
      'single' => single
      """a "b" c""" => a "b" c
      size(b"abc") => 3n
      bytes("abc") => b"abc"
      int("42") => 42n
      int(3.9) => 3n
      int(-3.9) => -3n
      int(1u) => 1n
      int("x") => error
      string(uint(3)) => 3
      uint(-1) => error
      double("1.5") => 1.5
      double(3) => 3
      string(1) => 1
      string(1.5) => 1.5
      string(true) => true
      string(b"abc") => abc
      bool("true") => true
      type(1) == int => true
      type("a") == string => true
      type([]) == list => true
      size(1) => error
      unknownFunction(1) => error
    `),
  )("%s = %s", (text, value) => expect(shown(text)).toBe(value));
});

describe("time", () => {
  it.each(
    table(`
      timestamp("2024-01-01T00:00:00Z") < timestamp("2024-01-02T00:00:00Z") => true
      timestamp("2024-01-02T00:00:00Z") - timestamp("2024-01-01T00:00:00Z") == duration("24h") => true
      string(timestamp("2024-01-01T00:00:00Z") + duration("1h")) => 2024-01-01T01:00:00Z
      timestamp("2024-02-29T23:59:59Z").getMonth() => 1n
      timestamp("2024-01-01T10:20:30.123Z").getMilliseconds() => 123n
      timestamp("2024-01-01T10:20:30Z").getHours("Europe/Paris") => 11n
      timestamp("2024-01-01T10:20:30Z").getHours("+02:00") => 12n
      timestamp("2024-01-01T10:20:30Z").getDayOfWeek() => 1n
      timestamp("2024-01-01T10:20:30Z").getDate() => 1n
      timestamp("2024-01-01T10:20:30Z").getDayOfMonth() => 0n
      timestamp("2024-01-01T10:20:30Z").getDayOfYear() => 0n
      int(timestamp("1970-01-01T00:01:00Z")) => 60n
      duration("90s") > duration("1m") => true
      string(duration("1.5s")) => 1.5s
      duration("1h30m").getMinutes() => 90n
      timestamp("soon") => error
      duration("1d") => error
    `),
  )("%s = %s", (text, value) => expect(shown(text)).toBe(value));
});

describe("lists, maps and macros", () => {
  it.each(
    table(`
      [[1], [2]][1][0] => 2n
      [1, "a", 2.0] => [1n,a,2]
      [1, 2, 3][3] => error
      {"a": {"b": 1}}.a.b => 1n
      {"a": 1}["b"] => error
      size({"a": 1}) => 1n
      2 in {2: 1} => true
      [1, 2, 3].all(x, x > 0) => true
      [1, 2, 3].exists(x, x > 2) => true
      [1, 2, 3].exists_one(x, x > 1) => false
      [1, 2, 3].filter(x, x > 1) => [2n,3n]
      [1, 2, 3].map(x, x * 2) => [2n,4n,6n]
      [1, 2, 3].map(x, x > 1, x * 2) => [4n,6n]
      {"a": 1}.exists(k, k == "b") => false
      [0, 1].exists(x, x == 1 || 1 / x > 5) => true
    `),
  )("%s = %s", (text, value) => expect(shown(text)).toBe(value));
});

describe("an event", () => {
  it.each(
    table(`
      event.type == "order.created" && event.data.x > 3 => true
      event["type"] => order.created
      event.data.x == 5 => true
      event.data.x in [5] => true
      event.data.x + 1.0 => 6
      int(event.data.x) + 1 => 6n
      event.data.half > 1 => true
      !event.data.no => true
      event.data.nothing == null => true
      event.data.list[1] => 2
      event.data.list.exists(x, x == 2) => true
      event.data.list.size() => 3n
      event.data.text.size() => 5n
      event.data.inner.a == 1 ? "one" : "other" => one
      has(event.data.inner.b) => false
      has(event.data.nothing) => true
      event.nope => error
      event.data.x + 1 => error
      event.type > 5 => error
      event.constructor => error
      event.__proto__ => error
      other => error
    `),
  )("%s = %s", (text, value) => expect(shown(text)).toBe(value));
});

describe("gaps: CEL says otherwise, or more", () => {
  it.each([
    ["a double beyond int64 is no error", "int(9.3e18)", "9300000000000000000n"],
    ["flags in a pattern are not read", '"A".matches("(?i)a")', "error"],
    ["a variable nobody knows fails all, also behind a true", "true || other", "error"],
    ["names in backticks are not read", "event.`type`", "error"],
    ["messages are not made", "google.protobuf.Duration{seconds: 1}", "error"],
    ["has() of a literal is refused", 'has({"a": 1}.a)', "error"],
    ["a further function is known", '"abc".indexOf("b")', "1n"],
  ])("%s: %s = %s", (_, text, value) => expect(shown(text)).toBe(value));
});

describe("an expression", () => {
  it("tells the type of its result and what cannot succeed", () => {
    expect(compile("n > 5")).toMatchObject({ type: "bool", fault: undefined });
    expect(compile("n + 5")).toMatchObject({ type: "int", fault: undefined });
    expect(compile("event.data.x")).toMatchObject({ type: "dyn", fault: undefined });
    expect(compile("n > 5 && other").fault).toBe("Unknown variable: other (at character 10)");
  });

  it.each([
    ["n >", "Unexpected token: EOF (at character 4)"],
    ["n > 5 &", "Unexpected character: & (at character 7)"],
    [`n > ${"1 + ".repeat(5_000)}1`, "the expression is longer than 16384 characters"],
    [`${"(".repeat(300)}1${")".repeat(300)}`, "Exceeded maxDepth (100) (at character 101)"],
  ])("that cannot be read is refused in one line", (text, message) => {
    expect(() => compile(text)).toThrow(expect.objectContaining({ message }));
  });

  it("never shows its values in an error", () => {
    const secret = { event: { type: "s3cret", data: { token: "s3cret" } }, n: 1n };
    const failing = ["event.data.nope", "event.type + 1", "event.data > 1", "matches('', event.type + '(')"];
    for (const to of ["int", "uint", "bool", "duration", "timestamp"]) failing.push(`${to}(event.type)`);
    for (const text of failing) {
      let said = "";
      try {
        compile(text).run(secret);
      } catch (error) {
        said = (error as Error).message;
        expect((error as Error).cause).toBeUndefined();
      }
      expect(said).not.toBe("");
      expect(said).not.toContain("s3cret");
      expect(said).not.toContain("\n");
    }
  });
});
