/**
 * A lock file between processes of one user: made with O_EXCL, holds who has it, and is taken over when that
 * process is dead. All file work is synchronous, so that a process can die only between whole steps.
 */
import { closeSync, openSync, readFileSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import type { Clock } from "../clock.ts";
import { codeOf, FindNatsError } from "./errors.ts";
import { hasEnded, processStart } from "./process.ts";

/** Longest time that one holder may need: a build of nats-server from source with room to spare. */
const maxHoldMs = 15 * 60_000;
/**
 * A file that stays empty or a breaker that stays for so long was left by a process killed between two calls.
 */
const unfinishedMs = 5_000;
const pollMs = 40;

export type Lock = {
  /** False when another process took the lock over; ask before a step that must not happen twice. */
  isMine(): boolean;
  /** Gives the lock back. May be called again. */
  release(): void;
};

/** `held` names the holder, for messages. */
export type LockAttempt =
  | { readonly lock: Lock; readonly held?: never }
  | { readonly lock?: never; readonly held: string };

type Holder = { pid: number; start: string | undefined; atMs: number; purpose: string | undefined };

/** Tries once, without waiting. `purpose` is shown to those who wait. */
export function tryLock(path: string, purpose: string, clock: Clock): LockAttempt {
  const content = JSON.stringify({
    pid: process.pid,
    start: processStart(process.pid),
    atMs: clock.nowMs(),
    purpose,
    nonce: randomUUID(),
  });
  // Each turn ends in the lock, in a live holder, or in one stale lock less.
  for (let attempt = 0; attempt < 5; attempt += 1) {
    try {
      writeFileSync(path, content, { flag: "wx", mode: 0o600 });
      return { lock: lockOf(path, content) };
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
    const found = read(path);
    if (found === undefined) continue;
    if (!isStale(path, found, clock)) return { held: describe(found) };
    if (!breakStale(path, found, clock)) break;
  }
  return { held: "another process" };
}

/** Waits for the lock; throws FindNatsError after `timeoutMs`, the signal's reason when aborted. */
export async function waitLock(
  path: string,
  purpose: string,
  options: { clock: Clock; timeoutMs: number; signal?: AbortSignal | undefined },
): Promise<Lock> {
  const { clock, timeoutMs, signal } = options;
  const endMs = clock.monotonicMs() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const attempt = tryLock(path, purpose, clock);
    if (attempt.lock !== undefined) return attempt.lock;
    if (clock.monotonicMs() >= endMs) {
      throw new FindNatsError(
        `${path} is held by ${attempt.held} for more than ${timeoutMs} ms. Try again later.`,
      );
    }
    await clock.sleep(pollMs, signal);
  }
}

function lockOf(path: string, content: string): Lock {
  const isMine = (): boolean => read(path) === content;
  return {
    isMine,
    release() {
      if (isMine()) remove(path);
    },
  };
}

function isStale(path: string, content: string, clock: Clock): boolean {
  const holder = parse(content);
  if (holder === undefined) return ageMs(path, clock) > unfinishedMs;
  // Looks beyond the id, which may be in use again, most of all in a container, where ids start at 1 each time.
  if (hasEnded(holder.pid, holder.start)) return true;
  return clock.nowMs() - holder.atMs > maxHoldMs;
}

/**
 * Removes the lock if it still is the stale one that was read. A second O_EXCL file keeps two breakers apart:
 * without it the slower one would remove the new lock of the faster one.
 */
function breakStale(path: string, content: string, clock: Clock): boolean {
  const breaker = `${path}.break`;
  try {
    closeSync(openSync(breaker, "wx", 0o600));
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
    if (ageMs(breaker, clock) > unfinishedMs) remove(breaker);
    return false;
  }
  try {
    if (read(path) === content) remove(path);
  } finally {
    remove(breaker);
  }
  return true;
}

function parse(content: string): Holder | undefined {
  try {
    const value: unknown = JSON.parse(content);
    if (typeof value !== "object" || value === null || !("pid" in value) || !("atMs" in value))
      return undefined;
    if (typeof value.pid !== "number" || typeof value.atMs !== "number") return undefined;
    const start = "start" in value && typeof value.start === "string" ? value.start : undefined;
    const purpose = "purpose" in value && typeof value.purpose === "string" ? value.purpose : undefined;
    return { pid: value.pid, start, atMs: value.atMs, purpose };
  } catch {
    return undefined;
  }
}

function describe(content: string): string {
  const holder = parse(content);
  if (holder === undefined) return "another process";
  const { pid, purpose } = holder;
  return purpose === undefined ? `process ${pid}` : `process ${pid} (${purpose})`;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
}

function ageMs(path: string, clock: Clock): number {
  try {
    return clock.nowMs() - statSync(path).mtimeMs;
  } catch {
    return 0;
  }
}
