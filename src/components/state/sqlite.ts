/**
 * State in an SQLite file, by the SQLite that is part of Node. Tables are those of Dapr's component, so a file can
 * change hands in both directions. Calls of SQLite are synchronous and short; a lock that another process holds is
 * waited for without blocking the sidecar.
 */
import { randomUUID } from "node:crypto";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Clock } from "../../../mesh/index.ts";
import {
  type StateDelete,
  type StateKeyPage,
  type StateReadOptions,
  type StateRecord,
  type StateSet,
  type StateStore,
  type StateWrite,
} from "../../blocks/state/port.ts";
import { textOf } from "../../lib/thrown.ts";
import { type ComponentContext, MetadataError, type MetadataSchema } from "../component.ts";
import { cleanEvery, cleanupField } from "./sql/cleanup.ts";
import { changedMeanwhile, existsAlready } from "./sql/mismatch.ts";
import { tableName } from "./sql/names.ts";
import { oncePerKey } from "./sql/once-per-key.ts";
import { type ListOptions, keyRange, pageOf } from "./sql/page-of.ts";
import { readConnectionString } from "./sql/sqlite-connection.ts";
import { ttlErrorPrefix, ttlOf } from "./sql/ttl.ts";

export const type = "state.sqlite";
export const aliases = ["state.sqlite3"];
export const versions = ["v1"];
export const capabilities = ["ETAG", "TRANSACTIONAL", "TTL", "KEYS_LIKE"];

export const metadataSchema = {
  connectionString: {
    kind: "string",
    description: "Path of the file, `file:` URI, or `:memory:`.",
    aliases: ["url"],
    secret: true,
  },
  tableName: { kind: "string", description: "Table of the values.", default: "state" },
  metadataTableName: { kind: "string", description: "Table of the store's own notes.", default: "metadata" },
  timeout: {
    kind: "duration",
    description: "Longest time of one operation.",
    default: "20s",
    aliases: ["timeoutInSeconds"],
  },
  busyTimeout: {
    kind: "duration",
    description: "How long to wait for a lock that another process holds.",
    default: "2s",
  },
  disableWAL: { kind: "boolean", description: "Do not use the write-ahead log.", default: "false" },
  cleanupInterval: { ...cleanupField, default: "0s" },
} as const satisfies MetadataSchema;

type Row = {
  readonly value: string;
  readonly is_binary: number;
  readonly etag: string;
  readonly expiration_time: string | null;
};

/** Most keys of one statement; below what any build of SQLite takes. */
const maxKeysAtOnce = 500;
const retryMs = 5;

/** Opens the file and creates what is missing. Rejects when it cannot be opened or stays locked. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<StateStore> {
  const { metadata, clock, signal } = context;
  const text = metadata.connectionString ?? "";
  if (text === "") throw new Error("missing connection string");
  const connection = readConnectionString(text);
  const tables = {
    state: tableName("tableName", metadata.tableName),
    metadata: tableName("metadataTableName", metadata.metadataTableName),
  };
  const { DatabaseSync } = await import("node:sqlite");
  const database = openDatabase(DatabaseSync, connection);
  const busyMs = Math.min(metadata.busyTimeout, metadata.timeout);
  const locked = new WhileLocked(clock, busyMs);
  try {
    for (const pragma of connection.pragmas) database.exec(pragma);
    if (!connection.readOnly) {
      if (!connection.inMemory && !metadata.disableWAL)
        await locked.run(() => database.exec("PRAGMA journal_mode = WAL"), signal);
      await locked.run(() => migrate(database, tables), signal);
    }
    return new SqliteStore(database, tables, locked, context);
  } catch (error) {
    database.close();
    throw error;
  }
}

/** SQLite's own words say neither which field nor which file. */
function openDatabase(
  Database: typeof DatabaseSync,
  { location, readOnly }: ReturnType<typeof readConnectionString>,
): DatabaseSync {
  try {
    return new Database(location, { timeout: 0, readOnly });
  } catch (error) {
    const fix = readOnly ? "correct the path" : "create its folder, or correct the path";
    const text = `metadata field "connectionString": ${location}: ${textOf(error)}; ${fix}`;
    throw new MetadataError("connectionString", text, error);
  }
}

type Tables = { readonly state: string; readonly metadata: string };

function migrate(database: DatabaseSync, tables: Tables): void {
  inTransaction(database, () => {
    database.exec(
      `CREATE TABLE IF NOT EXISTS ${tables.metadata} (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)`,
    );
    database.exec(
      `CREATE TABLE IF NOT EXISTS ${tables.state} (
        key TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL,
        is_binary BOOLEAN NOT NULL,
        etag TEXT NOT NULL,
        expiration_time TIMESTAMP DEFAULT NULL,
        update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)`,
    );
    database.exec(`INSERT INTO ${tables.metadata} VALUES ('migrations', '1') ON CONFLICT (key) DO NOTHING`);
  });
}

/** Runs `work` again while another process holds a lock, up to a time. */
class WhileLocked {
  readonly #clock: Clock;
  readonly #limitMs: number;

  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  async run<T>(work: () => T, signal: AbortSignal): Promise<T> {
    const untilMs = this.#clock.monotonicMs() + this.#limitMs;
    for (;;) {
      try {
        return work();
      } catch (error) {
        if (!isLocked(error) || this.#clock.monotonicMs() >= untilMs) throw error;
      }
      await this.#clock.sleep(retryMs, signal);
    }
  }
}

/** SQLITE_BUSY or SQLITE_LOCKED, extended codes too. */
function isLocked(error: unknown): boolean {
  const code = (error as { errcode?: unknown }).errcode;
  return typeof code === "number" && ((code & 0xff) === 5 || (code & 0xff) === 6);
}

function inTransaction<T>(database: DatabaseSync, work: () => T): T {
  database.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    database.exec("COMMIT");
    return result;
  } catch (error) {
    if (database.isTransaction) database.exec("ROLLBACK");
    throw error;
  }
}

class SqliteStore implements StateStore {
  readonly rules = { ttlErrorPrefix };
  readonly #database: DatabaseSync;
  readonly #tables: Tables;
  readonly #locked: WhileLocked;
  readonly #clock: Clock;
  readonly #statements: Statements;
  readonly #cleanup;

  constructor(
    database: DatabaseSync,
    tables: Tables,
    locked: WhileLocked,
    context: ComponentContext<typeof metadataSchema>,
  ) {
    this.#database = database;
    this.#tables = tables;
    this.#locked = locked;
    this.#clock = context.clock;
    this.#statements = prepareAll(database, tables.state);
    const { cleanupInterval } = context.metadata;
    this.#cleanup = cleanEvery(cleanupInterval, tables.state, context, (intervalMs) =>
      this.#clean(intervalMs),
    );
  }

  get(key: string, { signal }: StateReadOptions): Promise<StateRecord | undefined> {
    return this.#locked.run(() => this.#record(this.#statements.get.get(key) as Row | undefined), signal);
  }

  async getMany(keys: readonly string[], { signal }: StateReadOptions): Promise<(StateRecord | undefined)[]> {
    const found = new Map<string, StateRecord | undefined>();
    for (let at = 0; at < keys.length; at += maxKeysAtOnce) {
      const some = keys.slice(at, at + maxKeysAtOnce);
      const marks = some.map(() => "?").join(",");
      const columns = "key, value, is_binary, etag, expiration_time";
      const text = `SELECT ${columns} FROM ${this.#tables.state} WHERE key IN (${marks})`;
      const rows = await this.#locked.run(() => this.#database.prepare(text).all(...some), signal);
      for (const row of rows as (Row & { key: string })[]) found.set(row.key, this.#record(row));
    }
    return keys.map((key) => found.get(key));
  }

  set(write: StateSet, signal: AbortSignal): Promise<void> {
    return this.#locked.run(() => this.#write(write), signal);
  }

  delete(write: StateDelete, signal: AbortSignal): Promise<void> {
    return this.#locked.run(() => this.#write(write), signal);
  }

  async transact(
    writes: readonly StateWrite[],
    _metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    const once = oncePerKey(writes);
    const all = (): void => {
      for (const write of once) this.#write(write);
    };
    await this.#locked.run(() => inTransaction(this.#database, all), signal);
  }

  async list(prefix: string, { limit, after, signal }: ListOptions): Promise<StateKeyPage> {
    const range = keyRange(prefix, after);
    const now = timeText(this.#clock.nowMs());
    const text = `SELECT key FROM ${this.#tables.state} WHERE key >= ? AND key < ? AND key > ?
      AND (expiration_time IS NULL OR expiration_time > ?) ORDER BY key LIMIT ?`;
    const values = [range.from, range.to, range.after ?? "", now, limit + 1];
    const rows = await this.#locked.run(() => this.#database.prepare(text).all(...values), signal);
    return pageOf(
      rows.map((row) => row["key"] as string),
      limit,
    );
  }

  async close(): Promise<void> {
    this.#cleanup?.cancel();
    this.#database.close();
  }

  #record(row: Row | undefined): StateRecord | undefined {
    if (row === undefined) return undefined;
    const value = Buffer.from(row.value, row.is_binary ? "base64" : "utf8");
    if (row.expiration_time === null) return { value, etag: row.etag };
    const expiresAtMs = parseTime(row.expiration_time);
    return expiresAtMs > this.#clock.nowMs() ? { value, etag: row.etag, expiresAtMs } : undefined;
  }

  #write(write: StateWrite): void {
    const { key, etag } = write;
    const now = timeText(this.#clock.nowMs());
    const { put, create, replace, delete: remove, deleteGuarded } = this.#statements;
    if (write.kind === "delete") {
      if (etag === undefined) remove.run(key);
      else if (deleteGuarded.run(key, etag, now).changes === 0) throw changedMeanwhile(key);
      return;
    }
    const row = [...this.#columns(write), now] as const;
    if (etag !== undefined) {
      if (replace.run(...row, key, etag, now).changes === 0) throw changedMeanwhile(key);
    } else if (write.createOnly) {
      if (create.run(key, ...row, now).changes === 0) throw existsAlready(key);
    } else put.run(key, ...row);
  }

  /** Value, is_binary, etag, expiration_time. */
  #columns(write: StateSet): [string, number, string, string | null] {
    const bytes = Buffer.from(write.value.buffer, write.value.byteOffset, write.value.byteLength);
    const ttlSeconds = ttlOf(write);
    // Rounded up: times are whole seconds, and a record must not end early.
    const expires = ttlSeconds === undefined ? null : timeText(this.#clock.nowMs() + ttlSeconds * 1000 + 999);
    return [bytes.toString(write.json ? "utf8" : "base64"), write.json ? 0 : 1, randomUUID(), expires];
  }

  /** One of several processes does it once per interval: the row `last-cleanup` is its turn. */
  #clean(intervalMs: number): Promise<void> {
    const { state, metadata } = this.#tables;
    const nowMs = this.#clock.nowMs();
    const now = timeText(nowMs);
    const work = (): void => {
      const turn = this.#database
        .prepare(
          `INSERT INTO ${metadata} (key, value) VALUES ('last-cleanup', ?)
          ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE value <= ?`,
        )
        .run(now, timeText(nowMs - intervalMs + 100));
      if (turn.changes === 0) return;
      this.#database
        .prepare(`DELETE FROM ${state} WHERE expiration_time IS NOT NULL AND expiration_time <= ?`)
        .run(now);
    };
    return this.#locked.run(() => inTransaction(this.#database, work), new AbortController().signal);
  }
}

type Statements = Readonly<
  Record<"get" | "put" | "create" | "replace" | "delete" | "deleteGuarded", StatementSync>
>;

function prepareAll(database: DatabaseSync, table: string): Statements {
  const columns = "value, is_binary, etag, expiration_time, update_time";
  const insert = `INSERT INTO ${table} (key, ${columns}) VALUES (?, ?, ?, ?, ?, ?)`;
  const assign = columns.split(", ").map((column) => `${column} = excluded.${column}`);
  const upsert = `${insert} ON CONFLICT (key) DO UPDATE SET ${assign.join(", ")}`;
  const alive = "(expiration_time IS NULL OR expiration_time > ?)";
  const guard = `WHERE key = ? AND etag = ? AND ${alive}`;
  return {
    get: database.prepare(`SELECT value, is_binary, etag, expiration_time FROM ${table} WHERE key = ?`),
    put: database.prepare(upsert),
    create: database.prepare(`${upsert} WHERE ${table}.expiration_time <= ?`),
    replace: database.prepare(
      `UPDATE ${table} SET value = ?, is_binary = ?, etag = ?, expiration_time = ?, update_time = ? ${guard}`,
    ),
    delete: database.prepare(`DELETE FROM ${table} WHERE key = ?`),
    deleteGuarded: database.prepare(`DELETE FROM ${table} ${guard}`),
  };
}

/** As SQLite's own CURRENT_TIMESTAMP: UTC, whole seconds. */
function timeText(unixMs: number): string {
  return new Date(unixMs).toISOString().slice(0, 19).replace("T", " ");
}

function parseTime(text: string): number {
  const iso = text.replace(" ", "T");
  return Date.parse(/(Z|[+-]\d\d:?\d\d)$/.test(iso) ? iso : `${iso}Z`);
}
