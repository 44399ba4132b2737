/**
 * The nats-server that all sidecars of a user share: join it, start it when there is none, stop it, describe
 * it. One lock file per home decides who starts; everyone else waits for the server to answer.
 */
import type { Clock } from "../clock.ts";
import { FindNatsError } from "./errors.ts";
import { locateHome, openHome, type Home, type HomeOptions } from "./home.ts";
import { tryLock, waitLock, type Lock } from "./lock.ts";
import { hasEnded, processStart } from "./process.ts";
import { probe, type ServerInfo } from "./probe.ts";
import { askServer, describeServer, startServer, type StartOptions } from "./start.ts";
import { clearState, ownProcesses, readState } from "./state.ts";
import { type SharedServer, writeState } from "./state.ts";

/** Waiting for another process that starts the server; it may be building the binary from source. */
const joinMs = 15 * 60_000;
const answerMs = 60_000;
const termMs = 10_000;
const killMs = 3_000;
const stopLockMs = 30_000;
const pollMs = 40;
/** Others' work is worth a line when it takes longer than a normal start. */
const quietMs = 1_000;

export type SharedOptions = Omit<StartOptions, "home"> & { readonly home?: string | undefined };

export type SharedResult = { readonly server: SharedServer; readonly startedHere: boolean };

/**
 * Resolves to the running shared server, which it starts if needed: with the data and, when it can be had,
 * the port it had before. Safe to call from any number of processes at once. Throws FindNatsError, or the
 * signal's reason.
 */
export async function ensureShared(options: SharedOptions): Promise<SharedResult> {
  const { clock, signal, progress } = options;
  const home = openHome({ home: options.home, env: options.env });
  const beganMs = clock.monotonicMs();
  let told = false;
  for (;;) {
    signal?.throwIfAborted();
    const server = await findShared(home, clock, signal);
    if (server !== undefined) return { server, startedHere: false };
    const { lock, held } = tryLock(home.lockFile, "starting nats-server", clock);
    const result = lock === undefined ? undefined : await takeTurn(home, lock, options);
    if (result !== undefined) return result;
    const waitedMs = clock.monotonicMs() - beganMs;
    if (waitedMs > joinMs) {
      throw new FindNatsError(
        `The shared nats-server did not come up; ${home.lockFile} is held by ${held ?? "us"}.`,
      );
    }
    if (held !== undefined && waitedMs > quietMs && !told) {
      told = true;
      progress(`waiting for ${held}`);
    }
    await clock.sleep(pollMs, signal);
  }
}

/**
 * What the holder of the lock does; undefined when things changed under its hands and must be looked at anew.
 */
async function takeTurn(home: Home, lock: Lock, options: SharedOptions): Promise<SharedResult | undefined> {
  try {
    const found = (await findShared(home, options.clock, options.signal)) ?? (await adopt(home, options));
    if (found !== undefined) return { server: found, startedHere: false };
    const started = await startServer({ ...options, home }, lock);
    return started === undefined ? undefined : { server: started, startedHere: true };
  } finally {
    lock.release();
  }
}

/** The recorded server, when it answers and is the one of the record. */
export async function findShared(
  home: Home,
  clock: Clock,
  signal?: AbortSignal,
): Promise<SharedServer | undefined> {
  const state = readState(home);
  if (state === undefined || state.serverName !== home.serverName) return undefined;
  const answer = await probe(state.port, clock, signal);
  const same = answer.kind === "nats" && isRecorded(state, answer.info);
  return same ? state : undefined;
}

function isRecorded(state: SharedServer, info: ServerInfo): boolean {
  return info.serverName === state.serverName && info.serverId === state.serverId;
}

/**
 * Takes over a server of this home that runs but is not recorded: its starter died too early, or it is still
 * recovering, or it was stopped for a while. Starting a second one on the same data would destroy them.
 */
async function adopt(home: Home, options: SharedOptions): Promise<SharedServer | undefined> {
  const { clock, signal, progress } = options;
  const endMs = clock.monotonicMs() + answerMs;
  for (;;) {
    const running = await askServer(home, clock, signal);
    const [pid] = ownProcesses(home);
    if (running !== undefined) {
      progress(`found the shared nats-server running (process ${pid ?? "unknown"}) without a record`);
      const binary = { path: readState(home)?.binary ?? "unknown", version: running.info.version };
      const server = describeServer(home, binary, running.port, { info: running.info, pid: pid ?? 0 }, clock);
      writeState(home, server);
      return server;
    }
    if (pid === undefined) return undefined;
    if (clock.monotonicMs() > endMs) {
      throw new FindNatsError(
        `The shared nats-server (process ${pid}) runs but has not answered for ${answerMs / 1000} s. ` +
          `See ${home.logFile}; end it with "weft down".`,
      );
    }
    await clock.sleep(pollMs, signal);
  }
}

export type StopResult = {
  /** False when there was nothing of ours to stop. */
  readonly stopped: boolean;
  readonly pid?: number;
  /** One readable line. */
  readonly detail: string;
};

/**
 * Stops the shared server of this home and nothing else: a process counts only when its command line names
 * the home's configuration. SIGTERM, after 10 s SIGKILL. The data stay. Throws FindNatsError when a start is
 * going on for more than 30 s, or when the process does not end.
 */
export async function stopShared(
  options: HomeOptions & { readonly clock: Clock; readonly signal?: AbortSignal | undefined },
): Promise<StopResult> {
  const { clock, signal } = options;
  const home = locateHome(options);
  const nothing = { stopped: false, detail: `no shared nats-server of ${home.path} is running` };
  if (ownProcesses(home).length === 0 && readState(home) === undefined) return nothing;
  const lock = await waitLock(home.lockFile, "stopping nats-server", {
    clock,
    timeoutMs: stopLockMs,
    signal,
  });
  try {
    const pids = ownProcesses(home);
    for (const pid of pids) await end(home, pid, clock);
    if (pids.length === 0 && (await askServer(home, clock, signal)) !== undefined) {
      throw new FindNatsError(
        "The shared nats-server runs where it cannot be seen (a container?). Stop it there.",
      );
    }
    clearState(home);
    const [pid] = pids;
    if (pid === undefined) return nothing;
    const detail = `stopped the shared nats-server (process ${pid}); its data stay in ${home.dataFolder}`;
    return { stopped: true, pid, detail };
  } finally {
    lock.release();
  }
}

/** Not abortable: once told to end, it is seen to end. */
async function end(home: Home, pid: number, clock: Clock): Promise<void> {
  const start = processStart(pid);
  for (const [signal, waitMs] of [
    ["SIGTERM", termMs],
    ["SIGKILL", killMs],
  ] as const) {
    const endMs = clock.monotonicMs() + waitMs;
    if (ownProcesses(home).includes(pid)) kill(pid, signal);
    while (clock.monotonicMs() < endMs) {
      if (hasEnded(pid, start)) return;
      await clock.sleep(pollMs);
    }
  }
  throw new FindNatsError(`The shared nats-server (process ${pid}) did not end. See ${home.logFile}.`);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended between our look and the signal.
  }
}

export type SharedStatus = {
  /** The process is there, or something answers in its name. */
  readonly running: boolean;
  /** It answers as the server of this home. */
  readonly answers: boolean;
  readonly pid: number | undefined;
  /** The record, when there is one; it may be of a server that has ended. */
  readonly server: SharedServer | undefined;
  readonly home: string;
  readonly logFile: string;
  /** One readable line. */
  readonly detail: string;
};

/** Looks at the shared server of this home and changes nothing. */
export async function sharedStatus(options: HomeOptions & { readonly clock: Clock }): Promise<SharedStatus> {
  const home = locateHome(options);
  const server = readState(home);
  const [pid] = ownProcesses(home);
  const answer = await askServer(home, options.clock);
  const answers = answer !== undefined;
  const running = answers || pid !== undefined;
  const port = answer?.port ?? server?.port ?? "unknown port";
  const where = `process ${pid ?? "unknown"}, 127.0.0.1:${port}`;
  const detail = !running
    ? `no shared nats-server of ${home.path} is running`
    : answer !== undefined
      ? `shared nats-server ${answer.info.version} (${where}) answers; data in ${home.dataFolder}`
      : `shared nats-server (${where}) runs but does not answer; see ${home.logFile}`;
  return { running, answers, pid, server, home: home.path, logFile: home.logFile, detail };
}
