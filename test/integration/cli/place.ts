/**
 * A place of its own for one test of the CLI: home, NATS port and a mark in the environment by which every process
 * that comes from it can be found. What is left at the end is killed.
 */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../../mesh/clock.ts";
import { stopShared } from "../../../mesh/server/index.ts";
import { eventually } from "../../kit/eventually.ts";
import { checkout, freePort, natsServerBinary, nodeBinary, startProcess, tempDir } from "../../kit/index.ts";
import type { RunningProcess } from "../../kit/index.ts";

export type Place = AsyncDisposable & {
  /** Working folder of all commands. */
  readonly path: string;
  /** WEFT_HOME. Does not exist until something makes it. */
  readonly home: string;
  /** Where a NATS server is looked for and started. */
  readonly natsPort: number;
  join(...parts: string[]): string;
  /** Starts a script of the checkout under Node, such as "src/cli/main.ts". */
  start(
    script: string,
    args: readonly string[],
    env?: Readonly<Record<string, string>>,
  ): Promise<RunningProcess>;
  /** Runs the `weft` command to its end. */
  weft(...args: string[]): Promise<Ended>;
  /** Starts `weft run` with more flags and an app, and waits until it says that all is up. */
  run(flags: readonly string[], command: readonly string[]): Promise<RunningProcess>;
  /** Ids, command lines and environments of the processes that come from here and still run. */
  left(): string[];
  /** Waits until none is left. */
  empty(): Promise<void>;
};

export type Ended = { readonly code: number; readonly logs: string };

/** `natsUrl` gives all commands a server; without it they find or start one on the place's own port. */
export async function makePlace(options: { natsUrl?: string } = {}): Promise<Place> {
  const folder = tempDir("cli");
  const mark = `WEFT_TEST_PLACE=${randomUUID()}`;
  const home = folder.join("home");
  const natsPort = await freePort();
  const base: Record<string, string> = {
    WEFT_HOME: home,
    HOME: folder.path,
    WEFT_NATS_SERVER: await natsServerBinary(),
    WEFT_NATS_PORT: String(natsPort),
    WEFT_TEST_PLACE: mark.slice(mark.indexOf("=") + 1),
    ...(options.natsUrl === undefined ? {} : { WEFT_NATS_URL: options.natsUrl }),
  };
  const started = new Set<number>();
  const start: Place["start"] = async (script, args, env = {}) => {
    const running = await startProcess({
      name: `${script} ${args.slice(0, 4).join(" ")}`,
      command: nodeBinary(),
      args: [join(checkout, script), ...args],
      env: { ...base, ...env },
      cwd: folder.path,
    });
    started.add(running.pid);
    return running;
  };
  const left = (): string[] => processesOf(mark, started);
  return {
    path: folder.path,
    home,
    natsPort,
    join: folder.join,
    start,
    async weft(...args) {
      await using running = await start("src/cli/main.ts", args);
      return { code: await running.exited, logs: running.logs() };
    },
    async run(flags, command) {
      const running = await start("src/cli/main.ts", ["run", ...flags, "--", ...command]);
      await says(running, /You're up and running!/);
      return running;
    },
    left,
    empty: () => eventually(() => expectNone(left()), { timeoutMs: 30_000 }),
    async [Symbol.asyncDispose]() {
      for (const line of left()) killIfThere(Number.parseInt(line, 10));
      await stopShared({ home, env: {}, clock: systemClock });
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Waits for a line of the output; fails at once when the process ends without it. */
export async function says(
  running: RunningProcess,
  pattern: RegExp,
  timeoutMs = 30_000,
): Promise<RegExpMatchArray> {
  const attempt = (): RegExpMatchArray | "ended" => {
    const found = running.logs().match(pattern);
    if (found !== null) return found;
    if (running.running()) throw new Error(`${running.name} has not said ${pattern}:\n${running.logs()}`);
    return "ended";
  };
  const found = await eventually(attempt, { timeoutMs });
  if (found !== "ended") return found;
  await running.exited;
  const last = running.logs().match(pattern);
  if (last === null) throw new Error(`${running.name} ended without ${pattern}:\n${running.logs()}`);
  return last;
}

/** True while a process with this id runs; one that has ended without being noted does not count. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  if (!existsSync(`/proc/${pid}/stat`)) return !existsSync("/proc/self/stat");
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  return !["Z", "X"].includes(stat.charAt(stat.lastIndexOf(")") + 2));
}

function expectNone(lines: readonly string[]): void {
  if (lines.length > 0) throw new Error(`still running:\n${lines.join("\n")}`);
}

/**
 * What has the mark: the environment is what children inherit, whatever group or session they are in. And the guards
 * of `weft run`, which have no environment but name the process they guard.
 */
function processesOf(mark: string, started: ReadonlySet<number>): string[] {
  return allProcesses().filter((line) => {
    const guarded = /weft-guard (\d+)/.exec(line)?.[1];
    return line.split(" ").includes(mark) || (guarded !== undefined && started.has(Number(guarded)));
  });
}

/** Id, command line and environment of each running process, as far as they may be seen. */
function allProcesses(): string[] {
  if (!existsSync("/proc/self/environ")) {
    return execFileSync("/bin/ps", ["-axeww", "-o", "pid=,command="], { encoding: "utf8" }).split("\n");
  }
  return readdirSync("/proc").flatMap((pid) => {
    try {
      if (!/^\d+$/.test(pid) || !isRunning(Number(pid))) return [];
      const texts = ["cmdline", "environ"].map((name) => readFileSync(`/proc/${pid}/${name}`, "utf8"));
      return [`${pid} ${texts.join(" ").replaceAll("\0", " ")}`];
    } catch {
      return [];
    }
  });
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended meanwhile.
  }
}
