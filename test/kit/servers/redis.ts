/** A real redis-server that writes every command to disk before it answers. */
import { type Server, askSocket, findProgram, startServer } from "./server.ts";

const variable = "WEFT_TEST_REDIS";

/** Resolves when it answers PING. */
export function startRedis(): Promise<Server> {
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
      };
      return {
        command: findProgram("redis-server", "redis-server", variable),
        args: Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]),
      };
    },
    ready: async (host, port) => (await askSocket(host, port, "PING\r\n")).toString().startsWith("+PONG"),
  });
}
