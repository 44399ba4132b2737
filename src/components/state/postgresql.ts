/**
 * State in PostgreSQL. Version v1 keeps values as jsonb and can be queried, v2 keeps bytes; tables are those of
 * Dapr's components, so data can change hands in both directions.
 */
import {
  NotCreated,
  aboutKey,
  type StateDelete,
  type StateKeyPage,
  type StateQuery,
  type StateQueryRow,
  type StateReadOptions,
  type StateRecord,
  type StateSet,
  type StateStore,
  type StateWrite,
} from "../../blocks/state/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { type Postgres, type Run, connectPostgres, postgresFields } from "../connect/postgres.ts";
import { cleanEvery, cleanupField } from "./sql/cleanup.ts";
import { changedMeanwhile } from "./sql/mismatch.ts";
import { oncePerKey } from "./sql/once-per-key.ts";
import { type ListOptions, keyRange, pageOf } from "./sql/page-of.ts";
import type { PostgresLayout } from "./sql/postgres-layout.ts";
import { queryStatement } from "./sql/postgres-query.ts";
import { postgresV1 } from "./sql/postgres-v1.ts";
import { postgresV2 } from "./sql/postgres-v2.ts";
import { ttlErrorPrefix, ttlOf } from "./sql/ttl.ts";

export const type = "state.postgresql";
export const aliases = ["state.postgres"];
export const versions = ["v1", "v2"];
export const capabilities = ["ETAG", "TRANSACTIONAL", "TTL", "KEYS_LIKE"];

export const metadataSchema = {
  ...postgresFields,
  tableName: { kind: "string", description: "v1: table of the values, or schema.table.", default: "state" },
  tablePrefix: { kind: "string", description: "v2: text before the table name `state`.", default: "" },
  metadataTableName: {
    kind: "string",
    description: "Table of the store's own notes.",
    default: "dapr_metadata",
  },
  cleanupInterval: { ...cleanupField, default: "1h" },
} as const satisfies MetadataSchema;

const migrationAttempts = 5;
/** What two sidecars that create the same tables at once may get. */
const createdMeanwhile = new Set(["23505", "42P07", "42701", "42710", "40P01"]);

const undefinedColumn = "42703";

/** Creates missing tables. Rejects when the server cannot be reached or refuses. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<StateStore> {
  const { metadata, version } = context;
  const layout =
    version === "v2"
      ? postgresV2(metadata.tablePrefix, metadata.metadataTableName)
      : postgresV1(metadata.tableName, metadata.metadataTableName);
  const postgres = await connectPostgres(metadata, context);
  try {
    await migrate(postgres, layout);
  } catch (error) {
    await postgres.close();
    throw error;
  }
  return new PostgresStore(postgres, layout, context);
}

async function migrate(postgres: Postgres, layout: PostgresLayout): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await postgres.transaction(layout.migrate);
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === undefinedColumn) throw foreignTable(layout, error);
      if (attempt === migrationAttempts || code === undefined || !createdMeanwhile.has(code)) throw error;
    }
  }
}

function foreignTable({ table }: PostgresLayout, cause: unknown): Error {
  return new Error(
    `table ${table} has other columns than this version of the component needs; is it one of the other version? ` +
      "choose another table with metadata tableName (v1) or tablePrefix (v2)",
    { cause },
  );
}

class PostgresStore implements StateStore {
  readonly rules = { ttlErrorPrefix, takesAnyOption: "deletes" } as const;
  readonly capabilities: readonly string[];
  readonly query?: NonNullable<StateStore["query"]>;
  readonly #postgres: Postgres;
  readonly #layout: PostgresLayout;
  readonly #cleanup;

  constructor(postgres: Postgres, layout: PostgresLayout, context: ComponentContext<typeof metadataSchema>) {
    this.capabilities = layout.capabilities;
    this.#postgres = postgres;
    this.#layout = layout;
    if (layout.capabilities.includes("QUERY_API")) this.query = (query) => this.#query(query);
    const { cleanupInterval } = context.metadata;
    this.#cleanup = cleanEvery(cleanupInterval, layout.table, context, (intervalMs) =>
      this.#clean(intervalMs),
    );
  }

  async get(key: string, { signal }: StateReadOptions): Promise<StateRecord | undefined> {
    signal.throwIfAborted();
    const { rows } = await this.#postgres.run(this.#layout.statements.get, [key]);
    return rows[0] === undefined ? undefined : this.#layout.record(rows[0]);
  }

  async getMany(keys: readonly string[], { signal }: StateReadOptions): Promise<(StateRecord | undefined)[]> {
    signal.throwIfAborted();
    if (keys.length === 0) return [];
    const { rows } = await this.#postgres.run(this.#layout.statements.getMany, [keys]);
    const found = new Map(rows.map((row) => [row["key"] as string, this.#layout.record(row)]));
    return keys.map((key) => found.get(key));
  }

  set(write: StateSet, signal: AbortSignal): Promise<void> {
    return this.#write(write, this.#postgres.run, signal);
  }

  delete(write: StateDelete, signal: AbortSignal): Promise<void> {
    return this.#write(write, this.#postgres.run, signal);
  }

  async transact(
    writes: readonly StateWrite[],
    _metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    // In one order everywhere, so that no two transactions wait for each other.
    const once = oncePerKey(writes).sort((a, b) => (a.key < b.key ? -1 : 1));
    await this.#postgres.transaction(async (run) => {
      for (const write of once)
        await this.#write(write, run, signal).catch((error: unknown) =>
          Promise.reject(aboutKey(error, write.key)),
        );
    });
  }

  async list(prefix: string, { limit, after, signal }: ListOptions): Promise<StateKeyPage> {
    signal.throwIfAborted();
    const range = keyRange(prefix, after);
    const values = [range.from, range.to, range.after ?? "", limit + 1];
    const { rows } = await this.#postgres.run(this.#layout.statements.list, values);
    return pageOf(
      rows.map((row) => row["key"] as string),
      limit,
    );
  }

  awaySinceMs(): number | undefined {
    return this.#postgres.awaySinceMs();
  }

  async close(): Promise<void> {
    this.#cleanup?.cancel();
    await this.#postgres.close();
  }

  async #query(query: StateQuery): Promise<StateQueryRow[]> {
    const { statement, values } = queryStatement(this.#layout.table, query);
    const { rows } = await this.#postgres.run(statement, values);
    return rows.map(({ key, value, etag }) => {
      return { key: key as string, value: Buffer.from(value as string), etag: etag as string };
    });
  }

  async #write(write: StateWrite, run: Run, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { statements, columns, etagParameter } = this.#layout;
    const { key, etag } = write;
    if (write.kind === "delete") {
      if (etag === undefined) await run(statements.delete, [key]);
      else if ((await run(statements.deleteGuarded, [key, etagParameter(etag)])).count === 0)
        throw changedMeanwhile(key);
      return;
    }
    const values = [key, ...columns(write), ttlOf(write) ?? null];
    if (etag !== undefined) {
      if ((await run(statements.replace, [...values, etagParameter(etag)])).count === 0)
        throw changedMeanwhile(key);
    } else if (write.createOnly) {
      if ((await run(statements.create, values)).count === 0) throw new NotCreated("no item was updated");
    } else await run(statements.put, values);
  }

  /** One of several sidecars does it once per interval. */
  #clean(intervalMs: number): Promise<void> {
    const { turn, clean } = this.#layout.statements;
    return this.#postgres.transaction(async (run) => {
      const { count } = await run(turn, [Math.max(0, Math.trunc(intervalMs - 100))]);
      if (count > 0) await run(clean);
    });
  }
}
