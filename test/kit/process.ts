/**
 * Real child processes: started with a clean environment, their output kept, signalled by their own id, and gone when
 * the test is over. Everything else in the kit that is a process stands on this.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { addWitness, guardProcess, releaseProcess } from "./cleanup.ts";
import { eventually } from "./eventually.ts";

export type ProcessOptions = {
  /** Shown before its log lines. */
  readonly name: string;
  readonly command: string;
  readonly args?: readonly string[];
  /** The whole environment of the process, but for what `inheritedEnv` gives. */
  readonly env?: Readonly<Record<string, string>>;
  /** Do not add `inheritedEnv()`: `env` is all there is. */
  readonly bareEnv?: boolean;
  readonly cwd?: string;
};

export type RunningProcess = AsyncDisposable & {
  readonly name: string;
  readonly pid: number;
  /** Its exit code once it has ended; 128 + number for an end by signal. Never rejects. */
  readonly exited: Promise<number>;
  running(): boolean;
  /** Everything it wrote to stdout and stderr so far (the last 4 MB). */
  logs(): string;
  /** Sends a signal and waits for the end. Resolves with the exit code. */
  kill(signal?: NodeJS.Signals): Promise<number>;
  /** SIGTERM, then waits for the exit code; rejects when it still runs after `timeoutMs` (default 15,000). */
  stop(timeoutMs?: number): Promise<number>;
  /** Sends a signal, does not wait. */
  signal(signal: NodeJS.Signals): void;
  /** Freezes it (SIGSTOP) until `resume`. Resolves when all its threads stand still. */
  pause(): Promise<void>;
  resume(): void;
};

const MAX_LOG_CHARS = 4 * 1024 * 1024;
const STOP_TIMEOUT_MS = 15_000;
/** Output may still be on its way after the end; a grandchild may also hold the pipe for ever. */
const OUTPUT_GRACE_MS = 200;

/** The few variables of the user that a process needs to run at all. No DAPR_*, WEFT_*, NODE_OPTIONS, proxies, HOME. */
export function inheritedEnv(): Record<string, string> {
  const env: Record<string, string> = {};
  for (const name of ["PATH", "LANG", "LC_ALL", "TMPDIR", "NODE_COMPILE_CACHE"]) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  return env;
}

/** Starts a process. Rejects when it cannot be started at all; readiness is the caller's business. */
export async function startProcess(options: ProcessOptions): Promise<RunningProcess> {
  const child = spawn(options.command, [...(options.args ?? [])], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...(options.bareEnv === true ? {} : inheritedEnv()), ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const log = captureOutput(child, options.name);
  const exited = exitCode(child);
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => reject(new Error(`cannot start ${options.command}`, { cause: error })));
  });
  const pid = child.pid;
  if (pid === undefined) throw new Error(`${options.command} started without a process id`);
  guardProcess(pid);
  void exited.then(() => releaseProcess(pid));
  const running = describe(child, pid, options.name, exited, log);
  let disposed = false;
  addWitness({ name: `${options.name} (pid ${pid})`, logs: log, disposed: () => disposed });
  return {
    ...running,
    async [Symbol.asyncDispose]() {
      disposed = true;
      await running.kill("SIGKILL");
    },
  };
}

function describe(
  child: ChildProcess,
  pid: number,
  name: string,
  exited: Promise<number>,
  log: () => string,
): Omit<RunningProcess, typeof Symbol.asyncDispose> {
  const running = (): boolean => child.exitCode === null && child.signalCode === null;
  const signal = (it: NodeJS.Signals): void => {
    if (!running()) throw new Error(`${name} has already ended`);
    child.kill(it);
  };
  return {
    name,
    pid,
    exited,
    running,
    logs: log,
    signal,
    kill(it = "SIGKILL") {
      if (running()) child.kill(it);
      return exited;
    },
    async stop(timeoutMs = STOP_TIMEOUT_MS) {
      if (running()) child.kill("SIGTERM");
      const limit = new AbortController();
      const late = sleep(timeoutMs, "late" as const, { signal: limit.signal }).catch(() => "late" as const);
      const first = await Promise.race([exited, late]);
      limit.abort();
      if (first === "late") throw new Error(`${name} still runs ${timeoutMs} ms after SIGTERM\n${log()}`);
      return first;
    },
    async pause() {
      signal("SIGSTOP");
      await eventually(() => standsStill(pid), { what: `${name} to stand still`, everyMs: 5 });
    },
    resume: () => signal("SIGCONT"),
  };
}

/** Whether SIGSTOP has taken effect: it takes a moment to reach threads that run on other cores. */
export function standsStill(pid: number): boolean {
  const tasks = `/proc/${pid}/task`;
  if (!existsSync(tasks)) {
    return spawnSync("ps", ["-o", "stat=", "-p", String(pid)], { encoding: "utf8" }).stdout.startsWith("T");
  }
  return readdirSync(tasks).every((task) => {
    const stat = readFileSync(join(tasks, task, "stat"), "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T");
  });
}

function exitCode(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    child.once("error", () => resolve(127));
    child.once("exit", (code, signal) => {
      const result = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
      // One look at the pipes more: a timer that is late comes before what has been waiting in them.
      const timer = setTimeout(() => setImmediate(() => resolve(result)), OUTPUT_GRACE_MS);
      child.once("close", () => {
        clearTimeout(timer);
        resolve(result);
      });
    });
  });
}

function captureOutput(child: ChildProcess, name: string): () => string {
  let text = "";
  const live = process.env["WEFT_TEST_LOGS"] === "1";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8");
    stream?.on("data", (chunk: string) => {
      text += chunk;
      if (text.length > MAX_LOG_CHARS) text = text.slice(-MAX_LOG_CHARS / 2);
      if (live) process.stderr.write(chunk.replace(/^(?=.)/gm, `[${name}] `));
    });
  }
  return () => text;
}
