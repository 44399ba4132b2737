/**
 * weft: the command line. One file per command; what they have in common is the host. Exit codes: 0, 1 after a
 * failure, 255 for a wrong command line, and whatever the app of `weft run` ends with.
 */
import { Command, CommanderError } from "commander";
import { systemClock } from "../../mesh/index.ts";
import { FindNatsError } from "../../mesh/server/index.ts";
import { addDeadLettersCommand } from "./dead-letters.ts";
import { addDownCommand } from "./down.ts";
import { CliError, exitCodes } from "./failure.ts";
import { addGroupsCommand } from "./groups.ts";
import type { CommandHost } from "./host.ts";
import { addRunCommand } from "./run.ts";
import { spellOutBooleans } from "./sidecar-flags.ts";
import { addStatusCommand } from "./status.ts";
import { openTerminal } from "./terminal.ts";
import { addVersionCommand, versionText } from "./version.ts";

/** Runs one command; resolves with the exit code. `argv` is without the program's name. */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const terminal = openTerminal(process.stdout, process.stderr, env);
  let exitCode: number = exitCodes.ok;
  const host: CommandHost = { env, clock: systemClock, terminal, exit: (code) => (exitCode = code) };
  const program = makeProgram(host);
  try {
    if (argv.length === 0) terminal.print(program.helpInformation().trimEnd());
    else await program.parseAsync(prepare(argv), { from: "user" });
    return exitCode;
  } catch (error) {
    // Commander has printed the help, the version or the fault already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    if (error instanceof CliError) {
      terminal.fail(error.message);
      return error.exitCode;
    }
    if (!(error instanceof FindNatsError)) throw error;
    terminal.fail(error.message);
    return exitCodes.failure;
  }
}

function makeProgram(host: CommandHost): Command {
  const program = new Command("weft")
    .description("Runs apps with a Dapr-compatible sidecar beside each, over NATS.")
    .version(versionText, "-v, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand("help [command]", "print help on a command")
    .enablePositionalOptions()
    .showHelpAfterError("(weft --help shows what there is)")
    .exitOverride()
    .configureHelp({ sortSubcommands: false });
  addRunCommand(program, host);
  addStatusCommand(program, host);
  addDeadLettersCommand(program, host);
  addDownCommand(program, host);
  addGroupsCommand(program, host);
  addVersionCommand(program, host);
  for (const command of program.commands) {
    command.showHelpAfterError(`(weft ${command.name()} --help shows what there is)`);
  }
  return program;
}

/** `run` takes the sidecar's flags, whose yes-or-no ones take no further word. */
function prepare(argv: readonly string[]): string[] {
  const [command = "", ...rest] = argv;
  return command === "run" ? [command, ...spellOutBooleans(rest)] : [...argv];
}

/** Resolves when all that was written has been taken, or can no longer be: the end of a process drops the rest. */
function taken(out: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    out.once("error", () => resolve());
    out.write("", () => resolve());
  });
}

if (import.meta.main) {
  void main(process.argv.slice(2), process.env).then(async (exitCode) => {
    await Promise.all([taken(process.stdout), taken(process.stderr)]);
    process.exit(exitCode);
  });
}
