/**
 * The state API without its protocols: checks what was asked, turns user keys into stored keys, calls the store
 * and names its failures. http.ts and grpc.ts decode into the types of this file; stores.ts finds the store.
 */
import type { Clock } from "../../../mesh/index.ts";
import { ApiError } from "../../api/errors.ts";
import { eachAtMost } from "../../lib/each-at-most.ts";
import { anyFailure, callUnder, type Failure, type Guard, ignoredFailure } from "../../resiliency/policy.ts";
import { PolicyStop } from "../../resiliency/stop.ts";
import type { CountFamily, LatencyFamily } from "../../telemetry/metrics.ts";
import * as errors from "./errors.ts";
import { holdsSeparator } from "./key-prefix.ts";
import type { StateDelete, StateQueryRow, StateRecord, StateSet, StateStore, StateWrite } from "./port.ts";
import { parseQuery } from "./query.ts";
import { asError } from "../../lib/thrown.ts";

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
export type SaveItem = WriteItem & { readonly value: Uint8Array; readonly json: boolean };

/** One step of a transaction; `operation` is `upsert` or `delete`, anything else is refused. */
export type Operation = { readonly operation: string; readonly item: SaveItem };

/** One answer of a bulk get. `error` = this key could not be read; neither = it is absent. */
export type BulkEntry = {
  readonly key: string;
  readonly record: StateRecord | undefined;
  readonly error: string | undefined;
};

/** Answer of a query. `token` asks for the rows after these; empty when no limit was given or nothing was found. */
export type QueryAnswer = { readonly rows: readonly StateQueryRow[]; readonly token: string };

/** Writes or reads of one request that run at once when the store has no call for many. */
const maxParallel = 128;

/** Rows of one answer to a query. */
const maxRows = 10_000;

/** Where calls of stores are counted. */
export type Recorder = {
  readonly clock: Clock;
  readonly namespace: string;
  readonly count: CountFamily;
  readonly latency: LatencyFamily;
};

/** One state store under its component name; keys are the user's. Methods reject with ApiError. */
export class NamedStore {
  readonly name: string;
  readonly #port: StateStore;
  readonly #prefix: string;
  readonly #recorder: Recorder;
  readonly #guard: Guard;

  /** `prefix` goes before every key, separator included. What `guard` holds stands around each call of the store. */
  constructor(name: string, port: StateStore, prefix: string, recorder: Recorder, guard: Guard) {
    this.name = name;
    this.#port = port;
    this.#prefix = prefix;
    this.#recorder = recorder;
    this.#guard = guard;
  }

  /** `consistency` other than `strong` and `eventual` is the store's default. */
  async get(
    key: string,
    consistency: string,
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<StateRecord | undefined> {
    const storedKey = this.#storedKey(key);
    const options = { consistency: readConsistency(consistency), metadata };
    try {
      return await this.#call("get", signal, (now) => this.#port.get(storedKey, { ...options, signal: now }));
    } catch (cause) {
      throw errors.getFailed(this.name, key, cause);
    }
  }

  /** One entry per key, in the order of `keys`. `parallelism` <= 0 = as many at once as this sidecar allows. */
  async getMany(
    keys: readonly string[],
    parallelism: number,
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<BulkEntry[]> {
    const storedKeys = keys.map((key) => this.#storedKey(key));
    if (keys.length === 0) return [];
    try {
      const found = await this.#call("bulk_get", signal, (now) =>
        this.#readMany(storedKeys, parallelism, metadata, now),
      );
      return keys.map((key, index) => bulkEntry(key, found[index]));
    } catch (cause) {
      throw errors.bulkGetFailed(cause);
    }
  }

  /** Writes the items: all are checked before the first is written; several run at once and may succeed in part. */
  async save(items: readonly SaveItem[], signal: AbortSignal): Promise<void> {
    for (const { key } of items) {
      if (key === "") throw errors.emptyKey();
      this.#checkKey(key, false);
    }
    try {
      const writes = items.map((item) => this.#toSet(item));
      if (writes.length > 0) await this.#writeAll("set", writes, signal);
    } catch (cause) {
      throw errors.saveFailed(this.name, cause);
    }
  }

  /** Succeeds when the key is absent and no ETag was given. */
  async delete(item: WriteItem, signal: AbortSignal): Promise<void> {
    this.#checkKey(item.key, false);
    try {
      const write = this.#toDelete(item);
      await this.#call("delete", signal, (now) => this.#port.delete(write, now));
    } catch (cause) {
      throw errors.deleteFailed(item.key, cause);
    }
  }

  /** As `save`, for deletes. */
  async deleteMany(items: readonly WriteItem[], signal: AbortSignal): Promise<void> {
    for (const { key } of items) this.#checkKey(key, false);
    try {
      const writes = items.map((item) => this.#toDelete(item));
      if (writes.length > 0) await this.#writeAll("bulk_delete", writes, signal);
    } catch (cause) {
      throw errors.bulkDeleteFailed(this.name, cause);
    }
  }

  /** Throws when the store has no transactions. */
  requireTransactions(): void {
    if (this.#port.transact === undefined) throw errors.notTransactional(this.name);
  }

  /** All operations or none. An ETag that does not match has no status of its own here: ERR_STATE_TRANSACTION. */
  async transact(operations: readonly Operation[], metadata: Metadata, signal: AbortSignal): Promise<void> {
    this.requireTransactions();
    if (operations.length === 0) return;
    for (const { operation, item } of operations) {
      if (operation !== "upsert" && operation !== "delete") throw errors.unknownOperation(operation);
      this.#checkKey(item.key, true);
    }
    const max = this.#port.maxTransactionWrites ?? Infinity;
    if (operations.length > max) throw errors.tooManyOperations(this.name, operations.length, max);
    try {
      const writes = operations.map(({ operation, item }) =>
        operation === "delete" ? this.#toDelete(item) : this.#toSet(item),
      );
      await this.#call("transaction", signal, (now) => this.#port.transact!(writes, metadata, now));
    } catch (cause) {
      throw errors.transactionFailed(cause);
    }
  }

  /** Rows of all apps that keep state in this store, keys as their apps know them. `text` is the query as JSON. */
  async query(text: string, metadata: Metadata, signal: AbortSignal): Promise<QueryAnswer> {
    if (this.#port.query === undefined) throw errors.queryNotSupported(this.name);
    try {
      const query = parseQuery(text);
      // One more than is allowed, to see whether there are more.
      const limit = Math.min(query.limit === 0 ? Infinity : query.limit, maxRows + 1);
      const rows = await this.#call("query", signal, (now) =>
        this.#port.query!({ ...query, limit }, metadata, now),
      );
      if (rows.length > maxRows)
        throw new Error(
          `more than ${maxRows} rows; ask for them page by page with page.limit and page.token`,
        );
      const token = query.limit > 0 && rows.length > 0 ? String(query.offset + rows.length) : "";
      return { rows: rows.map(({ key, value, etag }) => ({ key: queriedKey(key), value, etag })), token };
    } catch (cause) {
      throw errors.queryFailed(this.name, cause);
    }
  }

  #checkKey(key: string, inTransaction: boolean): void {
    if (holdsSeparator(key)) throw errors.illegalKey(this.name, key, inTransaction);
  }

  #storedKey(key: string): string {
    this.#checkKey(key, false);
    return this.#prefix + key;
  }

  #toSet(item: SaveItem): StateSet {
    checkOptions(item);
    return {
      kind: "set",
      key: this.#prefix + item.key,
      value: item.value,
      json: item.json,
      etag: item.etag === "" ? undefined : item.etag,
      createOnly: item.etag === "" && item.concurrency === "first-write",
      strong: item.consistency === "strong",
      ttlSeconds: ttlSeconds(item.metadata),
      metadata: item.metadata,
    };
  }

  #toDelete(item: WriteItem): StateDelete {
    checkOptions(item);
    return {
      kind: "delete",
      key: this.#prefix + item.key,
      etag: item.etag === "" ? undefined : item.etag,
      createOnly: item.etag === "" && item.concurrency === "first-write",
      strong: item.consistency === "strong",
      metadata: item.metadata,
    };
  }

  #write(write: StateWrite, signal: AbortSignal): Promise<void> {
    return write.kind === "set" ? this.#port.set(write, signal) : this.#port.delete(write, signal);
  }

  /** Several run at once. Under a policy only those are sent again that failed, and not for their ETag. */
  async #writeAll(operation: string, writes: readonly StateWrite[], signal: AbortSignal): Promise<void> {
    if (writes.length === 1) {
      return this.#call(operation, signal, (now) => this.#write(writes[0]!, now));
    }
    const outcomes = new Array<Error | undefined>(writes.length);
    let left = writes.map((_, index) => index);
    const failure = (): Error => errors.joinFailures(outcomes.filter((outcome) => outcome !== undefined));
    const attempt = async (now: AbortSignal): Promise<void> => {
      const found = await this.#tryAll(writes, left, now);
      // A later attempt may be under way: what comes after the time of this one says nothing any more.
      if (now.aborted && !signal.aborted) return;
      for (const [index, outcome] of found) outcomes[index] = outcome;
      left = left.filter((index) => outcomes[index] !== undefined && judge(outcomes[index]) === anyFailure);
      if (outcomes.some((outcome) => outcome !== undefined)) throw failure();
    };
    try {
      await this.#call(operation, signal, attempt, () => (left.length > 0 ? anyFailure : ignoredFailure));
    } catch (error) {
      throw error instanceof PolicyStop ? error : failure();
    }
  }

  /** What became of the writes of these indices. */
  async #tryAll(
    writes: readonly StateWrite[],
    indices: readonly number[],
    signal: AbortSignal,
  ): Promise<Map<number, Error | undefined>> {
    const found = new Map<number, Error | undefined>();
    await eachAtMost(indices, maxParallel, async (index) => {
      try {
        await this.#write(writes[index]!, signal);
        found.set(index, undefined);
      } catch (failure) {
        found.set(index, asError(failure));
      }
    });
    return found;
  }

  async #readMany(
    storedKeys: readonly string[],
    parallelism: number,
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<(StateRecord | undefined | Error)[]> {
    const options = { consistency: "", metadata, signal } as const;
    if (this.#port.getMany !== undefined) return this.#port.getMany(storedKeys, options);
    const found = new Array<StateRecord | undefined | Error>(storedKeys.length);
    const limit = parallelism > 0 ? Math.min(parallelism, maxParallel) : maxParallel;
    await eachAtMost(storedKeys, limit, async (key, index) => {
      try {
        found[index] = await this.#port.get(key, options);
      } catch (failure) {
        found[index] = asError(failure);
      }
    });
    return found;
  }

  /** A call of the store, counted and timed as a whole, under its policy. */
  async #call<T>(
    operation: string,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<T>,
    judgeError = judge,
  ): Promise<T> {
    const { clock } = this.#recorder;
    const startedMs = clock.monotonicMs();
    let success = "false";
    try {
      const result = await callUnder(this.#guard, signal, work, judgeError);
      success = "true";
      return result;
    } finally {
      this.#recorder.count(this.name, this.#recorder.namespace, operation, success);
      const latencyMs = clock.monotonicMs() - startedMs;
      if (latencyMs > 0)
        this.#recorder.latency(latencyMs, this.name, this.#recorder.namespace, operation, success);
    }
  }
}

/** What the store answers to the client, such as an ETag that does not match, is no failure of the store. */
function judge(error: unknown): Failure {
  const answered = errors.isEtagError(error) || (error instanceof ApiError && error.httpStatus < 500);
  return answered ? ignoredFailure : anyFailure;
}

function bulkEntry(key: string, found: StateRecord | Error | undefined): BulkEntry {
  if (found instanceof Error) return { key, record: undefined, error: found.message };
  return { key, record: found, error: undefined };
}

function readConsistency(text: string): "strong" | "eventual" | "" {
  return text === "strong" || text === "eventual" ? text : "";
}

function checkOptions({ concurrency, consistency }: WriteItem): void {
  if (concurrency !== "" && concurrency !== "first-write" && concurrency !== "last-write") {
    throw new Error(`unrecognized concurrency model '${concurrency}'`);
  }
  if (consistency !== "" && consistency !== "strong" && consistency !== "eventual") {
    throw new Error(`unrecognized consistency model '${consistency}'`);
  }
}

function ttlSeconds(metadata: Metadata): number | undefined {
  const text = metadata["ttlInSeconds"];
  if (text === undefined || text === "") return undefined;
  const seconds = Number(text);
  if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(seconds)) {
    throw new Error(
      `incorrect value for metadata 'ttlInSeconds': '${text}' is not a whole number of seconds`,
    );
  }
  return seconds;
}

/** What stands after the first separator, up to the next. */
function queriedKey(storedKey: string): string {
  return storedKey.split("||")[1] ?? storedKey;
}
