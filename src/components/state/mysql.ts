/**
 * State in MySQL or MariaDB. Tables are those of Dapr's component, so data can change hands in both directions;
 * bytes are a JSON string of their base64.
 */
import { randomUUID } from "node:crypto";
import type {
  StateDelete,
  StateKeyPage,
  StateReadOptions,
  StateRecord,
  StateSet,
  StateStore,
  StateWrite,
} from "../../blocks/state/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { type MySql, type MySqlRun, type MySqlValue, duplicateEntry, openMySql } from "../connect/mysql.ts";
import { cleanEvery, cleanupField } from "./sql/cleanup.ts";
import { changedMeanwhile, existsAlready } from "./sql/mismatch.ts";
import { tableName } from "./sql/names.ts";
import { oncePerKey } from "./sql/once-per-key.ts";
import { type ListOptions, keyRange, pageOf } from "./sql/page-of.ts";
import { ttlErrorPrefix, ttlOf } from "./sql/ttl.ts";

export const type = "state.mysql";
export const versions = ["v1"];
export const capabilities = ["ETAG", "TRANSACTIONAL", "TTL", "KEYS_LIKE"];

export const metadataSchema = {
  connectionString: {
    kind: "string",
    description: "user:password@tcp(host:port)/?options",
    required: true,
    aliases: ["url"],
    secret: true,
  },
  schemaName: { kind: "string", description: "Database; created when absent.", default: "dapr_state_store" },
  tableName: { kind: "string", description: "Table of the values.", default: "state" },
  metadataTableName: {
    kind: "string",
    description: "Table of the store's own notes.",
    default: "dapr_metadata",
  },
  timeoutInSeconds: {
    kind: "duration",
    description: "Longest time of one operation.",
    default: "20s",
    aliases: ["timeout"],
  },
  pemPath: { kind: "string", description: "File with the certificates that tls=custom trusts." },
  cleanupInterval: { ...cleanupField, default: "1h" },
} as const satisfies MetadataSchema;

const maxKeyChars = 255;
const maxKeysAtOnce = 500;
const transactionAttempts = 5;
const deadlock = 1213;
const createdMeanwhile = new Set([1007, 1050, 1060, 1061]);

/** Creates database and tables that are missing. Rejects when the server cannot be reached or refuses. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<StateStore> {
  const { metadata, clock, log } = context;
  const database = tableName("schemaName", metadata.schemaName);
  const tables = {
    state: tableName("tableName", metadata.tableName),
    notes: tableName("metadataTableName", metadata.metadataTableName),
  };
  const { connectionString, pemPath, timeoutInSeconds: timeoutMs } = metadata;
  const connection = { connectionString, pemPath, timeoutMs, clock, log };
  if (!connectionString.includes("/"))
    throw new Error("connection string: write it as user:password@tcp(host:port)/");
  const server = await openMySql({ ...connection, database: "" });
  try {
    await server.run(`CREATE DATABASE IF NOT EXISTS ${database}`);
  } finally {
    await server.close();
  }
  const mysql = await openMySql({ ...connection, database });
  try {
    await migrate(mysql.run, tables);
  } catch (error) {
    await mysql.close();
    throw error;
  }
  return new MySqlStore(mysql, tables, context);
}

type Tables = { readonly state: string; readonly notes: string };

async function migrate(run: MySqlRun, { state, notes }: Tables): Promise<void> {
  const { rows } = await run("SELECT VERSION() AS version");
  const id = `id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE ${exactCollation(String(rows[0]?.["version"]))}`;
  await run(`CREATE TABLE IF NOT EXISTS ${notes} (${id} NOT NULL PRIMARY KEY, value TEXT NOT NULL)`);
  await run(`CREATE TABLE IF NOT EXISTS ${state} (
    ${id} NOT NULL PRIMARY KEY,
    value JSON NOT NULL,
    isbinary BOOLEAN NOT NULL,
    insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    eTag VARCHAR(36) NOT NULL,
    expiredate TIMESTAMP NULL,
    row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    INDEX expiredate_idx (expiredate),
    UNIQUE INDEX row_id_uidx (row_id))`);
  // Tables that older versions made lack them.
  const found = await run(
    "SELECT column_name AS name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?",
    [state],
  );
  const columns = new Set(found.rows.map(({ name }) => String(name).toLowerCase()));
  const add = async (column: string, text: string): Promise<void> => {
    if (!columns.has(column)) await run(`ALTER TABLE ${state} ${text}`).catch(unlessMeanwhile);
  };
  await add("expiredate", "ADD COLUMN expiredate TIMESTAMP NULL, ADD INDEX expiredate_idx (expiredate)");
  await add(
    "row_id",
    "ADD COLUMN row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, ADD UNIQUE INDEX row_id_uidx (row_id)",
  );
}

/** One in which no two different keys are equal; the server's usual one ignores case. */
function exactCollation(version: string): string {
  if (/mariadb/i.test(version)) return "utf8mb4_nopad_bin";
  return Number.parseInt(version, 10) >= 8 ? "utf8mb4_0900_bin" : "utf8mb4_bin";
}

function unlessMeanwhile(error: unknown): void {
  if (!createdMeanwhile.has((error as { errno?: number }).errno ?? 0)) throw error;
}

class MySqlStore implements StateStore {
  readonly rules = { ttlErrorPrefix, takesAnyOption: "deletes" } as const;
  readonly #mysql: MySql;
  readonly #tables: Tables;
  readonly #statements: ReturnType<typeof statementsOf>;
  readonly #cleanup;

  constructor(mysql: MySql, tables: Tables, context: ComponentContext<typeof metadataSchema>) {
    this.#mysql = mysql;
    this.#tables = tables;
    this.#statements = statementsOf(tables.state);
    const { cleanupInterval } = context.metadata;
    this.#cleanup = cleanEvery(cleanupInterval, tables.state, context, (intervalMs) =>
      this.#clean(intervalMs),
    );
  }

  async get(key: string, { signal }: StateReadOptions): Promise<StateRecord | undefined> {
    signal.throwIfAborted();
    const { rows } = await this.#mysql.run(this.#statements.get, [key]);
    // A table with the server's usual collation also finds keys in another case.
    return rows[0]?.["id"] === key ? recordOf(rows[0]) : undefined;
  }

  async getMany(keys: readonly string[], { signal }: StateReadOptions): Promise<(StateRecord | undefined)[]> {
    signal.throwIfAborted();
    const found = new Map<string, StateRecord>();
    for (let at = 0; at < keys.length; at += maxKeysAtOnce) {
      const { rows } = await this.#mysql.run(this.#statements.getMany, [keys.slice(at, at + maxKeysAtOnce)]);
      for (const row of rows) found.set(row["id"] as string, recordOf(row));
    }
    return keys.map((key) => found.get(key));
  }

  set(write: StateSet, signal: AbortSignal): Promise<void> {
    return this.#write(write, this.#mysql.run, signal);
  }

  delete(write: StateDelete, signal: AbortSignal): Promise<void> {
    return this.#write(write, this.#mysql.run, signal);
  }

  async transact(
    writes: readonly StateWrite[],
    _metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    // In one order everywhere, so that transactions seldom wait for each other.
    const once = oncePerKey(writes).sort((a, b) => (a.key < b.key ? -1 : 1));
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#mysql.transaction(async (run) => {
          for (const write of once) await this.#write(write, run, signal);
        });
      } catch (error) {
        // The server has undone it and asks to try again.
        if ((error as { errno?: number }).errno !== deadlock || attempt === transactionAttempts) throw error;
      }
    }
  }

  async list(prefix: string, { limit, after, signal }: ListOptions): Promise<StateKeyPage> {
    signal.throwIfAborted();
    const like = `${prefix.replace(/[!%_]/g, "!$&")}%`;
    const values = [like, keyRange(prefix, after).after ?? "", limit + 1];
    const { rows } = await this.#mysql.run(this.#statements.list, values);
    const { keys, next } = pageOf(
      rows.map((row) => row["id"] as string),
      limit,
    );
    // A table with the server's usual collation also finds keys in another case.
    const own = keys.filter((key) => key.startsWith(prefix));
    return next === undefined ? { keys: own } : { keys: own, next };
  }

  awaySinceMs(): number | undefined {
    return this.#mysql.awaySinceMs();
  }

  async close(): Promise<void> {
    this.#cleanup?.cancel();
    await this.#mysql.close();
  }

  async #write(write: StateWrite, run: MySqlRun, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { key, etag } = write;
    const { put, create, createOverExpired, replace, delete: remove, deleteGuarded } = this.#statements;
    if (write.kind === "delete") {
      if (etag === undefined) await run(remove, [key]);
      else if ((await run(deleteGuarded, [key, etag])).count === 0) throw changedMeanwhile(key);
      return;
    }
    // Servers that are not strict would cut it and write another key.
    if (key.length > maxKeyChars && [...key].length > maxKeyChars)
      throw new Error(
        `the key has ${[...key].length} characters, more than the ${maxKeyChars} that MySQL stores`,
      );
    const row = columnsOf(write);
    if (etag !== undefined) {
      if ((await run(replace, [...row, key, etag])).count === 0) throw changedMeanwhile(key);
    } else if (write.createOnly) {
      try {
        await run(create, [key, ...row]);
      } catch (error) {
        if ((error as { errno?: number }).errno !== duplicateEntry) throw error;
        if ((await run(createOverExpired, [...row, key])).count === 0) throw existsAlready(key);
      }
    } else await run(put, [key, ...row]);
  }

  /** One of several sidecars does it once per interval. */
  async #clean(intervalMs: number): Promise<void> {
    const { state, notes } = this.#tables;
    const seconds = Math.max(0, Math.trunc((intervalMs - 100) / 1000));
    const { count } = await this.#mysql.run(
      `UPDATE ${notes} SET value = CURRENT_TIMESTAMP
      WHERE id = 'last-cleanup' AND value <= CURRENT_TIMESTAMP - INTERVAL ? SECOND`,
      [seconds],
    );
    const first =
      count > 0 ||
      (await this.#mysql.run(`INSERT IGNORE INTO ${notes} VALUES ('last-cleanup', CURRENT_TIMESTAMP)`))
        .count > 0;
    if (first) await this.#mysql.run(`DELETE FROM ${state} WHERE expiredate <= CURRENT_TIMESTAMP`);
  }
}

function statementsOf(table: string) {
  const alive = "(expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)";
  // One second more: times are whole seconds, and a record must not end early.
  const expires = "CURRENT_TIMESTAMP + INTERVAL (? + 1) SECOND";
  const select = `SELECT id, CAST(value AS CHAR CHARACTER SET utf8mb4) AS value, isbinary, eTag AS etag,
    UNIX_TIMESTAMP(expiredate) AS expires FROM ${table}`;
  const insert = `INSERT INTO ${table} (id, value, isbinary, eTag, expiredate) VALUES (?, ?, ?, ?, ${expires})`;
  const columns = ["value", "isbinary", "eTag", "expiredate"];
  const update = `UPDATE ${table} SET value = ?, isbinary = ?, eTag = ?, expiredate = ${expires} WHERE id = ?`;
  return {
    get: `${select} WHERE id = ? AND ${alive}`,
    getMany: `${select} WHERE id IN (?) AND ${alive}`,
    list: `SELECT id FROM ${table} WHERE id LIKE ? ESCAPE '!' AND id > ? AND ${alive} ORDER BY id LIMIT ?`,
    create: insert,
    put: `${insert} ON DUPLICATE KEY UPDATE ${columns.map((name) => `${name} = VALUES(${name})`).join(", ")}`,
    createOverExpired: `${update} AND expiredate <= CURRENT_TIMESTAMP`,
    replace: `${update} AND eTag = ? AND ${alive}`,
    delete: `DELETE FROM ${table} WHERE id = ?`,
    deleteGuarded: `DELETE FROM ${table} WHERE id = ? AND eTag = ? AND ${alive}`,
  } as const;
}

/** value, isbinary, eTag, seconds to live. */
function columnsOf(write: StateSet): MySqlValue[] {
  const bytes = Buffer.from(write.value.buffer, write.value.byteOffset, write.value.byteLength);
  const value = write.json ? bytes.toString() : `"${bytes.toString("base64")}"`;
  return [value, write.json ? 0 : 1, randomUUID(), ttlOf(write) ?? null];
}

function recordOf({ value, isbinary, etag, expires }: Record<string, unknown>): StateRecord {
  const text = value as string;
  const bytes = Number(isbinary) === 0 ? Buffer.from(text) : Buffer.from(text.slice(1, -1), "base64");
  const record = { value: bytes, etag: etag as string };
  return expires === null ? record : { ...record, expiresAtMs: Number(expires) * 1000 };
}
