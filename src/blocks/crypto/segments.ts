/**
 * The body of an encrypted document (`dapr.io/enc/v1`): segments of 64 KiB, each sealed by itself. Its nonce says its
 * place and whether it is the last one, so that no segment can be moved, repeated or cut off.
 */
import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import type { Cipher } from "./header.ts";

export type SegmentKeys = {
  readonly cipher: Cipher;
  readonly fileKey: Uint8Array;
  readonly noncePrefix: Uint8Array;
};

export type Chunks = AsyncIterable<Uint8Array>;

/** Bytes that belong together, one piece after the other. */
export type Pieces = readonly Uint8Array[];

/** A segment is not what was sealed: changed, moved, cut off, or not of this document. */
export class SegmentError extends Error {
  constructor(index: number, cause?: unknown) {
    super(`error processing segment ${index}: failed to decrypt segment`, { cause });
    this.name = "SegmentError";
  }
}

export const segmentBytes = 64 * 1024;
export const tagBytes = 16;
const nonceBytes = 12;
/** Segments without a pause for other work of the process. */
const burst = 8;
const maxSegments = 2 ** 32;
/** Pieces of a segment before they are put together. */
const maxPieces = 16;

/** One sealed segment for each 64 KiB of the chunks, none for no bytes at all. */
export async function* seal(chunks: Chunks, keys: SegmentKeys): AsyncGenerator<Pieces> {
  const key = payloadKey(keys);
  for await (const { index, pieces, last } of segmentsOf(chunks, segmentBytes)) {
    const nonce = nonceOf(keys.noncePrefix, index, last);
    const cipher = createCipheriv(nodeCipher(keys.cipher), key, nonce, { authTagLength: tagBytes });
    const sealed: Uint8Array[] = pieces.map((piece) => cipher.update(piece));
    cipher.final();
    sealed.push(cipher.getAuthTag());
    yield sealed;
  }
}

/** The plaintext of each segment once it is proved. Throws SegmentError. */
export async function* unseal(chunks: Chunks, keys: SegmentKeys): AsyncGenerator<Pieces> {
  const key = payloadKey(keys);
  for await (const { index, pieces, last } of segmentsOf(chunks, segmentBytes + tagBytes)) {
    const bytes = joined(pieces);
    if (bytes.length <= tagBytes) throw new SegmentError(index);
    const nonce = nonceOf(keys.noncePrefix, index, last);
    const cipher = createDecipheriv(nodeCipher(keys.cipher), key, nonce, { authTagLength: tagBytes });
    const end = bytes.length - tagBytes;
    cipher.setAuthTag(bytes.subarray(end));
    const plain = cipher.update(bytes.subarray(0, end));
    try {
      cipher.final();
    } catch (cause) {
      throw new SegmentError(index, cause);
    }
    yield [plain];
  }
}

type Segment = { readonly index: number; readonly pieces: Pieces; readonly last: boolean };

/** Cuts chunks of any length without copying them, but for tiny ones. */
async function* segmentsOf(chunks: Chunks, size: number): AsyncGenerator<Segment> {
  let pieces: Uint8Array[] = [];
  let filled = 0;
  let index = 0;
  for await (const chunk of chunks) {
    let at = 0;
    while (at < chunk.length) {
      // A full segment waits for one more byte: only then it is not the last.
      if (filled === size) {
        yield { index, pieces, last: false };
        pieces = [];
        filled = 0;
        index += 1;
        if (index >= maxSegments) throw new Error("the document is too long");
        if (index % burst === 0) await new Promise<void>((resolve) => setImmediate(resolve));
      }
      const taken = Math.min(chunk.length - at, size - filled);
      if (pieces.length === maxPieces) pieces = [joined(pieces)];
      pieces.push(chunk.subarray(at, at + taken));
      filled += taken;
      at += taken;
    }
  }
  if (filled > 0) yield { index, pieces, last: true };
}

export function joined(pieces: Pieces): Uint8Array {
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

/** As an object of Node: taking one from bytes for each segment costs as much as sealing it. */
function payloadKey({ fileKey, noncePrefix }: SegmentKeys): KeyObject {
  return createSecretKey(Buffer.from(hkdfSync("sha256", fileKey, noncePrefix, "payload", 32)));
}

function nonceOf(prefix: Uint8Array, index: number, last: boolean): Buffer {
  const nonce = Buffer.alloc(nonceBytes);
  nonce.set(prefix);
  nonce.writeUInt32BE(index, prefix.length);
  nonce[nonceBytes - 1] = last ? 1 : 0;
  return nonce;
}

function nodeCipher(cipher: Cipher): "aes-256-gcm" {
  // Node takes both by name; its types know the AEAD calls for literal names only.
  return (cipher === "AES-GCM" ? "aes-256-gcm" : "chacha20-poly1305") as "aes-256-gcm";
}
