/**
 * The state API without its protocols: checks what was asked, turns user keys into stored keys, calls the store
 * and names its failures. http.ts and grpc.ts decode into the types of writes.ts; stores.ts finds the store.
 */
import type { Clock } from "../../../mesh/index.ts";
import { ApiError } from "../../api/errors.ts";
import { eachAtMost } from "../../lib/each-at-most.ts";
import { anyFailure, callUnder, type Failure, type Guard, ignoredFailure } from "../../resiliency/policy.ts";
import { PolicyStop } from "../../resiliency/stop.ts";
import type { CountFamily, LatencyFamily } from "../../telemetry/metrics.ts";
import * as errors from "./errors.ts";
import { holdsSeparator } from "./key-prefix.ts";
import type { OutboxRound, StoreOutbox, TransactionOutcome } from "./outbox.ts";
import {
  CursorInvalid,
  keyOfRefusal,
  type StateChange,
  type StateRecord,
  type StateStore,
  type StateWrite,
  type WrittenQueryAnswer,
} from "./port.ts";
import {
  type Change,
  type KeyPage,
  type WatchTarget,
  badId,
  maxListed,
  maxPrefixChars,
  noRecord,
} from "./listing.ts";
import { badToken, openToken, sealToken } from "./page-token.ts";
import { parseQuery, readQuery } from "./query.ts";
import { nothing } from "./read-metadata.ts";
import {
  isOperation,
  markerWrite,
  type Metadata,
  type Operation,
  type SaveItem,
  toDelete,
  toSet,
  type WriteItem,
} from "./writes.ts";
import { asError } from "../../lib/thrown.ts";
import type { Span } from "../../telemetry/tracing/span.ts";

/** One answer of a bulk get. `error` = this key could not be read; neither = it is absent. */
export type BulkEntry = {
  readonly key: string;
  readonly record: StateRecord | undefined;
  readonly error: string | undefined;
};

/** Answer of a query. `token` asks for the rows after these; empty when no limit was given or nothing was found. */
export type QueryAnswer = WrittenQueryAnswer;

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
  readonly #outbox: StoreOutbox | undefined;

  /** `prefix` goes before every key, separator included. What `guard` holds stands around each call. */
  constructor(
    name: string,
    port: StateStore,
    prefix: string,
    { recorder, guard, outbox }: { recorder: Recorder; guard: Guard; outbox?: StoreOutbox | undefined },
  ) {
    this.name = name;
    this.#port = port;
    this.#prefix = prefix;
    this.#recorder = recorder;
    this.#guard = guard;
    this.#outbox = outbox;
  }

  /** Clients read an empty value over HTTP as they read an absent key. */
  get hidesEmpty(): boolean {
    return this.#port.hidesEmpty === true;
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
      const writes = items.map((item) => toSet(this.#prefix, item, this.#port.rules));
      const together =
        this.#port.setMany === undefined ? undefined : (now: AbortSignal) => this.#port.setMany!(writes, now);
      if (writes.length > 0) await this.#writeAll("set", writes, signal, together);
    } catch (cause) {
      throw errors.saveFailed(this.name, cause);
    }
  }

  /** Succeeds when the key is absent and no ETag was given. */
  async delete(item: WriteItem, signal: AbortSignal): Promise<void> {
    this.#checkKey(item.key, false);
    try {
      const write = toDelete(this.#prefix, item, this.#port.rules);
      await this.#call("delete", signal, (now) => this.#port.delete(write, now));
    } catch (cause) {
      throw errors.deleteFailed(item.key, cause);
    }
  }

  /** As `save`, for deletes. */
  async deleteMany(items: readonly WriteItem[], signal: AbortSignal): Promise<void> {
    for (const { key } of items) this.#checkKey(key, false);
    try {
      const writes = items.map((item) => toDelete(this.#prefix, item, this.#port.rules));
      const together =
        this.#port.deleteMany === undefined
          ? undefined
          : (now: AbortSignal) => this.#port.deleteMany!(writes, now);
      if (writes.length > 0) await this.#writeAll("bulk_delete", writes, signal, together);
    } catch (cause) {
      throw errors.bulkDeleteFailed(this.name, cause);
    }
  }

  /** Throws when the store has no transactions. */
  requireTransactions(): void {
    if (this.#port.transact === undefined) throw errors.notTransactional(this.name);
  }

  /** All operations or none. An ETag that does not match has no status of its own here: ERR_STATE_TRANSACTION. */
  async transact(
    operations: readonly Operation[],
    metadata: Metadata,
    signal: AbortSignal,
    span: Span | undefined,
  ): Promise<void> {
    this.requireTransactions();
    if (operations.length === 0) return;
    for (const { operation, item } of operations) {
      if (!isOperation(operation)) throw errors.unknownOperation(operation);
      this.#checkKey(item.key, true);
    }
    const round = this.#outbox?.plan(operations);
    const stored = round?.operations ?? operations;
    const max = this.#port.maxTransactionWrites ?? Infinity;
    const count = stored.length + (round?.markers.length ?? 0);
    if (count > max) throw errors.tooManyOperations(this.name, count, max);
    try {
      const writes = stored.map(({ operation, item }) =>
        operation === "delete"
          ? toDelete(this.#prefix, item, this.#port.rules)
          : toSet(this.#prefix, item, this.#port.rules),
      );
      if (round !== undefined) await this.#transactWithEvents(round, writes, metadata, signal, span);
      else await this.#call("transaction", signal, (now) => this.#port.transact!(writes, metadata, now));
    } catch (cause) {
      throw errors.transactionFailed(cause, keyOfRefusal(cause)?.slice(this.#prefix.length));
    }
  }

  async #transactWithEvents(
    round: OutboxRound,
    writes: readonly StateWrite[],
    metadata: Metadata,
    signal: AbortSignal,
    span: Span | undefined,
  ): Promise<void> {
    if (writes.length === 0) return;
    const all = [...writes, ...round.markers.map(markerWrite)];
    let attempts = 0;
    let outcome: TransactionOutcome = "refused";
    try {
      await round.announce(span, signal);
      outcome = "unknown";
      await this.#call("transaction", signal, (now) => {
        attempts += 1;
        return this.#port.transact!(all, metadata, now);
      });
      outcome = "committed";
    } catch (error) {
      // An earlier attempt may have been done although its answer was lost; then its own ETags refuse the next one.
      if (attempts === 1 && errors.isEtagError(error)) outcome = "refused";
      throw error;
    } finally {
      round.settle(outcome);
    }
  }

  /** Rows of all apps that keep state in this store, keys as their apps know them. `text` is the query as JSON. */
  async query(text: string, metadata: Metadata, signal: AbortSignal): Promise<QueryAnswer> {
    const { query, queryAsWritten } = this.#port;
    if (query === undefined && queryAsWritten === undefined) throw errors.queryNotSupported(this.name);
    try {
      const answer =
        queryAsWritten === undefined
          ? await this.#queryRows(text, metadata, signal)
          : await this.#queryAsWritten(text, metadata, signal);
      const rows = answer.rows.map(({ key, value, etag, error = "" }) => ({
        key: queriedKey(key),
        value,
        etag,
        error,
      }));
      return { ...answer, rows };
    } catch (cause) {
      throw errors.queryFailed(this.name, cause);
    }
  }

  async #queryRows(text: string, metadata: Metadata, signal: AbortSignal): Promise<QueryAnswer> {
    const query = parseQuery(text);
    // One more than is allowed, to see whether there are more.
    const limit = Math.min(query.limit === 0 ? Infinity : query.limit, maxRows + 1);
    const rows = await this.#call("query", signal, (now) =>
      this.#port.query!({ ...query, limit }, metadata, now),
    );
    if (rows.length > maxRows)
      throw new Error(`more than ${maxRows} rows; ask for them page by page with page.limit and page.token`);
    const token = query.limit > 0 && rows.length > 0 ? String(query.offset + rows.length) : "";
    return { rows, token, metadata: nothing };
  }

  #queryAsWritten(text: string, metadata: Metadata, signal: AbortSignal): Promise<QueryAnswer> {
    const query = readQuery(text);
    return this.#call("query", signal, (now) => this.#port.queryAsWritten!(query, metadata, now));
  }

  /** Keys of this app that begin with `prefix`; `token` is that of the page before, empty for the first. */
  async list(prefix: string, limit: number, token: string, signal: AbortSignal): Promise<KeyPage> {
    if (this.#port.list === undefined) throw errors.notSupported(this.name, "listing keys");
    if (limit < 1 || limit > maxListed) throw errors.malformedRequest(`limit must be 1 to ${maxListed}`);
    const storedPrefix = this.#storedPrefix(prefix);
    const after = token === "" ? undefined : openToken(token, this.name, storedPrefix);
    try {
      const page = await this.#call("list", signal, (now) =>
        this.#port.list!(storedPrefix, { limit, after, signal: now }),
      );
      const next = page.next === undefined ? "" : sealToken(this.name, storedPrefix, page.next);
      return { keys: page.keys.flatMap((key) => this.#userKey(key) ?? []), token: next };
    } catch (cause) {
      if (cause instanceof CursorInvalid) throw badToken(cause);
      throw errors.listFailed(this.name, cause);
    }
  }

  /** Changes of this app's keys until the signal ends them. `lastId` is an id of an earlier watch, or empty. */
  async watch(target: WatchTarget, lastId: string, signal: AbortSignal): Promise<AsyncIterable<Change>> {
    if (this.#port.watch === undefined) throw errors.notSupported(this.name, "watching keys");
    const stored =
      "key" in target ? { key: this.#storedKey(target.key) } : { prefix: this.#storedPrefix(target.prefix) };
    if (lastId !== "" && !lastId.startsWith(`${this.name}:`)) throw errors.malformedRequest(badId);
    const after = lastId === "" ? undefined : lastId.slice(this.name.length + 1);
    try {
      const changes = await this.#port.watch(stored, { after, signal });
      return this.#ownChanges(changes);
    } catch (cause) {
      if (cause instanceof CursorInvalid) throw errors.malformedRequest(badId, cause);
      throw errors.watchFailed(this.name, cause);
    }
  }

  async *#ownChanges(changes: AsyncIterable<StateChange>): AsyncIterable<Change> {
    for await (const change of changes) {
      const id = `${this.name}:${change.cursor}`;
      const storedKey = "key" in change ? change.key : this.#prefix;
      const key = this.#userKey(storedKey);
      // What others wrote moves the place on all the same.
      if (key === undefined) yield { kind: "idle", key: "", id, ...noRecord };
      else if (change.kind !== "put") yield { kind: change.kind, key, id, ...noRecord };
      else yield { kind: "put", id, ...bulkEntry(key, change.record) };
    }
  }

  /** What a user may ask for; undefined for what is stored under this prefix and is no key of users, as of actors. */
  #userKey(storedKey: string): string | undefined {
    const key = storedKey.slice(this.#prefix.length);
    return storedKey.startsWith(this.#prefix) && !holdsSeparator(key) ? key : undefined;
  }

  #storedPrefix(prefix: string): string {
    if (prefix.length > maxPrefixChars)
      throw errors.malformedRequest(`prefix must have at most ${maxPrefixChars} characters`);
    return this.#storedKey(prefix);
  }

  #checkKey(key: string, inTransaction: boolean): void {
    if (holdsSeparator(key)) throw errors.illegalKey(this.name, key, inTransaction);
  }

  #storedKey(key: string): string {
    this.#checkKey(key, false);
    return this.#prefix + key;
  }

  #write(write: StateWrite, signal: AbortSignal): Promise<void> {
    return write.kind === "set" ? this.#port.set(write, signal) : this.#port.delete(write, signal);
  }

  /**
   * Several run at once, unless the store takes them `together`. Under a policy only those are sent again that failed,
   * and not for their ETag.
   */
  async #writeAll(
    operation: string,
    writes: readonly StateWrite[],
    signal: AbortSignal,
    together?: (signal: AbortSignal) => Promise<boolean>,
  ): Promise<void> {
    if (writes.length === 1) {
      return this.#call(operation, signal, (now) => this.#write(writes[0]!, now));
    }
    const outcomes = new Array<Error | undefined>(writes.length);
    let left = writes.map((_, index) => index);
    let singly = together === undefined;
    const failure = (): Error => errors.joinFailures(outcomes.filter((outcome) => outcome !== undefined));
    const attempt = async (now: AbortSignal): Promise<void> => {
      if (!singly && (await together!(now))) return;
      singly = true;
      const found = await this.#tryAll(writes, left, now);
      // A later attempt may be under way: what comes after the time of this one says nothing any more.
      if (now.aborted && !signal.aborted) return;
      for (const [index, outcome] of found) outcomes[index] = outcome;
      left = left.filter((index) => outcomes[index] !== undefined && judge(outcomes[index]) === anyFailure);
      if (outcomes.some((outcome) => outcome !== undefined)) throw failure();
    };
    const judgeAll = (error: unknown): Failure =>
      singly ? (left.length > 0 ? anyFailure : ignoredFailure) : judge(error);
    try {
      await this.#call(operation, signal, attempt, judgeAll);
    } catch (error) {
      throw !singly || error instanceof PolicyStop ? error : failure();
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
    const options = { consistency: "", metadata, signal, parallelism } as const;
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
  const answered =
    errors.isEtagError(error) ||
    error instanceof CursorInvalid ||
    (error instanceof ApiError && error.httpStatus < 500);
  return answered ? ignoredFailure : anyFailure;
}

function bulkEntry(key: string, found: StateRecord | Error | undefined): BulkEntry {
  if (found instanceof Error) return { key, record: undefined, error: found.message };
  return { key, record: found, error: undefined };
}

function readConsistency(text: string): "strong" | "eventual" | "" {
  return text === "strong" || text === "eventual" ? text : "";
}

/** What stands after the first separator, up to the next. */
function queriedKey(storedKey: string): string {
  return storedKey.split("||")[1] ?? storedKey;
}
