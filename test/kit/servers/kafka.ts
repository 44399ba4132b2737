/** A real Kafka broker of one node without ZooKeeper, which is its own controller. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkout } from "../paths.ts";
import { freePort } from "../ports.ts";
import { javaProgram } from "../toolchains.ts";
import { type Server, askSocket, startServer } from "./server.ts";

const variable = "WEFT_TEST_KAFKA";

/** Resolves when it takes clients. Topics are created when they are first named, with four partitions. */
export function startKafka(): Promise<Server> {
  return startServer({
    name: "kafka",
    variable,
    readyTimeoutMs: 120_000,
    async prepare(folder, port) {
      const [command, ...args] = await javaProgram("Broker", {
        source: join(checkout, "test/kit/servers/kafka"),
        target: join(checkout, ".cache/kit/kafka"),
      });
      const settings = folder.join("broker.properties");
      writeFileSync(settings, properties(port, await freePort(), folder.join("data")));
      return { command, args: ["-Xmx256m", ...args, settings, "d2VmdC10ZXN0LWthZmthMQ"] };
    },
    // An ApiVersions request, version 0: whoever answers it is a broker.
    ready: async (host, port) => {
      const request = Buffer.from("0000000f00120000000000010005776566742d".slice(0, 38), "hex");
      return (await askSocket(host, port, request.toString("latin1"))).length > 0;
    },
  });
}

function properties(port: number, controllerPort: number, folder: string): string {
  const settings = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.voters": `1@127.0.0.1:${controllerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    "advertised.listeners": `PLAINTEXT://127.0.0.1:${port}`,
    "controller.listener.names": "CONTROLLER",
    "log.dirs": folder,
    "num.partitions": "4",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "true",
  };
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}
