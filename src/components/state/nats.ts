/**
 * State in a JetStream bucket, one per namespace and component name, so every app that loads the component under
 * the same name shares it. The ETag is the revision of the key; a stored key `<prefix>||<key>` becomes the table
 * key [prefix, key], which plain NATS tools can list and read.
 */
import {
  type Expect,
  type LargeTable,
  MeshError,
  type TableChange,
  type TableCursor,
  type TableEntry,
  type TableKey,
  type TableReadOptions,
  type TableWrite,
} from "../../../mesh/index.ts";
import {
  CursorInvalid,
  type EtagMismatch,
  type StateChange,
  type StateDelete,
  type StateKeyPage,
  type StateReadOptions,
  type StateRecord,
  type StateSet,
  type StateStore,
  type StateTarget,
  type StateWrite,
} from "../../blocks/state/port.ts";
import { textOf } from "../../lib/thrown.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { changedMeanwhile, existsAlready, noNumber } from "./sql/mismatch.ts";

export const type = "state.nats";
export const versions = ["v1"];
export const capabilities = ["ETAG", "TRANSACTIONAL", "TTL"];

export const metadataSchema = {
  storage: {
    kind: "string",
    description:
      "Where NATS keeps the values: file survives a restart of the server, memory does not. " +
      "Has effect when the bucket is created.",
    default: "file",
    oneOf: ["file", "memory"],
  },
  maxValueSize: {
    kind: "integer",
    description:
      "Largest value, bytes. One above NATS' max_payload is kept in parts, in a bucket of its own.",
    default: "134217728",
    min: 1,
    max: 1_073_741_824,
  },
} as const satisfies MetadataSchema;

type Context = ComponentContext<typeof metadataSchema>;

/** Writes of one atomic batch in JetStream. */
const maxTransactionWrites = 1_000;
/** When parts of large values that nobody needs are looked for: first, and then how often, ms. */
const firstSweepMs = 30_000;
const sweepMs = 600_000;
/** Longest time to live, as in the SQL stores. */
const maxTtlSeconds = 2 ** 31 - 1;

/** Waits for NATS and creates the bucket when it is not there. */
export async function open(context: Context): Promise<StateStore> {
  const { mesh, namespace, name, metadata } = context;
  const storage = metadata.storage === "memory" ? "memory" : "file";
  const maxValueBytes = metadata.maxValueSize;
  const bucket = { kind: "state", name: [namespace, name], storage, expiryMarks: true } as const;
  return new NatsStore(mesh.largeTable({ ...bucket, maxValueBytes }), maxValueBytes, context);
}

class NatsStore implements StateStore {
  readonly maxTransactionWrites = maxTransactionWrites;
  readonly #table: LargeTable;
  readonly #maxValueBytes: number;
  readonly #closing = new AbortController();
  readonly #sweeps;

  constructor(table: LargeTable, maxValueBytes: number, { clock, log }: Context) {
    this.#table = table;
    this.#maxValueBytes = maxValueBytes;
    const sweep = (): void => {
      void table.sweep(this.#closing.signal).then(
        (removed) => removed > 0 && log.info(`${table.bucket}: parts of ${removed} old values removed`),
        (error: unknown) => log.debug(`${table.bucket}: parts of old values not removed: ${textOf(error)}`),
      );
    };
    this.#sweeps = [clock.setTimeout(sweep, firstSweepMs), clock.setInterval(sweep, sweepMs)];
  }

  async get(key: string, options: StateReadOptions): Promise<StateRecord | undefined> {
    const entry = await this.#table.get(tableKey(key), readOptions(options));
    return entry === undefined ? undefined : toRecord(entry);
  }

  async getMany(keys: readonly string[], options: StateReadOptions): Promise<(StateRecord | undefined)[]> {
    const entries = await this.#table.getMany(keys.map(tableKey), readOptions(options));
    return entries.map((entry) => (entry === undefined ? undefined : toRecord(entry)));
  }

  async set(write: StateSet, signal: AbortSignal): Promise<void> {
    const options: { expect?: Expect; ttlSeconds?: number; signal: AbortSignal } = { signal };
    const expect = expectOf(write);
    if (expect !== undefined) options.expect = expect;
    const ttlSeconds = ttlOf(write);
    if (ttlSeconds !== undefined) options.ttlSeconds = ttlSeconds;
    try {
      await this.#table.put(tableKey(write.key), write.value, options);
    } catch (error) {
      throw this.#failure(error, [toTableWrite(write, expect)]);
    }
  }

  async delete(write: StateDelete, signal: AbortSignal): Promise<void> {
    const expect = expectOf(write);
    try {
      await this.#table.delete(tableKey(write.key), expect === undefined ? { signal } : { expect, signal });
    } catch (error) {
      throw this.#failure(error, [toTableWrite(write, expect)]);
    }
  }

  async transact(
    writes: readonly StateWrite[],
    _metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    const batch = oncePerKey(writes);
    try {
      await this.#table.batch(batch, { signal });
    } catch (error) {
      throw this.#failure(error, batch);
    }
  }

  async list(
    prefix: string,
    { limit, after, signal }: { limit: number; after: string | undefined; signal: AbortSignal },
  ): Promise<StateKeyPage> {
    if (after !== undefined && !/^\d{1,15}$/.test(after)) throw new CursorInvalid();
    const wants = (key: TableKey): boolean => storedKey(key)?.startsWith(prefix) ?? false;
    const from = after === undefined ? {} : { after: Number(after) };
    const page = await this.#table.page(tablePrefix(prefix), { limit, wants, signal, ...from });
    const keys = page.keys.map((key) => storedKey(key)!);
    return page.next === undefined ? { keys } : { keys, next: String(page.next) };
  }

  async watch(
    target: StateTarget,
    { after, signal }: { after: string | undefined; signal: AbortSignal },
  ): Promise<AsyncIterableIterator<StateChange>> {
    const place = after === undefined ? undefined : readCursor(after);
    const prefix = "prefix" in target ? target.prefix : "";
    const tableTarget =
      "key" in target ? { key: tableKey(target.key) } : { prefix: tablePrefix(target.prefix) };
    return ownChanges(await this.#table.watch(tableTarget, { after: place, signal }), prefix);
  }

  async close(): Promise<void> {
    for (const timer of this.#sweeps) timer.cancel();
    this.#closing.abort(new Error("the store is closed"));
    // The connection is the mesh's, and the bucket stays.
  }

  /** `writes` as the table got them, so that the index of a conflict names one. */
  #failure(error: unknown, writes: readonly TableWrite[]): unknown {
    if (!(error instanceof MeshError)) return error;
    if (error.code === "conflict") {
      const { key, expect } = writes[error.index ?? 0] ?? writes[0]!;
      return mismatch(key, expect);
    }
    if (error.code !== "too-large") return error;
    const sizes = writes.map((write) => (write.kind === "put" ? write.value.length : 0));
    const largest = sizes.indexOf(Math.max(...sizes));
    return new Error(
      `the value of key '${userKey(writes[largest]!.key)}' takes ${sizes[largest]} bytes, more than the ` +
        `${this.#maxValueBytes} that metadata maxValueSize allows; raise it or store a smaller value`,
      { cause: error },
    );
  }
}

/**
 * Writes of a transaction with each key once: all checks of a key hold for the state before the transaction, its
 * last write is what is stored.
 */
function oncePerKey(writes: readonly StateWrite[]): TableWrite[] {
  const byKey = new Map<string, { expect: Expect | undefined; last: StateWrite }>();
  for (const write of writes) {
    const expect = expectOf(write);
    const earlier = byKey.get(write.key)?.expect;
    if (earlier !== undefined && expect !== undefined && expect !== earlier) {
      throw mismatch(tableKey(write.key), expect);
    }
    byKey.set(write.key, { expect: expect ?? earlier, last: write });
  }
  return [...byKey.values()].map(({ expect, last }) => toTableWrite(last, expect));
}

function toTableWrite(write: StateWrite, expect: Expect | undefined): TableWrite {
  const guard = expect === undefined ? {} : { expect };
  const key = tableKey(write.key);
  if (write.kind === "delete") return { kind: "delete", key, ...guard };
  const ttlSeconds = ttlOf(write);
  return {
    kind: "put",
    key,
    value: write.value,
    ...guard,
    ...(ttlSeconds === undefined ? {} : { ttlSeconds }),
  };
}

/** Only the first separator parts prefix and key: a prefix never holds one, an actor's key does. */
function tableKey(key: string): TableKey {
  const at = key.indexOf("||");
  return at < 0 ? [key] : [key.slice(0, at), key.slice(at + 2)];
}

/** The reverse; undefined for a key that `tableKey` does not make. */
function storedKey(key: TableKey): string | undefined {
  return key.length > 2 || key[0]!.includes("||") ? undefined : key.join("||");
}

/** The whole parts of a prefix of stored keys. */
function tablePrefix(prefix: string): TableKey {
  const at = prefix.indexOf("||");
  return at < 0 ? [] : [prefix.slice(0, at)];
}

async function* ownChanges(
  changes: AsyncIterable<TableChange>,
  prefix: string,
): AsyncIterableIterator<StateChange> {
  for await (const change of changes) {
    const cursor = `${change.cursor.revision}-${change.cursor.timeMs}`;
    if (!("key" in change)) {
      yield { kind: change.kind, cursor };
      continue;
    }
    const key = storedKey(change.key);
    if (key?.startsWith(prefix) !== true) yield { kind: "idle", cursor };
    else if (change.kind !== "put") yield { kind: change.kind, key, cursor };
    else yield { kind: "put", key, record: change.error ?? toRecord(change.entry), cursor };
  }
}

function readCursor(text: string): TableCursor {
  const match = /^(\d{1,15})-(\d{1,15})$/.exec(text);
  if (match === null) throw new CursorInvalid();
  return { revision: Number(match[1]), timeMs: Number(match[2]) };
}

function userKey(key: TableKey): string {
  return key.at(-1)!.slice(0, 100);
}

function readOptions({ consistency, signal }: StateReadOptions): TableReadOptions {
  return consistency === "strong" ? { strong: true, signal } : { signal };
}

function toRecord({ value, revision, expiresAtMs }: TableEntry): StateRecord {
  const record = { value, etag: String(revision) };
  return expiresAtMs === undefined ? record : { ...record, expiresAtMs };
}

/** The guard that a write asks for. Throws EtagInvalid for text that is no revision of any key. */
function expectOf(write: StateWrite): Expect | undefined {
  const { etag, createOnly } = write;
  if (etag === undefined) return createOnly ? "absent" : undefined;
  if (!/^\d+$/.test(etag)) throw noNumber(write.key, etag);
  const revision = Number(etag);
  // No revision is written like this, so it cannot be the current one; 0 would even mean "absent" to JetStream.
  if (revision === 0 || String(revision) !== etag || !Number.isSafeInteger(revision)) {
    throw mismatch(tableKey(write.key), revision);
  }
  return revision;
}

function mismatch(key: TableKey, expect: Expect | undefined): EtagMismatch {
  const stored = key.join("||");
  return expect === "absent" ? existsAlready(stored) : changedMeanwhile(stored);
}

function ttlOf({ ttlSeconds }: StateSet): number | undefined {
  if (ttlSeconds === undefined || ttlSeconds <= 0) return undefined;
  if (ttlSeconds <= maxTtlSeconds) return ttlSeconds;
  throw new Error(
    `incorrect value for metadata 'ttlInSeconds': ${ttlSeconds} is above the largest value, ${maxTtlSeconds}`,
  );
}
