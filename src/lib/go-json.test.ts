import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  compactGoJson,
  compareUtf8,
  decodeJson,
  GoJsonError,
  goJson,
  goJsonInOrder,
  parseJsonKeepNumbers,
  unmarshalJson,
} from "./go-json.ts";

describe("goJson", () => {
  it.each([
    [{ b: 1, a: 2 }, '{"a":2,"b":1}'],
    [{ 10: 1, 9: 2 }, '{"10":1,"9":2}'],
    [{ a: { z: 1, y: [{ d: 1, c: 2 }] } }, '{"a":{"y":[{"c":2,"d":1}],"z":1}}'],
    ["<a> & \u2028\u2029", '"\\u003ca\\u003e \\u0026 \\u2028\\u2029"'],
    [{ "<": 1, "&": "<" }, '{"\\u0026":"\\u003c","\\u003c":1}'],
    ["\ud800x\udc00", '"\ufffdx\ufffd"'],
    [{ b: "\ud800", a: "<" }, '{"a":"\\u003c","b":"\ufffd"}'],
    ["\\ud800", '"\\\\ud800"'],
    ["\b\f\n\r\t\u0001\u007f", '"\\b\\f\\n\\r\\t\\u0001\u007f"'],
    [[0, -0, 1e21, 1e-7, 0.1, 100], "[0,-0,1e+21,1e-7,0.1,100]"],
    [{ a: undefined, b: [undefined] }, '{"b":[null]}'],
    [{ "\u{1f600}": 1, "\uff5e": 2 }, '{"\uff5e":2,"\u{1f600}":1}'],
    [{ "\u{1f600}": 1, "\ud800": 2 }, '{"\ufffd":2,"\u{1f600}":1}'],
    [JSON.parse('{"b":1,"__proto__":2}'), '{"__proto__":2,"b":1}'],
    [undefined, "null"],
    [null, "null"],
    ["", '""'],
    [[], "[]"],
    [{}, "{}"],
  ])("writes %j as Go does", (value, text) => {
    expect(goJson(value)).toBe(text);
  });

  it("writes what JSON.parse reads back as the same value", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(JSON.parse(goJson(value))).toEqual(value);
      }),
    );
  });

  it("sorts the keys of any object by their bytes", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: "grapheme" }), fc.nat()), (value) => {
        const keys = [...goJson(value).matchAll(/"((?:[^"\\]|\\.)*)":/g)].map(
          (match) => JSON.parse(`"${match[1]}"`) as string,
        );
        expect(keys).toEqual([...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
        expect(keys.length).toBe(Object.keys(value).length);
      }),
    );
  });

  it("refuses a value that is too deep instead of overflowing the stack", () => {
    const deep = JSON.parse("[".repeat(50_000) + "]".repeat(50_000)) as unknown;
    expect(() => goJson(deep)).toThrow(new GoJsonError("exceeded max depth"));
    expect(() => goJson({ b: 1, a: deep })).toThrow(new GoJsonError("exceeded max depth"));
    expect(() => goJsonInOrder(deep)).toThrow(new GoJsonError("exceeded max depth"));
    const allowed = JSON.parse(`${"[".repeat(2_000)}${"]".repeat(2_000)}`) as unknown;
    expect(goJson(allowed)).toHaveLength(4_000);
  });
});

describe("goJsonInOrder", () => {
  it("keeps the order of the keys and escapes like goJson", () => {
    expect(goJsonInOrder({ errorCode: "E", message: "<b>", details: [{ z: 1, a: "\ud800" }] })).toBe(
      '{"errorCode":"E","message":"\\u003cb\\u003e","details":[{"z":1,"a":"\ufffd"}]}',
    );
  });
});

describe("compactGoJson", () => {
  it.each([
    ['{ "b" : 1.0,\n "a" : [ 1e5 , "x y" ] }', '{"b":1.0,"a":[1e5,"x y"]}'],
    ['{"a":"<\\" >"}', '{"a":"\\u003c\\" \\u003e"}'],
    ['"\u2028"', '"\\u2028"'],
    [" 1 ", "1"],
    ['"\\ud800"', '"\\ud800"'],
  ])("rewrites %s", (text, compact) => {
    expect(compactGoJson(text)).toBe(compact);
  });
});

describe("compareUtf8", () => {
  it("orders like the bytes", () => {
    const text = fc.string({
      unit: fc.constantFrom("a", "b", "é", "\uff5e", "\u{1f600}", "\u{1f601}"),
      maxLength: 4,
    });
    fc.assert(
      fc.property(text, text, (a, b) => {
        expect(Math.sign(compareUtf8(a, b))).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)));
      }),
    );
  });
});

describe("parseJsonKeepNumbers", () => {
  it.each([
    ["1.0", "1.0"],
    ["[1e5,1E5,-0,1.50,12345678901234567890,0.0000001]", "[1e5,1E5,-0,1.50,12345678901234567890,0.0000001]"],
    ["[1e400,-1e400]", "[1e400,-1e400]"],
    ["[9007199254740993,-9007199254740993]", "[9007199254740993,-9007199254740993]"],
    ["[1,-2,0,0.5,12.25,-0.5]", "[1,-2,0,0.5,12.25,-0.5]"],
    ['{"b": 1.0, "a": "1.0"}', '{"a":"1.0","b":1.0}'],
    [' {"n": 10000000000000000000000}', '{"n":10000000000000000000000}'],
    ['{"a":1.0} trailing', '{"a":1.0}'],
  ])("keeps the numbers of %s", (text, written) => {
    expect(goJson(parseJsonKeepNumbers(text))).toBe(written);
  });

  it("keeps any number as it is spelled", () => {
    const digits = fc.stringMatching(/^[0-9]{1,25}$/);
    const number = fc
      .tuple(
        fc.constantFrom("", "-"),
        fc.stringMatching(/^(0|[1-9][0-9]{0,22})$/),
        fc.option(digits),
        fc.option(fc.integer({ min: -400, max: 400 })),
      )
      .map(([sign, whole, fraction, exponent]) => {
        const decimals = fraction === null ? "" : `.${fraction}`;
        return `${sign}${whole}${decimals}${exponent === null ? "" : `e${exponent}`}`;
      });
    fc.assert(
      fc.property(number, (text) => {
        expect(goJson(parseJsonKeepNumbers(text))).toBe(text);
        expect(goJson(parseJsonKeepNumbers(`{"a":[${text}]}`))).toBe(`{"a":[${text}]}`);
      }),
    );
  });

  it("leaves ordinary numbers as numbers", () => {
    expect(parseJsonKeepNumbers('{"a":[1,2.5,-3],"b":"2024-01-01T00:00:00.000Z"}')).toEqual({
      a: [1, 2.5, -3],
      b: "2024-01-01T00:00:00.000Z",
    });
  });
});

describe("unmarshalJson and decodeJson", () => {
  it("differ in what may follow the value", () => {
    expect(unmarshalJson(' {"a":1}\n')).toEqual({ a: 1 });
    expect(() => unmarshalJson('{"a":1} x')).toThrow(
      new GoJsonError("invalid character 'x' after top-level value"),
    );
    expect(decodeJson('{"é":1} x')).toEqual({ é: 1 });
    expect(decodeJson("12abc")).toBe(12);
    expect(() => decodeJson("")).toThrow(new GoJsonError("EOF"));
    expect(() => unmarshalJson("")).toThrow(new GoJsonError("unexpected end of JSON input"));
  });

  it("refuse a number that would become null", () => {
    const error = new GoJsonError("json: cannot unmarshal number 1e400 into Go value of type float64");
    expect(() => unmarshalJson('{"a":[1e400]}')).toThrow(error);
    expect(() => decodeJson('{"a":[1e400]} x')).toThrow(error);
    expect(unmarshalJson('["1e400",1e300]')).toEqual(["1e400", 1e300]);
    expect(() => unmarshalJson("9".repeat(400))).toThrow("json: cannot unmarshal number 999");
  });
});
