/** What the two layouts of state in PostgreSQL (component versions v1 and v2) have to say about themselves. */
import type { StateRecord, StateSet } from "../../../blocks/state/port.ts";
import type { Run, Statement } from "../../connect/postgres.ts";

export type PostgresLayout = {
  readonly capabilities: readonly string[];
  /** Of the values, as in statements. */
  readonly table: string;
  /** Creates what is missing, inside a transaction. */
  migrate(run: Run): Promise<void>;
  /**
   * Parameters: get, delete `key`; getMany `keys`; list `from, to, after,
   * limit`; put, create `key, ...columns, ttl`; replace the same and `etag`;
   * deleteGuarded `key, etag`; turn `interval in ms`, which touches a row when it is time to clean.
   */
  readonly statements: Readonly<
    Record<
      | "get"
      | "getMany"
      | "list"
      | "put"
      | "create"
      | "replace"
      | "delete"
      | "deleteGuarded"
      | "turn"
      | "clean",
      Statement
    >
  >;
  /** What stands between key and time to live. */
  columns(write: StateSet): unknown[];
  record(row: Record<string, unknown>): StateRecord;
  /** The ETag as a parameter. Throws EtagInvalid or EtagMismatch for text that is none. */
  etagParameter(etag: string): string;
};

/** The name without its schema, for indexes, which live in the schema of their table. */
export function bareName(table: string): string {
  return table.slice(table.indexOf(".") + 1);
}

/** Keys of records that are alive, in the order of their bytes, whatever the database's own order is. */
export function listStatement(name: string, table: string, alive: string): Statement {
  const key = `key COLLATE "C"`;
  const range = `${key} >= $1 AND ${key} < $2 AND ${key} > $3`;
  return { name, text: `SELECT key FROM ${table} WHERE ${range} AND ${alive} ORDER BY ${key} LIMIT $4` };
}

/** A table of the store's own notes: `key text`, `value text`. */
export async function createNotes(run: Run, table: string): Promise<void> {
  await run({
    name: "",
    text: `CREATE TABLE IF NOT EXISTS ${table} (key text NOT NULL PRIMARY KEY, value text NOT NULL)`,
  });
}

/** Takes its turn to clean by touching a note that is older than $1 ms. */
export function turnStatement(name: string, table: string, note: string): Statement {
  return {
    name,
    text: `INSERT INTO ${table} AS notes (key, value) VALUES ('${note}', CURRENT_TIMESTAMP::text)
      ON CONFLICT (key) DO UPDATE SET value = CURRENT_TIMESTAMP::text
      WHERE CURRENT_TIMESTAMP - notes.value::timestamptz > $1::bigint * interval '1 millisecond'`,
  };
}
