/**
 * Starts the shared nats-server as a process of its own that outlives us, and sees that it answers. The
 * caller holds the home's lock and has seen that no server of this home runs.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, renameSync, statSync } from "node:fs";
import { devNull } from "node:os";
import type { Clock } from "../clock.ts";
import { findBinary, type Binary, type BinaryOptions } from "./binary.ts";
import { storageLimits, writeConfig } from "./config.ts";
import { FindNatsError } from "./errors.ts";
import type { Home } from "./home.ts";
import type { Lock } from "./lock.ts";
import { choosePort } from "./port.ts";
import { leakingFiles } from "./process.ts";
import { probe, type ServerInfo } from "./probe.ts";
import { configuredPort, ownProcesses, readState, serverArgs, type SharedServer } from "./state.ts";
import { writeState, writeWhole } from "./state.ts";

/** A server with much data recovers it before it listens. */
const readyMs = 60_000;
const pollMs = 15;
const maxPortRaces = 5;
const maxLogTailBytes = 4_096;

export type StartOptions = BinaryOptions & { readonly usualPort: number };

export type Answering = { readonly port: number; readonly info: ServerInfo };

type Outcome = { readonly info: ServerInfo; readonly pid: number } | { readonly failure: string };

/**
 * Resolves to the server once it answers and is recorded; to undefined when, against what the caller saw, a
 * server of this home is there now. Throws FindNatsError, or the signal's reason.
 */
export async function startServer(options: StartOptions, lock: Lock): Promise<SharedServer | undefined> {
  const { home, clock, signal, usualPort, progress } = options;
  const binary = await findBinary(options);
  const previous = readState(home)?.port ?? configuredPort(home);
  const avoid = new Set<number>();
  for (let attempt = 0; attempt < maxPortRaces; attempt += 1) {
    const port = await choosePort({ previous, usual: usualPort, avoid, clock, signal });
    // Two servers on one store would destroy it. We may have been stopped for so long that the lock was taken
    // over, and the holder before us may have been killed so shortly after starting one that it was not to be
    // seen yet.
    if (!lock.isMine() || ownProcesses(home).length > 0) return undefined;
    progress(`starting nats-server ${binary.version} on 127.0.0.1:${port}`);
    const outcome = await launch(binary, port, options);
    if ("info" in outcome) {
      const server = describeServer(home, binary, port, outcome, clock);
      writeState(home, server);
      return server;
    }
    if (!/address already in use/i.test(outcome.failure)) throw new FindNatsError(outcome.failure);
    // Another process with this home, which could not be seen (from inside a container), was faster.
    if ((await askServer(home, clock, signal)) !== undefined) return undefined;
    avoid.add(port);
  }
  throw new FindNatsError(
    `nats-server lost its port to other programs ${maxPortRaces} times. Give one with --nats-url.`,
  );
}

/** The server of this home that answers on the port it was last given; undefined when none does. */
export async function askServer(
  home: Home,
  clock: Clock,
  signal?: AbortSignal,
): Promise<Answering | undefined> {
  const port = configuredPort(home);
  if (port === undefined) return undefined;
  const answer = await probe(port, clock, signal);
  const ours = answer.kind === "nats" && answer.info.serverName === home.serverName;
  return ours ? { port, info: answer.info } : undefined;
}

/** The record of a server that answered. */
export function describeServer(
  home: Home,
  binary: Binary,
  port: number,
  running: { info: ServerInfo; pid: number },
  clock: Clock,
): SharedServer {
  return {
    pid: running.pid,
    port,
    url: `nats://127.0.0.1:${port}`,
    version: running.info.version,
    startedAt: new Date(clock.nowMs()).toISOString(),
    binary: binary.path,
    dataDir: home.dataFolder,
    serverName: home.serverName,
    serverId: running.info.serverId,
  };
}

async function launch(binary: Binary, port: number, options: StartOptions): Promise<Outcome> {
  const { home, clock, signal } = options;
  const limits = storageLimits(home.dataFolder);
  writeWhole(home.configFile, writeConfig({ home, port, version: binary.version, limits }));
  const logBytes = sizeOf(home.logFile);
  const lastWords = (): string => tellLastWords(home, logBytes);
  const { child, ended } = spawnServer(binary.path, home);
  const endMs = clock.monotonicMs() + readyMs;
  for (;;) {
    const failure = ended();
    if (failure !== undefined) return { failure: `nats-server did not start: ${failure}. ${lastWords()}` };
    const answer = await askServer(home, clock, signal);
    if (answer !== undefined && child.pid !== undefined) return { info: answer.info, pid: child.pid };
    if (clock.monotonicMs() > endMs) {
      child.kill("SIGKILL");
      return { failure: `nats-server did not answer within ${readyMs / 1000} s. ${lastWords()}` };
    }
    await clock.sleep(pollMs, signal);
  }
}

function spawnServer(path: string, home: Home): { child: ChildProcess; ended: () => string | undefined } {
  // New at each start, so that it stays small (the log proper is bounded by nats-server itself); one older
  // file is kept, because it may hold the trace of the crash that made this start necessary.
  if (sizeOf(home.outputFile) > 0) renameSync(home.outputFile, `${home.outputFile}.old`);
  const output = openSync(home.outputFile, "w", 0o600);
  const nothing = openSync(devNull, "r+");
  let failure: string | undefined;
  try {
    // Own session, no terminal, no environment, no folder of the user kept busy: nothing ties it to this
    // sidecar.
    const child = spawn(path, serverArgs(home), {
      cwd: home.natsFolder,
      env: {},
      detached: true,
      stdio: [nothing, output, output, ...shadowing(nothing)],
    });
    child.on("error", (error) => (failure = error.message));
    child.on("exit", (code, signal) => (failure ??= `it ended with ${signal ?? `exit code ${code}`}`));
    child.unref();
    return { child, ended: () => failure };
  } finally {
    closeSync(output);
    closeSync(nothing);
  }
}

/**
 * Entries for file 3 and up of a child: `nothing` in place of each file that would leak into it, so that a
 * pipe of whoever started this sidecar does not stay open as long as the server runs.
 */
function shadowing(nothing: number): (number | "ignore")[] {
  const leaks = new Set(leakingFiles());
  const length = leaks.size === 0 ? 0 : Math.max(...leaks) - 2;
  return Array.from({ length }, (_, i) => (leaks.has(i + 3) ? nothing : "ignore"));
}

function tellLastWords(home: Home, logBytesBefore: number): string {
  const lines = [...tail(home.outputFile, 0), ...tail(home.logFile, logBytesBefore)];
  return lines.length === 0
    ? `See ${home.logFile}.`
    : `Its last words: ${lines.join(" | ")} (${home.logFile})`;
}

/** Up to three lines of what was written after the first `skipBytes`. */
function tail(path: string, skipBytes: number): string[] {
  try {
    const bytes = readFileSync(path);
    const fresh = bytes.length < skipBytes ? bytes : bytes.subarray(skipBytes);
    const text = fresh.toString("utf8").slice(-maxLogTailBytes).trim();
    return text === "" ? [] : text.split("\n").slice(-3);
  } catch {
    return [];
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
