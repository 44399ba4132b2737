/**
 * The stored form of a table's values: what stands in the headers of a KV message, and how a message is read. Any KV
 * client writes and reads the same. Normative: README.md, "Tables".
 */
import { type EncodedHeaders, encodeHeaders, headerValue } from "./headers.ts";
import type { StoredMessage } from "./jetstream.ts";
import { fullKey, isHashedKey, parseKey } from "./subjects.ts";
import type { TableEntry, TableKey, TableWrite } from "./types.ts";

/** A tombstone is kept this long so that watchers see the delete; then the key is truly gone. */
const tombstoneTtl = "3600s";

/** State of one key. An absent key may still have a tombstone, which has a revision. */
export type Current = {
  readonly entry: TableEntry | undefined;
  readonly revision: number;
  /** Headers of the message, for `opOf` and `guardOf`. */
  readonly headers: string;
};

export const nothing: Current = Object.freeze({ entry: undefined, revision: 0, headers: "" });

/** A message as a direct read gives it. */
export function readEntry({ headers, data }: StoredMessage): Current {
  const revision = Number(headerValue(headers, "Nats-Sequence"));
  return current(revision, data, headers, () => headerValue(headers, "Nats-Time-Stamp"));
}

/** Form of the leader's JSON answer: body and headers in base64. */
export type LeaderMessage = {
  readonly seq: number;
  readonly data?: string;
  readonly hdrs?: string;
  readonly time: string;
};

export function readLeaderEntry({ seq, data = "", hdrs = "", time }: LeaderMessage): Current {
  const headers = Buffer.from(hdrs, "base64").toString("utf8");
  return current(seq, Buffer.from(data, "base64"), headers, () => time);
}

function current(revision: number, value: Uint8Array, headers: string, time: () => string): Current {
  if (isRemoved(headers)) return { entry: undefined, revision, headers };
  const ttl = readTtl(headerValue(headers, "Nats-TTL"));
  const parts = value.length > 0 ? "" : headerValue(headers, "Weft-Parts");
  if (ttl === undefined && parts === "") return { entry: { value, revision }, revision, headers };
  const life = ttl === undefined ? {} : { expiresAtMs: Date.parse(time()) + ttl * 1000 };
  return { entry: { value, revision, ...life, ...(parts === "" ? {} : { parts }) }, revision, headers };
}

/** True for a tombstone of a delete and for the marker that NATS leaves where a value expired. */
function isRemoved(headers: string): boolean {
  if (headerValue(headers, "Nats-Marker-Reason") !== "") return true;
  const operation = headerValue(headers, "KV-Operation");
  return operation === "DEL" || operation === "PURGE";
}

const unitSeconds: Readonly<Record<string, number>> = {
  h: 3600,
  m: 60,
  s: 1,
  ms: 1e-3,
  us: 1e-6,
  µs: 1e-6,
  ns: 1e-9,
};

/** Whole seconds of `90`, `90s` or `1h30m`, as NATS reads them; undefined for none or never. */
export function readTtl(text: string): number | undefined {
  if (text === "" || text === "never") return undefined;
  if (/^\d+s?$/.test(text)) return Number.parseInt(text, 10);
  let seconds = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|us|µs|ns|s)/g)) {
    seconds += Number(amount) * unitSeconds[unit!]!;
  }
  return seconds >= 1 ? Math.floor(seconds) : undefined;
}

/** Name, value pairs of one write. `guard`: sequence that must be current; `op`: by which the writer knows its own. */
export function writePairs(write: TableWrite, encoded: string, guard?: number, op?: string): string[] {
  const pairs: string[] = [];
  if (write.kind === "delete") pairs.push("KV-Operation", "DEL", "Nats-TTL", tombstoneTtl);
  else if (write.ttlSeconds !== undefined) pairs.push("Nats-TTL", `${Math.ceil(write.ttlSeconds)}s`);
  if (guard !== undefined) pairs.push("Nats-Expected-Last-Subject-Sequence", String(guard));
  if (op !== undefined) pairs.push("Weft-Op", op);
  if (isHashedKey(encoded)) pairs.push("Weft-Key", fullKey(write.key));
  if (write.kind === "put" && write.parts !== undefined) pairs.push("Weft-Parts", write.parts);
  return pairs;
}

/** Headers of one write on its own; undefined when it needs none (the common, cheapest form). */
export function writeHeaders(
  write: TableWrite,
  encoded: string,
  guard?: number,
  op?: string,
): EncodedHeaders | undefined {
  const pairs = writePairs(write, encoded, guard, op);
  return pairs.length === 0 ? undefined : encodeHeaders(pairs);
}

/** Which operation wrote this; empty for an unguarded write and for other programs. */
export function opOf({ headers }: Current): string {
  return headerValue(headers, "Weft-Op");
}

/** Sequence that this write replaced, when it was guarded. */
export function guardOf({ headers }: Current): number | undefined {
  const text = headerValue(headers, "Nats-Expected-Last-Subject-Sequence");
  return text === "" ? undefined : Number(text);
}

/** Key of a stored message; undefined when another program made up the subject. `prefix` is `$KV.<bucket>.`. */
export function keyOf(prefix: string, headers: string): TableKey | undefined {
  const encoded = headerValue(headers, "Nats-Subject").slice(prefix.length);
  try {
    return parseKey(isHashedKey(encoded) ? headerValue(headers, "Weft-Key") : encoded);
  } catch {
    return undefined;
  }
}
