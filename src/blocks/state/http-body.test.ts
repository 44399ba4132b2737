import { expect, it } from "vitest";
import { embeddedJson, encodeBulkGet } from "./http-body.ts";
import { rfc3339Seconds } from "./read-metadata.ts";

it.each([
  [`{"b": 1, "a": [1, 2]}`, `{"b":1,"a":[1,2]}`],
  [` 12345678901234567890 `, "12345678901234567890"],
  [`"a b<c>\u2028"`, `"a b\\u003cc\\u003e\\u2028"`],
  [`{"a \\" b" : "c\\\\" }`, `{"a \\" b":"c\\\\"}`],
  ["plain text", `"plain text"`],
  [`{"cut":`, `"{\\"cut\\":"`],
  ["null", "null"],
])("embeds the stored text %s as %s", (stored, embedded) => {
  expect(embeddedJson(Buffer.from(stored))).toBe(embedded);
});

it("embeds bytes that are no text as base64", () => {
  expect(embeddedJson(new Uint8Array([0xff, 0, 0x80]))).toBe(`"/wCA"`);
});

it("embeds a view into a larger buffer", () => {
  expect(embeddedJson(Buffer.from("xx[1 ]yy").subarray(2, 6))).toBe("[1]");
});

it("leaves empty members out", () => {
  const record = { value: new Uint8Array(0), etag: "" };
  expect(encodeBulkGet([{ key: "<k>", record, error: undefined }])).toBe(`[{"key":"\\u003ck\\u003e"}]\n`);
  expect(encodeBulkGet([])).toBe("[]\n");
});

it("cuts fractions of seconds", () => {
  expect(rfc3339Seconds(Date.UTC(2025, 0, 2, 3, 4, 5, 999))).toBe("2025-01-02T03:04:05Z");
});
