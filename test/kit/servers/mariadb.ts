/** A real MariaDB server, which speaks the protocol of MySQL; user `root`, no password. */
import { createConnection } from "mysql2/promise";
import { type Server, asUser, findProgram, runProgram, startServer } from "./server.ts";

const variable = "WEFT_TEST_MARIADB";
const uid = 65_534;

export type MariaDb = Server & {
  /** Runs one statement on a connection of its own. */
  query(text: string, values?: readonly (string | number | null)[]): Promise<Record<string, unknown>[]>;
};

/** Resolves when it takes clients. */
export async function startMariaDb(): Promise<MariaDb> {
  const server = await startServer({
    name: "mariadb",
    variable,
    async prepare(folder, port) {
      const find = (name: string): string => findProgram(name, "mariadb-server", variable);
      const data = `--datadir=${folder.join("data")}`;
      const auth = ["--auth-root-authentication-method=normal", "--skip-test-db"];
      const init = { command: find("mariadb-install-db"), args: ["--no-defaults", data, ...auth] };
      await runProgram("mariadb-install-db", asUser(uid, folder.path, init));
      const args = [
        "--no-defaults",
        data,
        `--port=${port}`,
        "--bind-address=127.0.0.1",
        `--socket=${folder.join("socket")}`,
        `--pid-file=${folder.join("pid")}`,
        "--skip-name-resolve",
        "--innodb-buffer-pool-size=16M",
        "--innodb-flush-log-at-trx-commit=2",
      ];
      return asUser(uid, folder.path, { command: find("mariadbd"), args });
    },
    async ready(host, port) {
      await query(host, port, "SELECT 1");
      return true;
    },
  });
  const { host, port } = server;
  return Object.assign(server, {
    query: (text: string, values?: readonly (string | number | null)[]) => query(host, port, text, values),
  });
}

async function query(
  host: string,
  port: number,
  text: string,
  values: readonly (string | number | null)[] = [],
): Promise<Record<string, unknown>[]> {
  const connection = await createConnection({ host, port, user: "root", connectTimeout: 5_000 });
  try {
    const [rows] = await connection.execute(text, [...values]);
    return Array.isArray(rows) ? (rows as Record<string, unknown>[]) : [];
  } finally {
    connection.destroy();
  }
}
