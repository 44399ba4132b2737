/**
 * Looking at other processes and running short programs: liveness that is not fooled by a reused process id,
 * and commands with a bound on time and output.
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import type { Clock } from "../clock.ts";

/** Used for look-ups when the environment has no PATH. */
export const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const maxOutputBytes = 64 * 1024;
const maxFileNumber = 1024;

/** True when a process with this id exists, also when it belongs to another user. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/**
 * A mark of when the process started: equal marks mean the same process, not a later one with the same id.
 * Undefined when the system does not tell (only Linux does).
 */
export function processStart(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // Field 22, counted after the program's name, which may itself hold spaces and parentheses.
    const ticks = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
    return ticks === undefined ? undefined : `${boot}/${ticks}`;
  } catch {
    return undefined;
  }
}

/**
 * True once the process has ended, also when its parent has not noticed yet. `start` is its `processStart`.
 */
export function hasEnded(pid: number, start: string | undefined): boolean {
  if (!isAlive(pid)) return true;
  if (start === undefined) return false;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const state = stat.charAt(stat.lastIndexOf(")") + 2);
    return state === "Z" || state === "X" || processStart(pid) !== start;
  } catch {
    return true;
  }
}

/**
 * Files above stderr that a child would inherit although nobody means it to: left open by whoever started us.
 * Node's own are never among them. Empty where the system does not tell (only Linux does).
 */
export function leakingFiles(): number[] {
  const closeOnExec = 0o2000000;
  try {
    const numbers = readdirSync("/proc/self/fd").map(Number);
    return numbers.filter((fd) => fd > 2 && fd < maxFileNumber && (fileFlags(fd) & closeOnExec) === 0);
  } catch {
    return [];
  }
}

function fileFlags(fd: number): number {
  try {
    const octal = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))?.[1];
    return Number.parseInt(octal ?? "", 8);
  } catch {
    // Closed meanwhile, such as the folder we just listed. All bits set: nothing to do about it.
    return -1;
  }
}

/**
 * Ids of all running processes that were started with these arguments, next to each other and in this order.
 * Looks at every process of the machine that may be seen: some milliseconds.
 */
export function processesWith(args: readonly string[]): number[] {
  const all = existsSync("/proc/self/cmdline") ? listProc() : listPs();
  // Arguments stand between NULs in /proc, between spaces in the answer of ps.
  const wanted = all.separator + args.join(all.separator) + all.separator;
  return all.processes.filter(({ line }) => line.includes(wanted)).map(({ pid }) => pid);
}

type ProcessList = { separator: string; processes: { pid: number; line: string }[] };

function listProc(): ProcessList {
  const processes = readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid))
    .map((pid) => ({ pid, line: readCommandLine(pid) }));
  return { separator: "\0", processes };
}

function readCommandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

function listPs(): ProcessList {
  const text = execFileSync("/bin/ps", ["-axww", "-o", "pid=,args="], {
    encoding: "utf8",
    timeout: 5_000,
    maxBuffer: 16 * 1024 * 1024,
    stdio: ["ignore", "pipe", "ignore"],
  });
  const processes = text.split("\n").map((line) => ({ pid: Number.parseInt(line, 10), line: `${line} ` }));
  return { separator: " ", processes };
}

/**
 * Folders in which programs are looked up; relative entries of PATH are left out, they could be anybody's.
 */
export function searchPath(env: NodeJS.ProcessEnv): string[] {
  return (env["PATH"] || defaultPath).split(delimiter).filter((folder) => isAbsolute(folder));
}

/** The first existing file of that name in the folders. */
export function findProgram(name: string, folders: readonly string[]): string | undefined {
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

export type RunOptions = {
  readonly env: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
};

/**
 * `problem` is undefined after exit code 0; else one line saying how it ended. `output` is the last 64 KiB of
 * both streams.
 */
export type RunResult = { readonly output: string; readonly problem: string | undefined };

/**
 * Runs a program to its end; it and its children are killed at the timeout or when aborted. Never rejects.
 */
export function run(program: string, args: readonly string[], options: RunOptions): Promise<RunResult> {
  return new Promise((resolve) => {
    if (options.signal?.aborted) return resolve({ output: "", problem: "aborted" });
    // Its own group, so that children of the program can be killed with it.
    const child = spawn(program, args, {
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: options.env,
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    let output = "";
    let killedFor: string | undefined;
    const collect = (chunk: Buffer): void => {
      output = (output + chunk.toString("utf8")).slice(-maxOutputBytes);
    };
    const kill = (why: string): void => {
      killedFor = why;
      if (child.pid !== undefined) killGroup(child.pid);
    };
    const onAbort = (): void => kill("aborted");
    const timer = options.clock.setTimeout(
      () => kill(`no end after ${options.timeoutMs} ms`),
      options.timeoutMs,
    );
    const finish = (problem: string | undefined): void => {
      timer.cancel();
      options.signal?.removeEventListener("abort", onAbort);
      resolve({ output, problem });
    };
    options.signal?.addEventListener("abort", onAbort, { once: true });
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.on("error", (error) => finish(error.message));
    child.on("close", (code, signal) => {
      finish(killedFor ?? (code === 0 ? undefined : `ended with ${signal ?? `exit code ${code}`}`));
    });
  });
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Already gone.
  }
}
