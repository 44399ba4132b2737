/**
 * What a state store must do. Keys are complete stored keys (`<appID>||<key>` by default), values bytes.
 * One contract suite (test/contract/state.ts) runs against every store.
 */

/** A stored value as read. `value` belongs to the store: readers never change it. */
export type StateRecord = {
  readonly value: Uint8Array;
  readonly etag: string;
  /** Unix ms, when the record expires. */
  readonly expiresAtMs?: number;
};

export type StateReadOptions = {
  readonly consistency: "strong" | "eventual" | "";
  readonly metadata: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
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
  readonly metadata: Readonly<Record<string, string>>;
};

export type StateWrite = StateSet | StateDelete;

/** The ETag was well formed and is not the current one (or a create found the key). */
export class EtagMismatch extends Error {
  constructor(cause?: unknown) {
    super(`possible etag mismatch. error from state store${causeText(cause)}`, { cause });
    this.name = "EtagMismatch";
  }
}

/** The ETag cannot be one of this store's. */
export class EtagInvalid extends Error {
  constructor(cause?: unknown) {
    super(`invalid etag value${causeText(cause)}`, { cause });
    this.name = "EtagInvalid";
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
export type StateQueryRow = { readonly key: string; readonly value: Uint8Array; readonly etag: string };

/** All methods may run at once, may be retried by the caller after an error, and reject with a readable Error. */
export type StateStore = {
  /** What the metadata API lists, when it depends on version or server; else the component file's list is. */
  readonly capabilities?: readonly string[];
  /** Most writes one `transact` takes. Absent = no limit of its own. */
  readonly maxTransactionWrites?: number;
  /** May wait for the store. Without effect, so it may be repeated. */
  get(key: string, options: StateReadOptions): Promise<StateRecord | undefined>;
  /** Same order as `keys`. One entry may be an Error while others succeed. Absent = the block calls `get` per key. */
  getMany?(keys: readonly string[], options: StateReadOptions): Promise<(StateRecord | undefined | Error)[]>;
  /**
   * Durable by the store's rules when it resolves. Rejects with EtagMismatch or EtagInvalid where these are the
   * reason; then nothing was written. Any other rejection leaves the outcome open.
   */
  set(write: StateSet, signal: AbortSignal): Promise<void>;
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
  /** Called once, when no call runs any more. */
  close(): Promise<void>;
};
