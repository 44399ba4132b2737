import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeValues,
  encodeBinary,
  encodeValue,
  headerText,
  isGrpcContentType,
  parseTimeout,
  percentDecode,
  percentEncode,
  readMetadata,
  sendableName,
  sendablePairs,
} from "./grpc-wire.ts";

describe("timeouts", () => {
  test.each([
    ["1H", 3_600_000],
    ["2M", 120_000],
    ["30S", 30_000],
    ["250m", 250],
    ["1500u", 1.5],
    ["99999999n", 99.999999],
    ["0m", 0],
  ])("%s", (text, ms) => expect(parseTimeout(text)).toBeCloseTo(ms, 6));

  test.each(["", "1", "m", "1s", "-1m", "+1m", "1.5S", "123456789m", " 1m", "1m ", "0x1m"])(
    "%j is malformed",
    (text) => expect(parseTimeout(text)).toBeUndefined(),
  );
});

describe("status messages", () => {
  test.each([
    ["plain text, no change!", "plain text, no change!"],
    ["100 %", "100 %25"],
    ["ü\n", "%C3%BC%0A"],
    [" padded ", "%20padded%20"],
    ["", ""],
  ])("%j", (text, encoded) => expect(percentEncode(text)).toBe(encoded));

  test("every text comes back", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        const encoded = percentEncode(text);
        expect(encoded).toMatch(/^[ -~]*$/);
        expect(encoded).toBe(encoded.trim());
        expect(percentDecode(encoded)).toBe(text);
      }),
    );
  });

  test.each([
    ["100%", "100%"],
    ["%zz%2", "%zz%2"],
    ["%41%", "A%"],
    ["%ff", "\ufffd"],
  ])("broken escapes stay: %j", (encoded, text) => expect(percentDecode(encoded)).toBe(text));
});

describe("metadata", () => {
  test("a request's raw headers become decoded metadata without what the transport owns", () => {
    const raw = [
      ":method",
      "POST",
      ":path",
      "/a/B",
      ":authority",
      "host:1",
      "te",
      "trailers",
      "content-type",
    ];
    raw.push("application/grpc", "grpc-timeout", "1S", "user-agent", "x", "X-A", "1", "x-a", "2, 3");
    raw.push("x-bin", "AP8=,AQ", "grpc-accept-encoding", "gzip");
    expect([...readMetadata(raw)]).toEqual([
      [":authority", ["host:1"]],
      ["content-type", ["application/grpc"]],
      ["user-agent", ["x"]],
      ["x-a", ["1", "2, 3"]],
      ["x-bin", ["\x00\xff", "\x01"]],
      ["grpc-accept-encoding", ["gzip"]],
    ]);
  });

  test("binary values come back, padded or not", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 50 }), (bytes) => {
        const latin1 = Buffer.from(bytes).toString("latin1");
        const encoded = encodeValue("x-bin", latin1)!;
        expect(encoded).toBe(encodeBinary(bytes));
        expect(encoded).not.toContain("=");
        expect(decodeValues("x-bin", encoded)).toEqual([latin1]);
        expect(decodeValues("x-bin", Buffer.from(bytes).toString("base64"))).toEqual([latin1]);
      }),
    );
  });

  test("a view into a larger buffer is encoded alone", () => {
    expect(encodeBinary(Buffer.from("abcdef").subarray(2, 4))).toBe(
      Buffer.from("cd").toString("base64").replace("=", ""),
    );
  });

  test("only what HTTP/2 takes is written", () => {
    expect(["1", " two ", "bad\nvalue", "é", "–"].map(headerText)).toEqual([
      "1",
      "two",
      undefined,
      "é",
      Buffer.from("–").toString("latin1"),
    ]);
    expect(encodeValue("x-bin", "\n")).toBe("Cg");
    expect(["connection", "grpc-status", "bad name"].map(sendableName)).toEqual([false, false, false]);
    expect(sendablePairs(["X-A", "1", "TE", "trailers", ":path", "/", "x-b", "\0", "lone"])).toEqual([
      "x-a",
      "1",
    ]);
    expect(headerText("tab\tinside")).toBe("tab\tinside");
    expect(["", "X", "ü", "a b", "content-length"].map(sendableName)).toEqual([
      false,
      false,
      false,
      false,
      false,
    ]);
  });
});

test.each([
  ["application/grpc", true],
  ["application/grpc+proto", true],
  ["application/grpc;charset=utf-8", true],
  ["Application/gRPC", true],
  ["application/grpc-web", false],
  ["application/json", false],
  [undefined, false],
])("content type %s: %s", (value, expected) => expect(isGrpcContentType(value)).toBe(expected));
