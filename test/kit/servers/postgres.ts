/** A real PostgreSQL server; user `postgres`, database `postgres`, no password. */
import { globSync } from "node:fs";
import pg from "pg";
import { type Server, asUser, findProgram, runProgram, startServer } from "./server.ts";

const variable = "WEFT_TEST_POSTGRES";
/** `nobody`: the server refuses to run as root. */
const uid = 65_534;

export type Postgres = Server & {
  /** As a component's `connectionString`. */
  readonly url: string;
  /** Runs one statement on a connection of its own. */
  query(text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>;
};

/** Resolves when it takes clients. */
export async function startPostgres(): Promise<Postgres> {
  const server = await startServer({
    name: "postgres",
    variable,
    async prepare(folder, port) {
      const find = (name: string): string =>
        findProgram(name, "postgresql", variable, globSync("/usr/lib/postgresql/*/bin"));
      const data = folder.join("data");
      const init = [
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-sync",
        "--no-instructions",
        "-E",
        "UTF8",
      ];
      const locale = ["--locale", "C.UTF-8"];
      const program = { command: find("initdb"), args: [...init, ...locale] };
      await runProgram("initdb", asUser(uid, folder.path, program));
      // A killed process loses nothing without fsync; only a killed machine would.
      const settings = ["fsync=off", "unix_socket_directories=", "shared_buffers=16MB", "max_connections=60"];
      const args = [
        "-D",
        data,
        "-h",
        "127.0.0.1",
        "-p",
        String(port),
        ...settings.flatMap((it) => ["-c", it]),
      ];
      return asUser(uid, folder.path, { command: find("postgres"), args });
    },
    async ready(host, port) {
      await query(urlOf(host, port), "SELECT 1");
      return true;
    },
  });
  const url = urlOf(server.host, server.port);
  return Object.assign(server, {
    url,
    query: (text: string, values?: readonly unknown[]) => query(url, text, values),
  });
}

function urlOf(host: string, port: number): string {
  return `postgres://postgres@${host}:${port}/postgres`;
}

async function query(
  url: string,
  text: string,
  values: readonly unknown[] = [],
): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 5_000,
    query_timeout: 10_000,
  });
  // The server may end the connection at any time, which is no error of the test.
  client.on("error", () => {});
  try {
    await client.connect();
    return (await client.query<Record<string, unknown>>(text, [...values])).rows;
  } finally {
    await client.end().catch(() => {});
  }
}
