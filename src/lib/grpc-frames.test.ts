import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { encodeFrame, FrameReader, GrpcWireError, knownEncoding, openFrame } from "./grpc-frames.ts";

/** Cuts bytes at the given places (taken modulo the length). */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  const chunks: Buffer[] = [];
  let from = 0;
  for (const place of [...sorted, bytes.length]) {
    chunks.push(bytes.subarray(from, place));
    from = place;
  }
  return chunks;
}

function drain(reader: FrameReader): Buffer[] {
  const messages: Buffer[] = [];
  for (let frame = reader.next(); frame !== undefined; frame = reader.next()) messages.push(frame.bytes);
  return messages;
}

function codeOf(act: () => unknown): [number, string] {
  try {
    act();
  } catch (error) {
    if (error instanceof GrpcWireError) return [error.code, error.message];
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("FrameReader", () => {
  test("any messages in any chunks come out whole and in order", () => {
    const message = fc.uint8Array({ maxLength: 3000 });
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 12 }),
        fc.array(fc.nat(40_000), { maxLength: 60 }),
        fc.boolean(),
        (messages, places, readOften) => {
          const reader = new FrameReader(3000);
          const seen: Buffer[] = [];
          for (const chunk of cut(Buffer.concat(messages.map(encodeFrame)), places)) {
            reader.push(chunk);
            if (readOften) seen.push(...drain(reader));
          }
          seen.push(...drain(reader));
          expect(seen.map((bytes) => bytes.toString("hex"))).toEqual(
            messages.map((bytes) => Buffer.from(bytes).toString("hex")),
          );
          expect(reader.partial).toBe(false);
        },
      ),
    );
  });

  test("byte by byte, also a message of many thousand bytes", () => {
    const first = Buffer.from(Array.from({ length: 10_000 }, (_, i) => i % 251));
    const bytes = Buffer.concat([encodeFrame(first), encodeFrame(Buffer.from("second"))]);
    const reader = new FrameReader(20_000);
    const seen: Buffer[] = [];
    for (const byte of bytes) {
      reader.push(Buffer.from([byte]));
      seen.push(...drain(reader));
    }
    expect(seen).toEqual([first, Buffer.from("second")]);
  });

  test("tiny chunks that are read late", () => {
    const bytes = Buffer.concat(Array.from({ length: 2000 }, (_, i) => encodeFrame(Buffer.from([i % 256]))));
    const reader = new FrameReader(1);
    for (const byte of bytes) reader.push(Buffer.from([byte]));
    expect(drain(reader)).toEqual(Array.from({ length: 2000 }, (_, i) => Buffer.from([i % 256])));
  });

  test("limits and bad flags", () => {
    const at = new FrameReader(10);
    at.push(encodeFrame(Buffer.alloc(10)));
    expect(at.next()!.bytes.length).toBe(10);
    const above = new FrameReader(10);
    above.push(encodeFrame(Buffer.alloc(11)).subarray(0, 5));
    expect(codeOf(() => above.next())).toEqual([8, "grpc: received message larger than max (11 vs. 10)"]);
    const huge = new FrameReader(10);
    huge.push(Buffer.from([0, 255, 255, 255, 255]));
    expect(codeOf(() => huge.next())[1]).toContain("(4294967295 vs. 10)");
    const flag = new FrameReader(10);
    flag.push(Buffer.from([2, 0, 0, 0, 0]));
    expect(codeOf(() => flag.next())[0]).toBe(13);
  });

  test("partial tells whether a message has begun", () => {
    const reader = new FrameReader(10);
    expect(reader.partial).toBe(false);
    reader.push(Buffer.from([0, 0]));
    expect([reader.next(), reader.partial]).toEqual([undefined, true]);
    reader.push(Buffer.from([0, 0, 1]));
    expect([reader.next(), reader.partial]).toEqual([undefined, true]);
    reader.push(Buffer.from([9]));
    expect(reader.next()).toEqual({ compressed: false, bytes: Buffer.from([9]) });
    expect(reader.partial).toBe(false);
  });
});

describe("openFrame", () => {
  const compressed = (bytes: Buffer) => ({ compressed: true, bytes });

  test("plain and gzip", async () => {
    expect(await openFrame({ compressed: false, bytes: Buffer.from("x") }, "gzip", 10)).toEqual(
      Buffer.from("x"),
    );
    expect(await openFrame(compressed(gzipSync("text")), "gzip", 4)).toEqual(Buffer.from("text"));
    expect(await openFrame(compressed(gzipSync("text")), "gzip", Infinity)).toEqual(Buffer.from("text"));
  });

  test("too much, damaged, or without encoding", async () => {
    const large = openFrame(compressed(gzipSync(Buffer.alloc(100_000))), "gzip", 1000);
    await expect(large).rejects.toMatchObject({ code: 8 });
    await expect(openFrame(compressed(Buffer.from("no")), "gzip", 1000)).rejects.toMatchObject({ code: 13 });
    await expect(openFrame(compressed(gzipSync("x")), undefined, 1000)).rejects.toMatchObject({ code: 13 });
  });

  test("known encodings", () => {
    expect(["", "identity", "gzip", undefined].map(knownEncoding)).toEqual([true, true, true, true]);
    expect(["deflate", "GZIP"].map(knownEncoding)).toEqual([false, false]);
  });
});
