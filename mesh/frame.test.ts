import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MeshError } from "./errors.ts";
import { decodeFrame, encodeRequest, encodeResponse, readRequest, readResponse } from "./frame.ts";

type Vectors = {
  frames: { name: string; kind: number; head: Record<string, unknown>; bodyHex: string; hex: string }[];
  refused: { name: string; hex: string }[];
};

const vectors = JSON.parse(
  readFileSync(new URL("../test/vectors/frames.json", import.meta.url), "utf8"),
) as Vectors;
const headers = fc.array(fc.tuple(fc.string(), fc.string()), { maxLength: 5 }).map((pairs) => pairs.flat());
const body = fc.uint8Array({ maxLength: 300 });

describe("frames", () => {
  it.each(vectors.frames)("reads: $name", ({ hex, kind, head, bodyHex }) => {
    const frame = decodeFrame(Buffer.from(hex, "hex"));
    expect(frame.kind).toBe(kind);
    expect(frame.head).toEqual(head);
    expect(Buffer.from(frame.body).toString("hex")).toBe(bodyHex);
  });

  it.each(vectors.refused)("refuses: $name", ({ hex }) => {
    expect(() => decodeFrame(Buffer.from(hex, "hex"))).toThrow(MeshError);
  });

  it("requests come back as they went", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string(), headers, body, (verb, path, query, list, bytes) => {
        const request = { verb, path, query, headers: list, body: bytes };
        const { request: read, timeoutMs } = readRequest(decodeFrame(encodeRequest(request, 250)));
        expect({ ...read, body: Uint8Array.from(read.body) }).toEqual(request);
        expect(timeoutMs).toBe(250);
      }),
    );
  });

  it("responses come back as they went", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 999 }), headers, body, (status, list, bytes) => {
        const read = readResponse(decodeFrame(encodeResponse({ status, headers: list, body: bytes })));
        expect({ ...read, body: Uint8Array.from(read.body) }).toEqual({ status, headers: list, body: bytes });
      }),
    );
  });

  it("never throws anything but a MeshError on bytes from outside", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          const frame = decodeFrame(bytes);
          if (frame.kind === 1) readRequest(frame);
          else readResponse(frame);
        } catch (error) {
          expect(error).toBeInstanceOf(MeshError);
        }
      }),
    );
  });

  it("refuses header lists that are not flat texts", () => {
    const frame = { kind: 1, head: { verb: "GET", path: "/", headers: ["odd"] }, body: new Uint8Array(0) };
    expect(() => readRequest(frame)).toThrow(/flat list/);
  });
});
