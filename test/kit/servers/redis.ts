/** A real redis-server that writes every command to disk before it answers. */
import { writeFile } from "node:fs/promises";
import { type Server, askSocket, findProgram, startServer } from "./server.ts";

const variable = "WEFT_TEST_REDIS";

/** Resolves when it answers PING, if only for a password. `more` are further settings, e.g. `cluster-enabled`. */
export function startRedis(more: Readonly<Record<string, string>> = {}): Promise<Server> {
  return startServer({
    name: "redis",
    variable,
    async prepare(folder, port) {
      const options = {
        port,
        bind: "127.0.0.1",
        dir: folder.path,
        appendonly: "yes",
        appendfsync: "always",
        save: "",
        ...more,
      };
      return {
        command: findProgram("redis-server", "redis-server", variable),
        args: Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]),
      };
    },
    ready: async (host, port) =>
      /^(\+PONG|-NOAUTH)/.test((await askSocket(host, port, "PING\r\n")).toString()),
  });
}

/** A sentinel that watches one server under the name `mymaster`. */
export function startSentinel(watched: Server): Promise<Server> {
  return startServer({
    name: "sentinel",
    variable: "WEFT_TEST_SENTINEL",
    async prepare(folder, port) {
      const file = folder.join("sentinel.conf");
      const lines = [
        `port ${port}`,
        "bind 127.0.0.1",
        `dir ${folder.path}`,
        `sentinel monitor mymaster ${watched.host} ${watched.port} 1`,
        "sentinel down-after-milliseconds mymaster 2000",
      ];
      await writeFile(file, `${lines.join("\n")}\n`);
      return { command: findProgram("redis-server", "redis-server", variable), args: [file, "--sentinel"] };
    },
    ready: async (host, port) => (await askSocket(host, port, "PING\r\n")).toString().startsWith("+PONG"),
  });
}
