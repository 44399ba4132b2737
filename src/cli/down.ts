/** `weft down`: stops the NATS server that Weft started for this user, and never another. */
import type { Command } from "commander";
import { stopShared } from "../../mesh/server/index.ts";
import type { PresenceEntry } from "../../mesh/index.ts";
import { exitCodes } from "./failure.ts";
import type { CommandHost } from "./host.ts";
import { listSidecars, lookForNats } from "./nats.ts";
import { addMeshOptions, checkFlags, flagArguments, givenFlags } from "./sidecar-flags.ts";

const maxNamed = 5;

export function addDownCommand(program: Command, host: CommandHost): void {
  const command = program
    .command("down")
    .summary("stop the NATS server that Weft started")
    .description("Stops the NATS server that Weft started for you, never another. Its data stay.");
  addMeshOptions(command);
  command.action(async () => host.exit(await down(command, host)));
}

async function down(command: Command, { env, clock, terminal }: CommandHost): Promise<number> {
  const options = checkFlags(["--app-id=weft-cli", ...flagArguments(givenFlags(command))], env);
  // A given address says where sidecars shall go, not what this command may stop.
  const mesh = { ...options.mesh, natsUrls: [] };
  const nats = await lookForNats(mesh, env, clock);
  if (nats.way === "shared") {
    // A server that cannot be asked is stopped all the same.
    const sidecars = await listSidecars(nats, mesh, clock).catch((): readonly PresenceEntry[] => []);
    if (sidecars.length > 0) terminal.warn(stillThere(sidecars));
  }
  const { stopped, detail } = await stopShared({ home: mesh.home, env, clock });
  if (stopped) terminal.success(detail);
  else terminal.info(nats.way === "found" ? `${detail}; the ${nats.detail} is not Weft's to stop` : detail);
  return exitCodes.ok;
}

function stillThere(sidecars: readonly PresenceEntry[]): string {
  const named = sidecars.slice(0, maxNamed).map(({ app, pid }) => `${app} (process ${pid})`);
  const more = sidecars.length > maxNamed ? ` and ${sidecars.length - maxNamed} more` : "";
  return (
    `sidecars are still running: ${named.join(", ")}${more}. ` +
    "They start a server again; stop them first to be rid of it"
  );
}
