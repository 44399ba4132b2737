/** `weft status`: which NATS, and which sidecars are on it. Starts and stops nothing. */
import { Option, type Command } from "commander";
import type { PresenceEntry } from "../../mesh/index.ts";
import { alignColumns } from "./columns.ts";
import { exitCodes, textOf } from "./failure.ts";
import type { CommandHost } from "./host.ts";
import { listSidecars, lookForNats, type NatsSighting } from "./nats.ts";
import { addMeshOptions, checkFlags, flagArguments, givenFlags } from "./sidecar-flags.ts";

type StatusOptions = { readonly output: "table" | "json"; readonly quiet?: boolean };

export function addStatusCommand(program: Command, host: CommandHost): void {
  const command = program
    .command("status")
    .summary("show the NATS server and the live sidecars")
    .description("Shows which NATS server is used and which sidecars are on it. Starts nothing.")
    .addOption(
      new Option("-o, --output <format>", "how to print it").choices(["table", "json"]).default("table"),
    )
    .option("-q, --quiet", "print nothing; exit code 0 when NATS is there, else 1");
  addMeshOptions(command);
  command.action(async () => host.exit(await status(command, command.opts<StatusOptions>(), host)));
}

async function status(command: Command, options: StatusOptions, host: CommandHost): Promise<number> {
  const { env, clock, terminal } = host;
  const { mesh } = checkFlags(["--app-id=weft-cli", ...flagArguments(givenFlags(command))], env);
  const nats = await lookForNats(mesh, env, clock);
  let problem: string | undefined;
  const sidecars = await listSidecars(nats, mesh, clock).catch((error: unknown): readonly PresenceEntry[] => {
    problem = textOf(error);
    return [];
  });
  if (options.quiet === true)
    return nats.urls.length > 0 && problem === undefined ? exitCodes.ok : exitCodes.failure;
  if (options.output === "json") terminal.print(toJson(nats, sidecars, problem, clock.nowMs()));
  else terminal.print(toTable(nats, sidecars, problem, clock.nowMs()));
  return problem === undefined ? exitCodes.ok : exitCodes.failure;
}

function toJson(
  { urls, detail, ...nats }: NatsSighting,
  sidecars: readonly PresenceEntry[],
  problem: string | undefined,
  nowMs: number,
): string {
  const listed = sidecars.map(({ startedAtMs, ...entry }) => ({
    ...entry,
    startedAt: new Date(startedAtMs).toISOString(),
    ageSeconds: ageSeconds(startedAtMs, nowMs),
  }));
  const connected = urls.length > 0 && problem === undefined;
  return JSON.stringify({ nats: { ...nats, connected, detail, problem }, sidecars: listed }, null, 2);
}

function toTable(
  nats: NatsSighting,
  sidecars: readonly PresenceEntry[],
  problem: string | undefined,
  nowMs: number,
): string {
  const head = `NATS: ${nats.detail}`;
  if (problem !== undefined) return `${head}\nIt cannot be asked: ${problem}`;
  if (nats.way === "none") return head;
  if (sidecars.length === 0) return `${head}\nNo sidecars are running.`;
  const rows = sidecars.map((it) => [
    it.namespace,
    it.app,
    it.instance,
    it.host,
    String(it.pid),
    ageText(ageSeconds(it.startedAtMs, nowMs)),
    it.version,
    stateOf(it),
  ]);
  const names = ["NAMESPACE", "APP ID", "INSTANCE", "HOST", "PID", "AGE", "VERSION", "STATE"];
  return `${head}\n\n${alignColumns([names, ...rows])}`;
}

/** Whether calls reach its app, and why not. */
function stateOf({ unready }: PresenceEntry): string {
  if (unready === undefined) return "ready";
  return unready.state === "ill" ? "app ill" : "app not up";
}

/** Clocks of two machines differ; an age below zero would only confuse. */
function ageSeconds(startedAtMs: number, nowMs: number): number {
  return Math.max(0, Math.round((nowMs - startedAtMs) / 1000));
}

function ageText(seconds: number): string {
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 2 * 3600) return `${Math.floor(seconds / 60)}m`;
  return seconds < 48 * 3600 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86_400)}d`;
}
