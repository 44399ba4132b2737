// Runs one tool of the repository as a child process: output kept or passed through, time taken, ended with us.
// Shared by the scripts that are made of such steps (check, build, test/run).
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";

/** Root folder of the checkout, absolute. */
export const root = join(import.meta.dirname, "..");

/** Output kept of one tool: enough to read what failed, whatever it prints. */
const KEPT_CHARACTERS = 1_000_000;
const KILL_GRACE_MS = 10_000;

export interface CommandOptions {
  readonly cwd?: string;
  /** Added to this process's environment; `undefined` takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Starts from an empty environment instead. */
  readonly emptyEnv?: boolean;
  /** true: our terminal's output is the tool's, nothing is kept. */
  readonly passThrough?: boolean;
}

export interface CommandResult {
  /** Exit code; 128 + signal number style is not used: a signal gives 1 and is named in `output`. */
  readonly code: number;
  /** stdout and stderr as they came, the last million characters. */
  readonly output: string;
  readonly seconds: number;
}

const running = new Set<ChildProcess>();

/** Starts `command` and resolves when it has ended; rejects only when it cannot be started. */
export function runCommand(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const started = performance.now();
  const child = spawn(command, args, {
    cwd: options.cwd ?? root,
    env: options.emptyEnv === true ? { ...options.env } : { ...process.env, ...options.env },
    stdio: options.passThrough === true ? ["ignore", "inherit", "inherit"] : ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-KEPT_CHARACTERS);
    });
  }
  return new Promise((fulfil, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      running.delete(child);
      if (signal !== null) output += `\n${command} was ended by ${signal}\n`;
      fulfil({ code: code ?? 1, output, seconds: (performance.now() - started) / 1000 });
    });
  });
}

/** Runs a script or a package's program under the Node that runs us (24). `file` is relative to the root. */
export function runNode(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  return runCommand(process.execPath, [join(root, file), ...args], options);
}

/**
 * On Ctrl-C or SIGTERM: ends every tool that runs, waits for it (10 s, then kills), then ends this process with the
 * exit code a shell expects. Call once at the start of a script.
 */
export function endToolsOnSignal(): void {
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    process.once(signal, () => {
      const open = [...running];
      if (open.length === 0) process.exit(code);
      let left = open.length;
      for (const child of open) {
        child.once("close", () => {
          left -= 1;
          if (left === 0) process.exit(code);
        });
        child.kill(signal);
        setTimeout(() => child.kill("SIGKILL"), KILL_GRACE_MS).unref();
      }
    });
  }
}

/** True when `command` is a program on the PATH that answers `--version`. */
export async function hasProgram(command: string): Promise<boolean> {
  try {
    return (await runCommand(command, ["--version"])).code === 0;
  } catch {
    return false;
  }
}

/** Prints a line that tells what a script is doing. */
export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
