/** `weft run [flags] -- <command>`: an app with its sidecar beside it, as `dapr run`. */
import { randomBytes } from "node:crypto";
import { Option, type Command } from "commander";
import { FindNatsError, openHome } from "../../mesh/server/index.ts";
import { CliError, exitCodes } from "./failure.ts";
import { defaultConfigFile, ensureDefaultComponents } from "./default-resources.ts";
import { findCommand } from "./find-command.ts";
import { freePorts } from "./free-port.ts";
import type { CommandHost } from "./host.ts";
import { completeFlags, makeAppId, planRun, portFlags, type RunPlan, type RunPorts } from "./run-plan.ts";
import { runSession } from "./run-session.ts";
import {
  addSidecarOptions,
  checkFlags,
  flagArguments,
  givenFlags,
  type GivenFlags,
} from "./sidecar-flags.ts";
import { listenForStop } from "./stop-request.ts";

const examples = `
Examples:
  weft run --app-id orders --app-port 3000 -- node orders.js
  weft run -a pricing -p 8000 -d ./resources -- python3 pricing.py
  weft run --app-id tools --dapr-http-port 3500

The app finds its sidecar by DAPR_HTTP_PORT and DAPR_GRPC_PORT. Without --resources-path, a state store
"statestore" and a message bus "pubsub" on NATS are there; their files are in ~/.weft/components.`;

export function addRunCommand(program: Command, host: CommandHost): void {
  const command = program
    .command("run")
    .summary("run an app with its sidecar beside it")
    .description("Runs an app with its sidecar beside it; ends both when the app ends or at Ctrl-C.")
    .usage("[flags] -- <command> [arguments]")
    .argument("[command...]", "the app's command; without one, the sidecar runs alone")
    .passThroughOptions()
    .addHelpText("after", examples);
  addSidecarOptions(command);
  command.addOption(new Option("-f, --run-file <file>").hideHelp());
  command.addOption(new Option("-k, --kubernetes").hideHelp());
  command.action(async (words: string[]) => host.exit(await run(command, words, host)));
}

async function run(command: Command, words: readonly string[], host: CommandHost): Promise<number> {
  refuseUnsupported(command);
  const { env, clock, terminal } = host;
  const program = words[0] === undefined ? undefined : findCommand(words[0], env);
  const plan = await makePlan(givenFlags(command), words, env);
  const stop = listenForStop(clock, process.stdout);
  try {
    return await runSession({ plan, program, env, terminal, stop, clock });
  } finally {
    stop.release();
  }
}

function refuseUnsupported(command: Command): void {
  const { runFile, kubernetes } = command.opts<{ runFile?: string; kubernetes?: boolean }>();
  if (runFile !== undefined) {
    throw new CliError(
      "run files are not there yet: start each app with a `weft run` of its own",
      exitCodes.usage,
    );
  }
  if (kubernetes === true) throw new CliError("`weft run` starts apps on this machine only", exitCodes.usage);
}

async function makePlan(
  given: GivenFlags,
  words: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<RunPlan> {
  const appId = makeAppId(words, randomBytes(2).toString("hex"));
  const ports = await choosePorts(given);
  // Checked once before the defaults go in, so that a bad flag leaves no new folder behind.
  checkFlags(flagArguments(completeFlags(given, { appId, ports, resources: [], config: [] })), env);
  const flags = completeFlags(given, { appId, ports, ...findDefaults(given, env) });
  return planRun(flags, checkFlags(flagArguments(flags), env), words);
}

async function choosePorts(given: GivenFlags): Promise<RunPorts> {
  const taken = [...portFlags].map((name) => Number(given.get(name)?.at(-1)));
  const [http = 0, grpc = 0, metrics = 0] = await freePorts(3, new Set(taken));
  return { http, grpc, metrics };
}

function findDefaults(given: GivenFlags, env: NodeJS.ProcessEnv): { resources: string[]; config: string[] } {
  const home = openOrExplain(given.get("weft-home")?.at(-1), env);
  const ownResources = given.has("resources-path") || given.has("components-path");
  const config = defaultConfigFile(home);
  return {
    resources: ownResources ? [] : [ensureDefaultComponents(home)],
    config: config === undefined ? [] : [config],
  };
}

function openOrExplain(home: string | undefined, env: NodeJS.ProcessEnv): string {
  try {
    return openHome({ home, env }).path;
  } catch (error) {
    throw error instanceof FindNatsError ? new CliError(error.message) : error;
  }
}
