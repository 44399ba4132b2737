/**
 * Bodies of the state API over HTTP: JSON text to the items of state.ts, and found records to JSON text.
 * Member names match in any case, unknown ones are ignored, and text after the JSON value is too.
 */
import { isUtf8 } from "node:buffer";
import { compactGoJson, decodeJson, goJson } from "../../lib/go-json.ts";
import { jsonFields } from "../../lib/json-fields.ts";
import { nothing, readMetadata } from "./read-metadata.ts";
import type { BulkEntry, QueryAnswer } from "./state.ts";
import { isOperation, type Metadata, type Operation, type SaveItem } from "./writes.ts";

export type BulkGetBody = {
  readonly keys: readonly string[];
  readonly parallelism: number;
  readonly metadata: Metadata;
};

export type TransactionBody = { readonly operations: readonly Operation[]; readonly metadata: Metadata };

const json = jsonFields((message) => new Error(message));

/** No metadata, shared so that the common request allocates none. */
export const noMetadata: Metadata = Object.freeze({});

/** Items of a save; `shared` (from the URL) wins over each item's metadata. Throws an Error saying what is wrong. */
export function decodeSave(body: Buffer, shared: Metadata): SaveItem[] {
  const list = json.array(decodeJson(body.toString()), "the body");
  return list.map((raw, index) => decodeItem(raw, `item ${index}`, shared));
}

/** Keys of a bulk get; errors and `shared` as for `decodeSave`. */
export function decodeBulkGet(body: Buffer, shared: Metadata): BulkGetBody {
  let keys: readonly string[] = [];
  let parallelism = 0;
  let metadata: Metadata = noMetadata;
  for (const [name, member] of json.members(decodeJson(body.toString()), "the body")) {
    if (name === "keys")
      keys = json.array(member, '"keys"').map((key, index) => json.text(key, `key ${index}`));
    else if (name === "parallelism") parallelism = json.integer(member, '"parallelism"');
    else if (name === "metadata") metadata = json.texts(member, "the body's metadata");
  }
  return { keys, parallelism, metadata: merged(metadata, shared) };
}

/** Operations of a transaction; `shared` goes to each of them, the body's own metadata to the store alone. */
export function decodeTransaction(body: Buffer, shared: Metadata): TransactionBody {
  let operations: readonly Operation[] = [];
  let metadata: Metadata = noMetadata;
  for (const [name, member] of json.members(decodeJson(body.toString()), "the body")) {
    if (name === "operations") {
      operations = json
        .array(member, '"operations"')
        .map((raw, index) => decodeOperation(raw, index, shared));
    } else if (name === "metadata") metadata = json.texts(member, "the body's metadata");
  }
  return { operations, metadata };
}

function decodeOperation(raw: unknown, index: number, shared: Metadata): Operation {
  let operation = "";
  let request: unknown = null;
  for (const [name, member] of json.members(raw, `operation ${index}`)) {
    if (name === "operation") operation = json.text(member, `"operation" of operation ${index}`);
    else if (name === "request") request = member;
  }
  // What is not done is not read: the operation is refused, whatever it holds.
  if (!isOperation(operation)) request = null;
  return { operation, item: decodeItem(request, `the request of operation ${index}`, shared) };
}

function decodeItem(raw: unknown, what: string, shared: Metadata): SaveItem {
  let key = "";
  let value: unknown = null;
  let etag = "";
  let metadata: Metadata = noMetadata;
  let concurrency = "";
  let consistency = "";
  let contentType = "";
  const item = json.object(raw, what);
  for (const name in item) {
    const member = item[name];
    switch (name.toLowerCase()) {
      case "key":
        key = json.text(member, `"key" of ${what}`);
        break;
      case "value":
        value = member;
        break;
      case "etag":
        etag = json.text(member, `"etag" of ${what}`);
        break;
      case "metadata":
        metadata = json.texts(member, `${what}'s metadata`);
        break;
      case "contenttype":
        contentType = json.text(member, `"contentType" of ${what}`);
        break;
      case "options":
        for (const [option, text] of json.members(member, `"options" of ${what}`)) {
          if (option === "concurrency") concurrency = json.text(text, `"concurrency" of ${what}`);
          else if (option === "consistency") consistency = json.text(text, `"consistency" of ${what}`);
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
    contentType,
  };
}

function merged(own: Metadata, shared: Metadata): Metadata {
  if (shared === noMetadata) return own;
  return own === noMetadata ? shared : { ...own, ...shared };
}

/** The answer of a bulk get, newline included; members that are empty are left out. */
export function encodeBulkGet(entries: readonly BulkEntry[]): string {
  return `[${entries.map(encodeEntry).join(",")}]\n`;
}

/** One entry of it, also what a watch tells of a key. */
export function encodeEntry({ key, record, error }: BulkEntry): string {
  let text = `{"key":${goJson(key)}`;
  if (record !== undefined) {
    if (record.value.length > 0) text += `,"data":${embeddedJson(record.value)}`;
    if (record.etag !== "") text += `,"etag":${goJson(record.etag)}`;
    const metadata = readMetadata(record);
    if (metadata !== nothing) text += `,"metadata":${goJson(metadata)}`;
  }
  if (error !== undefined) text += `,"error":${goJson(error)}`;
  return `${text}}`;
}

/** The answer of a query, newline included; members that are empty are left out, but for data. */
export function encodeQueryAnswer({ rows, token, metadata }: QueryAnswer): string {
  const results = rows.map(({ key, value, etag, error = "" }) => {
    const data = value.length === 0 && error !== "" ? "null" : embeddedJson(value);
    return `{"key":${goJson(key)},"data":${data}${member("etag", etag)}${member("error", error)}}`;
  });
  const told = Object.keys(metadata).length === 0 ? "" : `,"metadata":${goJson(metadata)}`;
  return `{"results":[${results.join(",")}]${member("token", token)}${told}}\n`;
}

function member(name: string, text: string): string {
  return text === "" ? "" : `,"${name}":${goJson(text)}`;
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
