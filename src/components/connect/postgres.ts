/**
 * A pool of connections to PostgreSQL with bounded waits. Broken connections are replaced with the next call, so a
 * component comes back by itself after an outage.
 */
import type { Client, CustomTypesConfig, Pool, PoolClient, PoolConfig } from "pg";
import type { ComponentContext, MetadataSchema, MetadataValues } from "../component.ts";
import { jsonTypes } from "./postgres-json.ts";
import { type Listening, listenOn } from "./postgres-listen.ts";
import { createReach } from "./reach.ts";
import { type PostgresConnection, readPostgresConnection } from "./postgres-connection.ts";

/** Metadata of all components that connect to PostgreSQL. */
export const postgresFields = {
  connectionString: {
    kind: "string",
    description: "postgres:// URL or words like host=... user=... password=... database=...",
    aliases: ["url"],
    secret: true,
  },
  host: { kind: "string", description: "Wins over the connection string." },
  hostaddr: { kind: "string", description: "IP address; wins over host." },
  port: { kind: "string", description: "Wins over the connection string." },
  database: { kind: "string", description: "Wins over the connection string." },
  user: { kind: "string", description: "Wins over the connection string.", secret: true },
  password: { kind: "string", description: "Wins over the connection string.", secret: true },
  sslRootCert: { kind: "string", description: "File with the certificates to trust." },
  timeout: {
    kind: "duration",
    description: "Longest time of one operation, at least 1s.",
    default: "20s",
    aliases: ["timeoutInSeconds"],
  },
  connectionMaxIdleTime: {
    kind: "duration",
    description: "How long an unused connection stays open; 0 = 30 minutes.",
    default: "0s",
  },
  maxConns: { kind: "integer", description: "Most connections; 0 and less = 8.", default: "0" },
  queryExecMode: {
    kind: "string",
    description: "exec, simple_protocol: no prepared statements, for poolers that keep none.",
  },
  useAzureAD: { kind: "boolean", description: "Not supported.", default: "false" },
  useAWSIAM: { kind: "boolean", description: "Not supported.", default: "false" },
} as const satisfies MetadataSchema;

export type PostgresMetadata = MetadataValues<typeof postgresFields>;

/**
 * One statement; `name` lets the server keep its plan, empty = no name. `asLists`: rows are lists of their values, in
 * the form of JSON.
 */
export type Statement = { readonly name: string; readonly text: string; readonly asLists?: true };
export type Rows = { readonly rows: Record<string, unknown>[]; readonly count: number };
export type Run = (statement: Statement, values?: readonly unknown[]) => Promise<Rows>;

export type Postgres = {
  readonly run: Run;
  /** All statements of `work` or none. A connection of its own. */
  transaction<T>(work: (run: Run) => Promise<T>): Promise<T>;
  /** Notifications of a channel (an SQL name), on a connection of their own; see postgres-listen.ts. */
  listen(channel: string, onPayload: (payload: string) => void): Promise<Listening>;
  /** Unix ms since when it does not answer; undefined while it does. */
  awaySinceMs(): number | undefined;
  close(): Promise<void>;
};

type Surroundings = Pick<ComponentContext, "clock" | "log">;

const defaultConnections = 8;
const defaultIdleMs = 30 * 60_000;

/** Connects once, to see that it works. Rejects with the server's reason. */
export async function connectPostgres(
  metadata: PostgresMetadata,
  { clock, log }: Surroundings,
): Promise<Postgres> {
  if (metadata.useAzureAD || metadata.useAWSIAM)
    throw new Error('metadata fields "useAzureAD" and "useAWSIAM" are not supported; use a password');
  if (metadata.timeout < 1_000) throw new Error('metadata field "timeout" must be at least 1s');
  const { host, hostaddr, port, database, user, password, sslRootCert } = metadata;
  const overrides = { host, hostaddr, port, database, user, password, sslRootCert };
  const text = metadata.connectionString ?? "";
  if (text === "" && host === undefined && hostaddr === undefined)
    throw new Error("missing connection string");
  const connection = readPostgresConnection(text === "" ? "application_name=weft" : text, overrides);
  const { default: pg } = await import("pg");
  const open = (ssl: PoolConfig["ssl"]): Pool => {
    const pool = new pg.Pool(poolConfig(connection, metadata, ssl));
    // An unused connection that breaks is no failure of any call.
    pool.on("error", (error) => log.debug(`postgres: a connection ended: ${error.message}`));
    return pool;
  };
  const pool = await firstThatWorks(connection, open);
  const prepared = metadata.queryExecMode === undefined || !/exec|simple/.test(metadata.queryExecMode);
  return wrap(
    pool,
    { prepared, types: jsonTypes(pg.types), makeClient: () => new pg.Client(pool.options) },
    { clock, log },
  );
}

function poolConfig(
  connection: PostgresConnection,
  { timeout, maxConns, connectionMaxIdleTime }: PostgresMetadata,
  ssl: PoolConfig["ssl"],
): PoolConfig {
  const { connectTimeoutMs, poolMax, ssl: _, ...target } = connection;
  return {
    ...target,
    ...(ssl === undefined ? {} : { ssl }),
    max: (maxConns > 0 ? maxConns : poolMax) || defaultConnections,
    idleTimeoutMillis: connectionMaxIdleTime > 0 ? connectionMaxIdleTime : defaultIdleMs,
    connectionTimeoutMillis: Math.min(connectTimeoutMs ?? timeout, timeout),
    query_timeout: timeout,
    keepAlive: true,
    allowExitOnIdle: true,
  };
}

async function firstThatWorks(
  { ssl }: PostgresConnection,
  open: (ssl: PoolConfig["ssl"]) => Pool,
): Promise<Pool> {
  const attempts = ssl === "prefer" ? [{ rejectUnauthorized: false }, false] : [ssl];
  for (let index = 0; ; index++) {
    const pool = open(attempts[index]);
    try {
      await pool.query("SELECT 1");
      return pool;
    } catch (error) {
      await pool.end();
      const plainNext = index + 1 < attempts.length && /does not support SSL/.test(String(error));
      if (!plainNext) throw error;
    }
  }
}

type Ways = {
  readonly prepared: boolean;
  /** Of statements `asLists`. */
  readonly types: CustomTypesConfig;
  readonly makeClient: () => Client;
};

function wrap(pool: Pool, { prepared, types, makeClient }: Ways, { clock, log }: Surroundings): Postgres {
  const probe = (): Promise<unknown> => reach.watch(pool.query("SELECT 1"));
  const reach = createReach("postgresql", { clock, log }, probe);
  // One that breaks unused may be the first sign of an outage.
  pool.on("error", () => void probe().catch(() => {}));
  const runOn =
    (client: Pool | PoolClient): Run =>
    async ({ name, text, asLists }, values = []) => {
      const query = {
        text,
        values: [...values],
        ...(prepared && name !== "" ? { name } : {}),
        ...(asLists === true ? { rowMode: "array", types } : {}),
      };
      const { rows, rowCount } = await client.query(query);
      return { rows: rows as Record<string, unknown>[], count: rowCount ?? 0 };
    };
  const transaction = async <T>(work: (run: Run) => Promise<T>): Promise<T> => {
    const client = await pool.connect();
    // Else the end of the connection between two statements would end the process.
    const ignore = (): void => {};
    client.on("error", ignore);
    let failure: Error | undefined;
    try {
      await client.query("BEGIN");
      const result = await work(runOn(client));
      await client.query("COMMIT");
      return result;
    } catch (error) {
      await client.query("ROLLBACK").catch((broken: Error) => (failure = broken));
      throw error;
    } finally {
      client.off("error", ignore);
      client.release(failure);
    }
  };
  const run = runOn(pool);
  return {
    run: (statement, values) => reach.watch(run(statement, values)),
    transaction: (work) => reach.watch(transaction(work)),
    listen: (channel, onPayload) => listenOn({ makeClient, channel, onPayload, clock, log }),
    awaySinceMs: () => reach.awaySinceMs(),
    close() {
      reach.close();
      return pool.end();
    },
  };
}
