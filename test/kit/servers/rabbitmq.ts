/** A real RabbitMQ broker of one node, with a name of its own so that several run side by side. */
import { writeFileSync } from "node:fs";
import { freePort } from "../ports.ts";
import { type Server, asUser, askSocket, findProgram, startServer } from "./server.ts";

const variable = "WEFT_TEST_RABBITMQ";
const uid = 65_534;

/** Resolves when it speaks AMQP. User and password are guest. */
export function startRabbit(): Promise<Server> {
  return startServer({
    name: "rabbitmq",
    variable,
    readyTimeoutMs: 120_000,
    async prepare(folder, port) {
      const settings = folder.join("rabbitmq.conf");
      writeFileSync(
        settings,
        `listeners.tcp.default = 127.0.0.1:${port}\nlog.console = true\nlog.file = false\n`,
        {
          mode: 0o644,
        },
      );
      const env = {
        HOME: folder.path,
        RABBITMQ_NODENAME: `weft${port}@localhost`,
        RABBITMQ_CONFIG_FILE: settings,
        RABBITMQ_MNESIA_BASE: folder.join("data"),
        RABBITMQ_LOG_BASE: folder.join("log"),
        RABBITMQ_ENABLED_PLUGINS_FILE: folder.join("plugins"),
        RABBITMQ_DIST_PORT: String(await freePort()),
        RABBITMQ_SERVER_START_ARGS: "-start_epmd false -erl_epmd_port 0",
        // Else a shell stays between us and the broker, and the end of the one leaves the other running.
        RUNNING_UNDER_SYSTEMD: "true",
      };
      writeFileSync(folder.join("plugins"), "[].\n", { mode: 0o644 });
      // The packaged command would change to a system user; the one below it does not.
      const command = findProgram("rabbitmq-server", "rabbitmq-server", variable, ["/usr/lib/rabbitmq/bin"]);
      const real = command.replace(/^\/usr\/sbin\//, "/usr/lib/rabbitmq/bin/");
      const words = Object.entries(env).map(([name, value]) => `${name}=${value}`);
      return asUser(uid, folder.path, { command: "env", args: [...words, real] });
    },
    ready: async (host, port) => (await askSocket(host, port, "AMQP\x00\x00\x09\x01")).includes("RabbitMQ"),
  });
}
