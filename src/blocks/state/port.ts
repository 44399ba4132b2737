/**
 * What a state store must do. Keys are complete stored keys (`<appID>||<key>` by default), values bytes.
 * One contract suite (test/contract/state.ts) runs against every store.
 */
import { type ApiError, grpcCodeName } from "../../api/errors.ts";

/** A stored value as read. `value` belongs to the store: readers never change it. */
export type StateRecord = {
  readonly value: Uint8Array;
  readonly etag: string;
  /** Unix ms, when the record expires. */
  readonly expiresAtMs?: number;
  /** What else the store tells of it, as only plug-ins do. */
  readonly metadata?: Readonly<Record<string, string>>;
};

export type StateReadOptions = {
  readonly consistency: "strong" | "eventual" | "";
  readonly metadata: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Of a read of many keys: how many of them at once, if the client said so. */
  readonly parallelism?: number;
};

/** What a client asked of a write, in its own words, for stores beside which nothing decides; empty = not given. */
export type AskedOptions = {
  readonly concurrency: string;
  readonly consistency: string;
  readonly contentType?: string;
};

export type StateSet = {
  readonly kind: "set";
  readonly key: string;
  /** A store that keeps it after the call copies it. */
  readonly value: Uint8Array;
  /** True when `value` is JSON text that the sidecar wrote (HTTP save); false for bytes to be kept untouched. */
  readonly json: boolean;
  /** Compare-and-set: must be the current ETag. Undefined = no check. */
  readonly etag: string | undefined;
  /** first-write without ETag: the key must not exist. Never together with an ETag. */
  readonly createOnly: boolean;
  /** Whole seconds; any integer. Undefined and values <= 0 follow the store's rule, usually "no expiry". */
  readonly ttlSeconds: number | undefined;
  /** True when the client asked for strong consistency: on disk or on replicas, where the store can promise it. */
  readonly strong?: boolean;
  /** The same and what else was asked, before it was judged. */
  readonly asked?: AskedOptions;
  readonly metadata: Readonly<Record<string, string>>;
};

export type StateDelete = {
  readonly kind: "delete";
  readonly key: string;
  /** Must be the current ETag; an absent key is a mismatch. */
  readonly etag: string | undefined;
  /** first-write without ETag: mismatch when the key exists. */
  readonly createOnly: boolean;
  /** True when the client asked for strong consistency: on disk or on replicas, where the store can promise it. */
  readonly strong?: boolean;
  /** The same and what else was asked, before it was judged. */
  readonly asked?: AskedOptions;
  readonly metadata: Readonly<Record<string, string>>;
};

export type StateWrite = StateSet | StateDelete;

/** A write that was refused for what is true of one key; nothing was written. */
class RefusedWrite extends Error {
  /** As stored; absent where the store does not tell. */
  key?: string;
}

/** The ETag was well formed and is not the current one (or a create found the key). */
export class EtagMismatch extends RefusedWrite {
  constructor(cause?: unknown) {
    super(`possible etag mismatch. error from state store${causeText(cause)}`, { cause });
    this.name = "EtagMismatch";
  }
}

/** The ETag cannot be one of this store's. */
export class EtagInvalid extends RefusedWrite {
  constructor(cause?: unknown) {
    super(`invalid etag value${causeText(cause)}`, { cause });
    this.name = "EtagInvalid";
  }
}

/** A create found the key, in a store where that has no status of its own. */
export class NotCreated extends RefusedWrite {
  constructor(message: string) {
    super(message);
    this.name = "NotCreated";
  }
}

/** The error of a write of this key: it knows the key from here on, if it is about one. */
export function aboutKey(error: unknown, key: string): unknown {
  if (error instanceof RefusedWrite) error.key ??= key;
  return error;
}

/** The stored key that the error is about. */
export function keyOfRefusal(error: unknown): string | undefined {
  return error instanceof RefusedWrite ? error.key : undefined;
}

/** A failure whose status and details the store chose, as only plug-ins do. Its message is the cause in our words. */
export class StoreError extends Error {
  /** As it is passed on whole. */
  readonly api: ApiError | undefined;

  constructor(api?: ApiError) {
    super(api && `api error: code = ${grpcCodeName(api.grpcCode)} desc = ${api.message}`, { cause: api });
    this.name = "StoreError";
    this.api = api;
  }
}

function causeText(cause: unknown): string {
  if (cause === undefined) return "";
  return `: ${cause instanceof Error ? cause.message : String(cause)}`;
}

/** A condition on values that are JSON documents; `path` is the way to a member, from the outside in. */
export type StateFilter =
  | {
      readonly operator: "EQ" | "NEQ" | "GT" | "GTE" | "LT" | "LTE";
      readonly path: readonly string[];
      /** JSON data; a number for GT, GTE, LT, LTE. */
      readonly operand: unknown;
    }
  | { readonly operator: "IN"; readonly path: readonly string[]; readonly operands: readonly unknown[] }
  | { readonly operator: "AND" | "OR"; readonly filters: readonly StateFilter[] };

export type StateQuery = {
  /** Absent = every record. */
  readonly filter?: StateFilter;
  readonly sort: readonly { readonly path: readonly string[]; readonly descending: boolean }[];
  /** Most rows of the answer; 0 = no limit. */
  readonly limit: number;
  /** Rows to leave out. */
  readonly offset: number;
};

/** One row of an answer, with its stored key. */
export type StateQueryRow = {
  readonly key: string;
  readonly value: Uint8Array;
  readonly etag: string;
  /** Why there is no value. */
  readonly error?: string;
};

/** A query whose filter was checked and is otherwise as the client wrote it. */
export type WrittenStateQuery = {
  /** Operand by operator, of which there is one, or none for every record. */
  readonly filter: Readonly<Record<string, unknown>>;
  readonly sort: readonly { readonly key: string; readonly descending: boolean }[];
  /** 0 = no limit. */
  readonly limit: number;
  /** What an earlier answer gave; empty for the first rows. */
  readonly token: string;
};

export type WrittenQueryAnswer = {
  readonly rows: readonly StateQueryRow[];
  readonly token: string;
  readonly metadata: Readonly<Record<string, string>>;
};

/** One page of stored keys. `next` asks for those after it; absent when there are none. */
export type StateKeyPage = { readonly keys: readonly string[]; readonly next?: string };

/** What a watch follows: one stored key, or all that begin with a text. */
export type StateTarget = { readonly key: string } | { readonly prefix: string };

/** What a watch tells. `cursor` is the place behind it: text without spaces that a later watch may begin at. */
export type StateChange =
  | {
      readonly kind: "put";
      readonly key: string;
      /** An Error when the value cannot be read. */
      readonly record: StateRecord | Error;
      readonly cursor: string;
    }
  /** `expire`: the time to live ended. */
  | { readonly kind: "delete" | "expire"; readonly key: string; readonly cursor: string }
  /**
   * `ready`: comes first; whatever is written from then on is told. `reset`: instead of it, or later, when changes
   * before it may be missing. `idle`: nothing has changed up to here.
   */
  | { readonly kind: "ready" | "reset" | "idle"; readonly cursor: string };

/** A cursor that the store has never given. */
export class CursorInvalid extends Error {
  constructor() {
    super("it is none that this store has given");
    this.name = "CursorInvalid";
  }
}

/** How a store differs in what it takes. */
export type WriteRules = {
  /** Words before the reason why a time to live is refused. Absent = none. */
  readonly ttlErrorPrefix?: string;
  /** Times to live mean nothing here, or a plug-in reads them itself: `ttlSeconds` is never given. */
  readonly ignoresTtl?: boolean;
  /** Concurrency and consistency that are none count as not given, in these writes. Absent = they are refused. */
  readonly takesAnyOption?: "deletes" | "writes";
};

/** All methods may run at once, may be retried by the caller after an error, and reject with a readable Error. */
export type StateStore = {
  /** What the metadata API lists, when it depends on version or server; else the component file's list is. */
  readonly capabilities?: readonly string[];
  /** Most writes one `transact` takes. Absent = no limit of its own. */
  readonly maxTransactionWrites?: number;
  readonly rules?: WriteRules;
  /** Clients read an empty value over HTTP as they read an absent key. */
  readonly hidesEmpty?: boolean;
  /** May wait for the store. Without effect, so it may be repeated. */
  get(key: string, options: StateReadOptions): Promise<StateRecord | undefined>;
  /** Same order as `keys`. One entry may be an Error while others succeed. Absent = the block calls `get` per key. */
  getMany?(keys: readonly string[], options: StateReadOptions): Promise<(StateRecord | undefined | Error)[]>;
  /**
   * Durable by the store's rules when it resolves. Rejects with EtagMismatch or EtagInvalid where these are the
   * reason; then nothing was written. Any other rejection leaves the outcome open.
   */
  set(write: StateSet, signal: AbortSignal): Promise<void>;
  /**
   * Several writes in one call, for stores that have one. Resolves with false when this store turns out to have none:
   * then nothing was written, and the block writes them one by one. Absent = it always does. Rejections as for `set`,
   * but some may be written.
   */
  setMany?(writes: readonly StateSet[], signal: AbortSignal): Promise<boolean>;
  /** As `setMany`, for deletes. */
  deleteMany?(writes: readonly StateDelete[], signal: AbortSignal): Promise<boolean>;
  /** Deleting an absent key without ETag succeeds. Rejections as for `set`. */
  delete(write: StateDelete, signal: AbortSignal): Promise<void>;
  /**
   * All or nothing. Present exactly when the store lists TRANSACTIONAL. Every ETag and `createOnly` is checked
   * against the state before the transaction; of several writes to one key the last decides what is stored.
   */
  transact?(
    writes: readonly StateWrite[],
    metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void>;
  /** Rows in the order asked for, of all apps. Present exactly when the store lists QUERY_API. */
  query?(
    query: StateQuery,
    metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<readonly StateQueryRow[]>;
  /** In place of `query`, for stores that read queries themselves and page by tokens of their own. */
  queryAsWritten?(
    query: WrittenStateQuery,
    metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<WrittenQueryAnswer>;
  /**
   * Keys that begin with a text, of records that have not expired, at most `limit`; fewer, even none, may come though
   * more follow. `after` is the `next` of a page before. A key that is written while pages are read may come twice, and
   * none that is there all the time is left out. Rejects with CursorInvalid. Absent where keys cannot be listed.
   */
  list?(
    prefix: string,
    options: { readonly limit: number; readonly after: string | undefined; readonly signal: AbortSignal },
  ): Promise<StateKeyPage>;
  /**
   * Changes until the signal ends them, also through outages of the store. Of changes of one key that follow each other
   * quickly only the last may be told. Rejects with CursorInvalid. Absent where they cannot be watched.
   */
  watch?(
    target: StateTarget,
    options: { readonly after: string | undefined; readonly signal: AbortSignal },
  ): Promise<AsyncIterableIterator<StateChange>>;
  /** Unix ms since when it cannot reach its server; undefined while it can. Absent where it does not tell. */
  awaySinceMs?(): number | undefined;
  /** Called once, when no call runs any more. */
  close(): Promise<void>;
};
