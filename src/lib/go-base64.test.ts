import { expect, it } from "vitest";
import { decodeGoBase64 } from "./go-base64.ts";

/** As Go 1.26 reads them: the bytes in hex. */
it.each([
  ["", ""],
  ["AAE=", "0001"],
  ["AA==", "00"],
  ["A\nA\r\n==\n", "00"],
  ["AAE=\n", "0001"],
  ["AAAA\n", "000000"],
  ["AB==", "00"],
  ["AA=\n=", "00"],
])("%j is %s", (text, hex) => expect(decodeGoBase64(text).toString("hex")).toBe(hex));

/** As Go 1.26 refuses them. */
it.each([
  ["?", 0],
  ["AAE", 0],
  ["A", 0],
  ["AA", 0],
  ["AA=", 3],
  ["AA=A", 2],
  ["AA==A", 4],
  ["AAE=A", 4],
  ["A=", 1],
  ["=", 0],
  ["AA\n", 1],
  ["\nA", 1],
  ["AAAA=", 4],
  ["AA=\n", 4],
  ["é", 0],
  ["AAé=", 2],
  ["AAAA====", 4],
  ["AAE = ", 3],
  ["AA-_", 2],
  ["AAAAA\n\n", 6],
])("%j is refused at byte %i", (text, at) =>
  expect(() => decodeGoBase64(text)).toThrow(`illegal base64 data at input byte ${at}`),
);
