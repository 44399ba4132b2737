/** A real Mosquitto broker that keeps sessions and messages on disk. */
import { writeFileSync } from "node:fs";
import { type Server, asUser, askSocket, findProgram, startServer } from "./server.ts";

const variable = "WEFT_TEST_MQTT";
/** `nobody`, since the broker gives up root by itself. */
const uid = 65_534;
/** A CONNECT of MQTT 3.1.1 with an empty client id. */
const connect = "\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00";

/** Resolves when it accepts clients. */
export function startMosquitto(): Promise<Server> {
  return startServer({
    name: "mosquitto",
    variable,
    prepare(folder, port) {
      const settings = folder.join("mosquitto.conf");
      const lines = [
        `listener ${port} 127.0.0.1`,
        "allow_anonymous true",
        "persistence true",
        `persistence_location ${folder.path}/`,
        "autosave_on_changes true",
        "autosave_interval 1",
        "max_queued_messages 100000",
      ];
      writeFileSync(settings, `${lines.join("\n")}\n`, { mode: 0o644 });
      const command = findProgram("mosquitto", "mosquitto", variable);
      return Promise.resolve(asUser(uid, folder.path, { command, args: ["-c", settings] }));
    },
    ready: async (host, port) => (await askSocket(host, port, connect))[0] === 0x20,
  });
}
