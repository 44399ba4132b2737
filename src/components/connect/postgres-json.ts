/**
 * Values of PostgreSQL as Dapr's bindings show them in JSON: numbers of any size as numbers, bytes as base64, times in
 * RFC 3339. Types that are not here stay as the client library reads them.
 */
import type { CustomTypesConfig, types } from "pg";
import { parseJsonKeepNumbers } from "../../lib/go-json.ts";

type Read = (text: string) => unknown;

/** By the type's number in the catalogue: the reader, and the number of the type's array. */
const readers: readonly (readonly [oid: number, arrayOid: number, read: Read])[] = [
  [20, 1016, readNumber],
  [1700, 1231, readNumber],
  [1082, 1182, (date) => (/^\d{4}-\d\d-\d\d$/.test(date) ? `${date}T00:00:00Z` : date)],
  [1114, 1115, readTime],
  [1184, 1185, readTime],
];

const byteaOid = 17;
const byteaArrayOid = 1001;
const textArrayOid = 1009;

export function jsonTypes({ getTypeParser }: typeof types): CustomTypesConfig {
  const library = getTypeParser as (oid: number, format: "text") => Read;
  const readTexts = library(textArrayOid, "text");
  const readBytes = library(byteaOid, "text");
  const bytesInBase64: Read = (text) => (readBytes(text) as Buffer).toString("base64");
  const byOid = new Map<number, Read>();
  for (const [oid, arrayOid, read] of [[byteaOid, byteaArrayOid, bytesInBase64] as const, ...readers]) {
    byOid.set(oid, read);
    byOid.set(arrayOid, (text) => eachText(readTexts(text), read));
  }
  return { getTypeParser: (oid, format) => byOid.get(oid) ?? (getTypeParser(oid, format) as Read) };
}

function eachText(value: unknown, read: Read): unknown {
  if (Array.isArray(value)) return value.map((item) => eachText(item, read));
  return typeof value === "string" ? read(value) : value;
}

/** NaN and the infinities are texts. */
function readNumber(text: string): unknown {
  return /^-?\d+(?:\.\d+)?$/.test(text) ? parseJsonKeepNumbers(text) : text;
}

/** `2026-01-31 08:00:00.5+01`; without a zone it counts as UTC. Times before our era and infinity stay texts. */
function readTime(text: string): string {
  const parts = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)([+-]\d\d(?::\d\d)?)?$/.exec(text);
  if (parts === null) return text;
  const [, date, time, zone = "+00"] = parts;
  const offset = zone.length === 3 ? `${zone}:00` : zone;
  return `${date}T${time}${offset === "+00:00" ? "Z" : offset}`;
}
