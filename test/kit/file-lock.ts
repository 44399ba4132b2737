/** One test process at a time: a lock file that holds its owner's process id, taken over when the owner has died. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const WAIT_MS = 10 * 60_000;
const POLL_MS = 100;

/** Runs `task` while holding the lock at `path`. Rejects when others hold it for more than ten minutes. */
export async function withFileLock<T>(path: string, task: () => Promise<T>): Promise<T> {
  mkdirSync(dirname(path), { recursive: true });
  const until = performance.now() + WAIT_MS;
  while (!take(path)) {
    if (!holderLives(path)) rmSync(path, { force: true });
    else if (performance.now() > until) throw new Error(`waited too long for a lock. Fix: remove ${path}`);
    else await sleep(POLL_MS);
  }
  try {
    return await task();
  } finally {
    rmSync(path, { force: true });
  }
}

function take(path: string): boolean {
  try {
    writeFileSync(path, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

function holderLives(path: string): boolean {
  try {
    const pid = Number(readFileSync(path, "utf8"));
    // Empty: its owner is about to write its id.
    if (pid !== 0) process.kill(pid, 0);
    return true;
  } catch (error) {
    // Given back between two looks: somebody else may have it by now.
    return error instanceof Error && "code" in error && ["EPERM", "ENOENT"].includes(String(error.code));
  }
}
