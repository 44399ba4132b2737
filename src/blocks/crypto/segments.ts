/**
 * The body of an encrypted document (`dapr.io/enc/v1`): segments of 64 KiB, each sealed by itself. Its nonce says its
 * place and whether it is the last one, so that no segment can be moved, repeated or cut off.
 */
import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";
import type { Cipher } from "./header.ts";

export type SegmentKeys = {
  readonly cipher: Cipher;
  readonly fileKey: Uint8Array;
  readonly noncePrefix: Uint8Array;
};

export type Chunks = AsyncIterable<Uint8Array>;

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

/** One sealed segment for each 64 KiB of the chunks, none for no bytes at all. */
export async function* seal(chunks: Chunks, keys: SegmentKeys): AsyncGenerator<Uint8Array> {
  const key = payloadKey(keys);
  for await (const { index, bytes, last } of segmentsOf(chunks, segmentBytes)) {
    const nonce = nonceOf(keys.noncePrefix, index, last);
    const cipher = createCipheriv(nodeCipher(keys.cipher), key, nonce, { authTagLength: tagBytes });
    const sealed = Buffer.concat([cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
    yield sealed;
  }
}

/** The plaintext of each segment once it is proved. Throws SegmentError. */
export async function* unseal(chunks: Chunks, keys: SegmentKeys): AsyncGenerator<Uint8Array> {
  const key = payloadKey(keys);
  for await (const { index, bytes, last } of segmentsOf(chunks, segmentBytes + tagBytes)) {
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
    yield plain;
  }
}

type Segment = { readonly index: number; readonly bytes: Uint8Array; readonly last: boolean };

/** Cuts chunks of any length. `bytes` are good until the next segment is asked for. */
async function* segmentsOf(chunks: Chunks, size: number): AsyncGenerator<Segment> {
  const bytes = Buffer.allocUnsafe(size);
  let filled = 0;
  let index = 0;
  for await (const chunk of chunks) {
    let at = 0;
    while (at < chunk.length) {
      // A full segment waits for one more byte: only then it is not the last.
      if (filled === size) {
        yield { index, bytes, last: false };
        filled = 0;
        index += 1;
        if (index >= maxSegments) throw new Error("the document is too long");
        if (index % burst === 0) await new Promise<void>((resolve) => setImmediate(resolve));
      }
      const taken = Math.min(chunk.length - at, size - filled);
      bytes.set(chunk.subarray(at, at + taken), filled);
      filled += taken;
      at += taken;
    }
  }
  if (filled > 0) yield { index, bytes: bytes.subarray(0, filled), last: true };
}

function payloadKey({ fileKey, noncePrefix }: SegmentKeys): Buffer {
  return Buffer.from(hkdfSync("sha256", fileKey, noncePrefix, "payload", 32));
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
