/** A real etcd server of one member. */
import { freePort } from "../ports.ts";
import { type Server, askSocket, findProgram, startServer } from "./server.ts";

const variable = "WEFT_TEST_ETCD";

/** Resolves when it says that it is healthy, i.e. has a leader. */
export function startEtcd(): Promise<Server> {
  return startServer({
    name: "etcd",
    variable,
    async prepare(folder, port) {
      const client = `http://127.0.0.1:${port}`;
      const peer = `http://127.0.0.1:${await freePort()}`;
      const options = {
        "data-dir": folder.join("data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": `default=${peer}`,
        logger: "zap",
      };
      return {
        command: findProgram("etcd", "etcd-server", variable),
        args: Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]),
      };
    },
    ready: async (host, port) =>
      (await askSocket(host, port, "GET /health HTTP/1.0\r\n\r\n")).includes('"health":"true"'),
  });
}
