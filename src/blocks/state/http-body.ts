/**
 * Bodies of the state API over HTTP: JSON text to the items of state.ts, and found records to JSON text.
 * Member names match in any case, unknown ones are ignored, and text after the JSON value is too.
 */
import { isUtf8 } from "node:buffer";
import { compactGoJson, decodeJson, goJson } from "../../lib/go-json.ts";
import { readMetadata } from "./read-metadata.ts";
import type { BulkEntry, Metadata, Operation, SaveItem } from "./state.ts";

export type BulkGetBody = {
  readonly keys: readonly string[];
  readonly parallelism: number;
  readonly metadata: Metadata;
};

export type TransactionBody = { readonly operations: readonly Operation[]; readonly metadata: Metadata };

/** No metadata, shared so that the common request allocates none. */
export const noMetadata: Metadata = Object.freeze({});

/** Items of a save; `shared` (from the URL) wins over each item's metadata. Throws an Error saying what is wrong. */
export function decodeSave(body: Buffer, shared: Metadata): SaveItem[] {
  const list = arrayOf(decodeJson(body.toString()), "the body");
  return list.map((raw, index) => decodeItem(raw, `item ${index}`, shared));
}

/** Keys of a bulk get; errors and `shared` as for `decodeSave`. */
export function decodeBulkGet(body: Buffer, shared: Metadata): BulkGetBody {
  let keys: readonly string[] = [];
  let parallelism = 0;
  let metadata: Metadata = noMetadata;
  for (const [name, member] of membersOf(decodeJson(body.toString()), "the body")) {
    if (name === "keys") keys = arrayOf(member, '"keys"').map((key, index) => textOf(key, `key ${index}`));
    else if (name === "parallelism") parallelism = integerOf(member, '"parallelism"');
    else if (name === "metadata") metadata = metadataOf(member, "the body's");
  }
  return { keys, parallelism, metadata: merged(metadata, shared) };
}

/** Operations of a transaction; `shared` goes to each of them, the body's own metadata to the store alone. */
export function decodeTransaction(body: Buffer, shared: Metadata): TransactionBody {
  let operations: readonly Operation[] = [];
  let metadata: Metadata = noMetadata;
  for (const [name, member] of membersOf(decodeJson(body.toString()), "the body")) {
    if (name === "operations") {
      operations = arrayOf(member, '"operations"').map((raw, index) => decodeOperation(raw, index, shared));
    } else if (name === "metadata") metadata = metadataOf(member, "the body's");
  }
  return { operations, metadata };
}

function decodeOperation(raw: unknown, index: number, shared: Metadata): Operation {
  let operation = "";
  let request: unknown = null;
  for (const [name, member] of membersOf(raw, `operation ${index}`)) {
    if (name === "operation") operation = textOf(member, `"operation" of operation ${index}`);
    else if (name === "request") request = member;
  }
  return { operation, item: decodeItem(request, `the request of operation ${index}`, shared) };
}

function decodeItem(raw: unknown, what: string, shared: Metadata): SaveItem {
  let key = "";
  let value: unknown = null;
  let etag = "";
  let metadata: Metadata = noMetadata;
  let concurrency = "";
  let consistency = "";
  const item = objectOf(raw, what);
  for (const name in item) {
    const member = item[name];
    switch (name.toLowerCase()) {
      case "key":
        key = textOf(member, `"key" of ${what}`);
        break;
      case "value":
        value = member;
        break;
      case "etag":
        etag = textOf(member, `"etag" of ${what}`);
        break;
      case "metadata":
        metadata = metadataOf(member, `${what}'s`);
        break;
      case "options":
        for (const [option, text] of membersOf(member, `"options" of ${what}`)) {
          if (option === "concurrency") concurrency = textOf(text, `"concurrency" of ${what}`);
          else if (option === "consistency") consistency = textOf(text, `"consistency" of ${what}`);
        }
        break;
    }
  }
  const bytes = Buffer.from(goJson(value));
  return {
    key,
    value: bytes,
    json: true,
    etag,
    concurrency,
    consistency,
    metadata: merged(metadata, shared),
  };
}

function merged(own: Metadata, shared: Metadata): Metadata {
  if (shared === noMetadata) return own;
  return own === noMetadata ? shared : { ...own, ...shared };
}

function metadataOf(value: unknown, whose: string): Metadata {
  const metadata = objectOf(value, `${whose} "metadata"`);
  for (const [name, member] of Object.entries(metadata)) {
    metadata[name] = textOf(member, `${whose} metadata "${name}"`);
  }
  return metadata as Record<string, string>;
}

/** Members of a JSON object with their names in lower case, in the order of the text. */
function membersOf(value: unknown, what: string): [string, unknown][] {
  return Object.entries(objectOf(value, what)).map(([name, member]) => [name.toLowerCase(), member]);
}

function objectOf(value: unknown, what: string): Record<string, unknown> {
  if (value === null) return {};
  if (typeof value !== "object" || Array.isArray(value)) throw wrongKind(what, "an object", value);
  return value as Record<string, unknown>;
}

function arrayOf(value: unknown, what: string): unknown[] {
  if (value === null) return [];
  if (!Array.isArray(value)) throw wrongKind(what, "an array", value);
  return value;
}

function textOf(value: unknown, what: string): string {
  if (value === null) return "";
  if (typeof value !== "string") throw wrongKind(what, "a string", value);
  return value;
}

function integerOf(value: unknown, what: string): number {
  if (value === null) return 0;
  if (!Number.isSafeInteger(value)) throw wrongKind(what, "a whole number", value);
  return value as number;
}

function wrongKind(what: string, wanted: string, value: unknown): Error {
  const found = value === null ? "null" : Array.isArray(value) ? "an array" : `of type ${typeof value}`;
  return new Error(`${what} must be ${wanted}, but is ${found}`);
}

/** The answer of a bulk get, newline included; members that are empty are left out. */
export function encodeBulkGet(entries: readonly BulkEntry[]): string {
  return `[${entries.map(encodeEntry).join(",")}]\n`;
}

function encodeEntry({ key, record, error }: BulkEntry): string {
  let text = `{"key":${goJson(key)}`;
  if (record !== undefined) {
    if (record.value.length > 0) text += `,"data":${embeddedJson(record.value)}`;
    if (record.etag !== "") text += `,"etag":${goJson(record.etag)}`;
    if (record.expiresAtMs !== undefined) text += `,"metadata":${goJson(readMetadata(record))}`;
  }
  if (error !== undefined) text += `,"error":${goJson(error)}`;
  return `${text}}`;
}

/**
 * Stored bytes as one JSON value: JSON without blanks and with the escapes of all our JSON; other text as a JSON
 * string; bytes that are not UTF-8 as a JSON string of their base64.
 */
export function embeddedJson(bytes: Uint8Array): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!isUtf8(buffer)) return `"${buffer.toString("base64")}"`;
  const text = buffer.toString();
  try {
    JSON.parse(text);
  } catch {
    return goJson(text);
  }
  return compactGoJson(text);
}
