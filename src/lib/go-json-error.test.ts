import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { goJsonError, scanGoJson } from "./go-json-error.ts";

describe("goJsonError", () => {
  // Every text was printed by Go 1.26's encoding/json for the same input.
  it.each([
    ["", "unexpected end of JSON input", "EOF"],
    [" \n", "unexpected end of JSON input", "EOF"],
    ['{"a":', "unexpected end of JSON input", "unexpected EOF"],
    ['{"a":1', "unexpected end of JSON input", "unexpected EOF"],
    ["[1,", "unexpected end of JSON input", "unexpected EOF"],
    ['"abc', "unexpected end of JSON input", "unexpected EOF"],
    ["-", "invalid character ' ' in numeric literal", "unexpected EOF"],
    ["1.", "invalid character ' ' after decimal point in numeric literal", "unexpected EOF"],
    ["1e", "invalid character ' ' in exponent of numeric literal", "unexpected EOF"],
    ["tru", "invalid character ' ' in literal true (expecting 'e')", "unexpected EOF"],
    ['"\\', "invalid character ' ' in string escape code", "unexpected EOF"],
    ['"\\u12', "invalid character ' ' in \\u hexadecimal character escape", "unexpected EOF"],
    ["12abc", "invalid character 'a' after top-level value", undefined],
    ['{"a":1}}', "invalid character '}' after top-level value", undefined],
    ["1 2", "invalid character '2' after top-level value", undefined],
    ['{"a":1}', undefined, undefined],
    [' [1, 2.5e-3, "x\\u00e9", true, false, null, {}, []] ', undefined, undefined],
  ])("of %j is %j for Unmarshal and %j for a Decoder", (text, unmarshal, decoder) => {
    expect(goJsonError(text, "unmarshal")).toBe(unmarshal);
    expect(goJsonError(text, "decoder")).toBe(decoder);
  });

  it.each([
    ["x", "invalid character 'x' looking for beginning of value"],
    ["hello", "invalid character 'h' looking for beginning of value"],
    ["{'a':1}", "invalid character '\\'' looking for beginning of object key string"],
    ["{a:1}", "invalid character 'a' looking for beginning of object key string"],
    ['{"a":1,}', "invalid character '}' looking for beginning of object key string"],
    ['{"a" 1}', "invalid character '1' after object key"],
    ['{"a":1 "b":2}', "invalid character '\"' after object key:value pair"],
    ['{"a":1]', "invalid character ']' after object key:value pair"],
    ["[1 2]", "invalid character '2' after array element"],
    ["[1,]", "invalid character ']' looking for beginning of value"],
    ["[,1]", "invalid character ',' looking for beginning of value"],
    ["[01]", "invalid character '1' after array element"],
    ["+1", "invalid character '+' looking for beginning of value"],
    [".5", "invalid character '.' looking for beginning of value"],
    ["[-x]", "invalid character 'x' in numeric literal"],
    ["[1.x]", "invalid character 'x' after decimal point in numeric literal"],
    ["[1ex]", "invalid character 'x' in exponent of numeric literal"],
    ["nil", "invalid character 'i' in literal null (expecting 'u')"],
    ["[True]", "invalid character 'T' looking for beginning of value"],
    ['"a\nb"', "invalid character '\\n' in string literal"],
    ['"a\u0000b"', "invalid character '\\x00' in string literal"],
    ['"\\x"', "invalid character 'x' in string escape code"],
    ['"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"],
    ["\ufeff{}", "invalid character 'ï' looking for beginning of value"],
    ["é", "invalid character 'Ã' looking for beginning of value"],
    ["[\u00a0]", "invalid character 'Â' looking for beginning of value"],
    ["NaN", "invalid character 'N' looking for beginning of value"],
    ["[".repeat(10_001), "invalid character '[' exceeded max depth"],
  ])("of %.30j is %s for both", (text, message) => {
    expect(goJsonError(text, "unmarshal")).toBe(message);
    expect(goJsonError(text, "decoder")).toBe(message);
  });

  it("accepts exactly what JSON.parse accepts", () => {
    const piece = fc.constantFrom(
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      '"',
      "1",
      "0",
      "-",
      ".",
      "e",
      "true",
      "null",
      " ",
      "\\",
      "u",
      "a",
      "\n",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const text = pieces.join("");
        let accepted = true;
        try {
          JSON.parse(text);
        } catch {
          accepted = false;
        }
        expect(goJsonError(text, "unmarshal") === undefined).toBe(accepted);
      }),
      { numRuns: 1_000 },
    );
  });

  it("finds the end of the first value in bytes", () => {
    expect(scanGoJson('{"é":1}{}', "decoder")).toEqual({ ok: true, endByte: 8 });
    expect(scanGoJson(Buffer.from(" [1] x"), "decoder")).toEqual({ ok: true, endByte: 4 });
  });
});
