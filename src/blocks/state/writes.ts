/** What clients ask to be written, and how a store is told. */
import type { StateDelete, StateSet, WriteRules } from "./port.ts";

export type Metadata = Readonly<Record<string, string>>;

/** What every write may ask for. Texts as the client wrote them; empty = not given. */
export type WriteItem = {
  readonly key: string;
  readonly etag: string;
  /** `first-write` or `last-write`. */
  readonly concurrency: string;
  /** `eventual` or `strong`. */
  readonly consistency: string;
  readonly metadata: Metadata;
};

/** One item to save. `json`: the value is JSON text that this sidecar wrote, not bytes of the client. */
export type SaveItem = WriteItem & {
  readonly value: Uint8Array;
  readonly json: boolean;
  /** As the client gave it beside the value: for the event in an outbox, and for plug-ins. */
  readonly contentType: string;
};

/** One step of a transaction; `operation` is `upsert` or `delete`, anything else is refused. */
export type Operation = { readonly operation: string; readonly item: SaveItem };

export function isOperation(text: string): boolean {
  return text === "upsert" || text === "delete";
}

const noRules: WriteRules = {};

/** As daprd stores it: some stores take no empty value. */
const markerValue = Buffer.from('"0"');

/** `prefix` goes before the key. Throws Error for an option or a time to live that is none. */
export function toSet(prefix: string, item: SaveItem, rules = noRules): StateSet {
  if (rules.takesAnyOption !== "writes") checkOptions(item);
  return {
    kind: "set",
    key: prefix + item.key,
    value: item.value,
    json: item.json,
    etag: item.etag === "" ? undefined : item.etag,
    createOnly: item.etag === "" && item.concurrency === "first-write",
    strong: item.consistency === "strong",
    asked: item,
    ttlSeconds: ttlSeconds(item.metadata, rules),
    metadata: item.metadata,
  };
}

/** As `toSet`, without a time to live. */
export function toDelete(prefix: string, item: WriteItem, rules = noRules): StateDelete {
  if (rules.takesAnyOption === undefined) checkOptions(item);
  return {
    kind: "delete",
    key: prefix + item.key,
    etag: item.etag === "" ? undefined : item.etag,
    createOnly: item.etag === "" && item.concurrency === "first-write",
    strong: item.consistency === "strong",
    asked: item,
    metadata: item.metadata,
  };
}

/** Proves to the outbox that the transaction was committed. */
export function markerWrite(key: string): StateSet {
  const plain = { etag: undefined, createOnly: false, ttlSeconds: undefined, metadata: {} };
  return { kind: "set", key, value: markerValue, json: true, ...plain };
}

function checkOptions({ concurrency, consistency }: WriteItem): void {
  if (concurrency !== "" && concurrency !== "first-write" && concurrency !== "last-write") {
    throw new Error(`unrecognized concurrency model '${concurrency}'`);
  }
  if (consistency !== "" && consistency !== "strong" && consistency !== "eventual") {
    throw new Error(`unrecognized consistency model '${consistency}'`);
  }
}

function ttlSeconds(metadata: Metadata, { ttlErrorPrefix = "", ignoresTtl }: WriteRules): number | undefined {
  const text = metadata["ttlInSeconds"];
  if (text === undefined || text === "" || ignoresTtl === true) return undefined;
  const seconds = Number(text);
  if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(seconds)) {
    throw new Error(
      `${ttlErrorPrefix}incorrect value for metadata 'ttlInSeconds': '${text}' is not a whole number of seconds`,
    );
  }
  return seconds;
}
