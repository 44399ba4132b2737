/**
 * A server that speaks the wire protocol of MongoDB: mongo-java-server, because no package source at hand has
 * MongoDB itself. It knows neither replica sets nor transactions, and does not delete what has expired.
 */
import { join } from "node:path";
import { checkout } from "../paths.ts";
import { javaProgram } from "../toolchains.ts";
import { type Server, askSocket, startServer } from "./server.ts";

const variable = "WEFT_TEST_MONGO";

/** Resolves when it takes clients. Its `kill` ends it in order: only then does it keep its data. */
export function startMongo(): Promise<Server> {
  return startServer({
    name: "mongo",
    variable,
    killSignal: "SIGTERM",
    async prepare(folder, port) {
      const folders = {
        source: join(checkout, "test/kit/servers/mongo"),
        target: join(checkout, ".cache/kit/mongo"),
      };
      const [command, ...args] = await javaProgram("Mongo", folders);
      return { command, args: [...args, String(port), folder.join("data.mv")] };
    },
    // Any answer to a wrong HTTP request is a listening server; it closes the connection at once.
    ready: (host, port) =>
      askSocket(host, port, "")
        .then(() => true)
        .catch((error: Error) => /within|ended/.test(error.message)),
  });
}
