/**
 * A pool of connections to MySQL or MariaDB with bounded waits, from a connection string as Go programs write it.
 * Broken connections are replaced with the next call.
 */
import { readFileSync } from "node:fs";
import type { Pool, PoolConnection, PoolOptions, ResultSetHeader } from "mysql2/promise";
import type { Clock } from "../../../mesh/index.ts";
import type { Log } from "../../telemetry/log.ts";
import { withDeadline } from "./deadline.ts";
import { createReach } from "./reach.ts";

export type MySqlValue = string | number | null;
/** Rows of a SELECT; number of rows that a write matched. */
export type MySqlResult = { readonly rows: Record<string, unknown>[]; readonly count: number };
export type MySqlRun = (
  text: string,
  values?: readonly (MySqlValue | readonly string[])[],
) => Promise<MySqlResult>;

export type MySql = {
  /** A list among the values stands for its items, by commas. */
  readonly run: MySqlRun;
  /** All statements of `work` or none, on a connection of its own. */
  transaction<T>(work: (run: MySqlRun) => Promise<T>): Promise<T>;
  /** Unix ms since when it does not answer; undefined while it does. */
  awaySinceMs(): number | undefined;
  close(): Promise<void>;
};

export type MySqlInit = {
  /** `user:password@tcp(host:port)/database?tls=true`. */
  readonly connectionString: string;
  /** Wins over the database of the connection string. */
  readonly database?: string;
  /** File of the certificates that `tls=custom` trusts. */
  readonly pemPath?: string | undefined;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

const connections = 8;
const maxWaiting = 10_000;
/** Number of the error that says that a unique key is there already. */
export const duplicateEntry = 1062;

/** Does not connect yet: the first call does. Throws for a connection string that cannot be read. */
export async function openMySql(init: MySqlInit): Promise<MySql> {
  const options = poolOptions(init);
  const { createPool } = await import("mysql2/promise");
  const pool = createPool(options);
  return wrap(pool, init);
}

function poolOptions({ connectionString, database, pemPath, timeoutMs }: MySqlInit): PoolOptions {
  const match =
    /^(?:(?<login>.*)@)?(?:(?<net>[^@()/]*)(?:\((?<address>.*)\))?)?\/(?<name>[^?]*)(?:\?(?<query>.*))?$/s.exec(
      connectionString,
    );
  if (match?.groups === undefined)
    throw new Error("connection string: write it as user:password@tcp(host:port)/?options");
  const { login = "", net = "", address = "", name = "", query = "" } = match.groups;
  const colon = login.indexOf(":");
  const [user, password] = colon < 0 ? [login, ""] : [login.slice(0, colon), login.slice(colon + 1)];
  const chosen = database ?? decodeURIComponent(name);
  return {
    ...target(net, address),
    user,
    password,
    ...(chosen === "" ? {} : { database: chosen }),
    ...tlsOf(new URLSearchParams(query).get("tls"), pemPath),
    charset: "utf8mb4",
    connectionLimit: connections,
    queueLimit: maxWaiting,
    connectTimeout: Math.min(timeoutMs, 10_000),
    supportBigNumbers: true,
    enableKeepAlive: true,
  };
}

function target(net: string, address: string): PoolOptions {
  if (net === "unix") return { socketPath: address };
  if (net !== "" && net !== "tcp")
    throw new Error(`connection string: network '${net}' is neither tcp nor unix`);
  const match = /^(\[[^\]]+\]|[^:]*)(?::(\d+))?$/.exec(address);
  if (match === null) throw new Error("connection string: the address in tcp(...) is not host:port");
  const host = match[1]!.replace(/^\[|\]$/g, "");
  return { host: host === "" ? "127.0.0.1" : host, port: Number(match[2] ?? 3306) };
}

function tlsOf(mode: string | null, pemPath: string | undefined): Pick<PoolOptions, "ssl"> | object {
  switch (mode) {
    case null:
    case "false":
    case "preferred":
      return {};
    case "true":
      return { ssl: {} };
    case "skip-verify":
      return { ssl: { rejectUnauthorized: false } };
    case "custom":
      if (pemPath === undefined) throw new Error('tls=custom needs the metadata field "pemPath"');
      return { ssl: { ca: readFileSync(pemPath, "utf8") } };
    default:
      throw new Error(`connection string: tls=${mode} is not known`);
  }
}

function wrap(pool: Pool, init: MySqlInit): MySql {
  const { timeoutMs, clock } = init;
  const reach = createReach("mysql", init, () => run("SELECT 1"));
  const bounded = <T>(work: Promise<T>, what: string): Promise<T> =>
    withDeadline(work, what, timeoutMs, clock);
  /** The connection of a call that ended in doubt is not used again. */
  const onConnection = async <T>(work: (run: MySqlRun) => Promise<T>): Promise<T> => {
    const asked = pool.getConnection();
    const connection = await bounded(asked, "a connection to MySQL").catch((error: unknown) => {
      void asked.then(
        (late) => late.release(),
        () => {},
      );
      throw error;
    });
    let sound = false;
    try {
      const result = await work(async (text, values = []) => {
        sound = false;
        const [answer] = await bounded(execute(connection, text, values), "MySQL").catch((error: unknown) => {
          // What the server refuses leaves the connection as it was.
          sound = typeof (error as { sqlState?: unknown }).sqlState === "string";
          throw error;
        });
        sound = true;
        if (Array.isArray(answer)) return { rows: answer as Record<string, unknown>[], count: answer.length };
        return { rows: [], count: (answer as ResultSetHeader).affectedRows };
      });
      return result;
    } finally {
      if (sound) connection.release();
      else connection.destroy();
    }
  };
  const withConnection: typeof onConnection = (work) => reach.watch(onConnection(work));
  const run: MySqlRun = (text, values) => withConnection((runThere) => runThere(text, values));
  return {
    run,
    transaction: (work) =>
      withConnection(async (runThere) => {
        await runThere("START TRANSACTION");
        try {
          const result = await work(runThere);
          await runThere("COMMIT");
          return result;
        } catch (error) {
          await runThere("ROLLBACK").catch(() => {});
          throw error;
        }
      }),
    awaySinceMs: () => reach.awaySinceMs(),
    close() {
      reach.close();
      return pool.end();
    },
  };
}

/** Prepared, unless a list must be spelled out or the statement is one that cannot be prepared. */
function execute(
  connection: PoolConnection,
  text: string,
  values: readonly (MySqlValue | readonly string[])[],
): Promise<[unknown, unknown]> {
  const plain = values.length === 0 || values.some((value) => Array.isArray(value));
  if (plain) return connection.query(text, [...values]);
  return connection.execute(text, values as MySqlValue[]);
}
