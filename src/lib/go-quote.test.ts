import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { goQuote, goUnquote } from "./go-quote.ts";

const anyCharacter = fc.oneof(
  fc.string({ maxLength: 1 }),
  fc.integer({ min: 0x7f, max: 0xd7ff }).map((code) => String.fromCodePoint(code)),
  fc.integer({ min: 0xe000, max: 0x10ffff }).map((code) => String.fromCodePoint(code)),
);

describe("goQuote", () => {
  it.each([
    ["plain", '"plain"'],
    ['a"b\\c', '"a\\"b\\\\c"'],
    ["\u0007\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'],
    ["\u0000\u007f", '"\\x00\\x7f"'],
    ["héé 日本 😀", '"héé 日本 😀"'],
    ["\u00a0\u00ad\u2028", '"\\u00a0\\u00ad\\u2028"'],
    ["\u{e0001}", '"\\U000e0001"'],
    ["\ud800", '"\\ufffd"'],
  ])("writes %j as Go's %%q does", (text, quoted) => {
    expect(goQuote(text)).toBe(quoted);
  });
});

describe("goUnquote", () => {
  it.each([
    ['"abc"', "abc"],
    ['""', ""],
    ["`a\\n\r\nb`", "a\\n\nb"],
    ["'x'", "x"],
    ["'\\''", "'"],
    ['"\\x41\\u00e9\\U0001f600\\101"', "Aé😀A"],
    ['"\\xc3\\xa9"', "é"],
    ['"it\'s"', "it's"],
  ])("reads %s", (literal, text) => {
    expect(goUnquote(literal)).toBe(text);
  });

  it.each([
    "abc",
    '"',
    '"a',
    'a"',
    '"a"b"',
    '"\\q"',
    '"\\/"',
    '"\\\'"',
    "'xy'",
    "''",
    '"a\nb"',
    '"\\ud800"',
    '"\\"',
    "`a`b`",
    '"\\400"',
  ])("says %j is no literal", (text) => {
    expect(goUnquote(text)).toBeUndefined();
  });

  it("reverses goQuote", () => {
    fc.assert(
      fc.property(fc.string({ unit: anyCharacter }), (text) => {
        expect(goUnquote(goQuote(text))).toBe(text);
      }),
    );
  });
});
