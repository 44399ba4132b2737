import type { IncomingMessage } from "node:http";
import { describe, expect, test } from "vitest";
import { headersFrame, hpackLength, isH2cUpgrade } from "./h2c-upgrade.ts";

const request = (headers: Record<string, string>, url = "/x?y=1"): IncomingMessage =>
  ({ method: "GET", url, headers, rawHeaders: Object.entries(headers).flat() }) as unknown as IncomingMessage;

// The numbers of RFC 7541, C.1, behind a prefix of 7 bits, and the edges of a byte.
test.each([
  [10, [10]],
  [1337, [127, 186, 9]],
  [126, [126]],
  [127, [127, 0]],
  [254, [127, 127]],
  [255, [127, 128, 1]],
  [16_384, [127, 129, 127]],
])("length %d", (length, bytes) => {
  expect([...hpackLength(length)]).toEqual(bytes);
});

describe("HEADERS of stream 1", () => {
  test("carries the request and none of the headers of its hop", () => {
    const frame = headersFrame(
      request({ host: "h", connection: "Upgrade", upgrade: "h2c", "http2-settings": "AA", "X-One": "1" }),
    )!;
    expect(frame.readUIntBE(0, 3)).toBe(frame.length - 9);
    expect([...frame.subarray(3, 9)]).toEqual([1, 5, 0, 0, 0, 1]);
    const fields: string[] = [];
    for (let at = 9; at < frame.length;) {
      expect(frame[at++]).toBe(0);
      for (let part = 0; part < 2; part++) {
        const length = frame[at++]!;
        fields.push(frame.toString("latin1", at, at + length));
        at += length;
      }
    }
    const expected = [
      ":method",
      "GET",
      ":scheme",
      "http",
      ":path",
      "/x?y=1",
      ":authority",
      "h",
      "x-one",
      "1",
    ];
    expect(fields).toEqual(expected);
  });

  test("is refused when it does not fit one frame", () => {
    expect(headersFrame(request({ host: "h", a: "x".repeat(16_384) }))).toBeUndefined();
  });
});

test.each([
  [{ upgrade: "h2c", "http2-settings": "" }, true],
  [{ upgrade: "H2C", "http2-settings": "AA" }, true],
  [{ upgrade: "h2c" }, false],
  [{ upgrade: "websocket", "http2-settings": "AA" }, false],
  [{ upgrade: "h2c", "http2-settings": "AA", "content-length": "1" }, false],
  [{ upgrade: "h2c", "http2-settings": "AA", "transfer-encoding": "chunked" }, false],
])("%j asks for HTTP/2: %s", (headers, expected) => {
  expect(isH2cUpgrade(request(headers as unknown as Record<string, string>))).toBe(expected);
});
