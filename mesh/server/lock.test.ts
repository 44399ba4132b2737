import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../clock.ts";
import { tryLock, waitLock, type Lock } from "./lock.ts";
import { processStart } from "./process.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-lock-"));
  path = join(folder, "lock");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function take(clock = systemClock): Lock {
  const { lock } = tryLock(path, "test", clock);
  if (lock === undefined) throw new Error("the lock is held");
  return lock;
}

/** The id of a process that has just ended. */
function deadPid(): number {
  return spawnSync(process.execPath, ["-e", "0"]).pid;
}

function leave(holder: object): void {
  writeFileSync(path, JSON.stringify({ pid: process.pid, atMs: Date.now(), ...holder }));
}

test("is held once and names the holder, also within one process", () => {
  const lock = take();
  expect(lock.isMine()).toBe(true);
  expect(tryLock(path, "test", systemClock)).toEqual({ held: `process ${process.pid} (test)` });
  lock.release();
  expect(existsSync(path)).toBe(false);
  take().release();
});

test.each([
  [{ purpose: 'building "v2"\n' }, 'process PID (building "v2"\n)'],
  [{ note: '"purpose":"another"' }, "process PID"],
  [{ purpose: 7 }, "process PID"],
])("a holder that left %j is named", (left, held) => {
  leave(left);
  expect(tryLock(path, "test", systemClock)).toEqual({ held: held.replace("PID", String(process.pid)) });
});

test("the lock of a dead process is taken over", () => {
  leave({ pid: deadPid() });
  expect(take().isMine()).toBe(true);
});

test("the lock of an earlier process with a reused id is taken over where the system tells them apart", () => {
  leave({ start: "another boot/1" });
  const told = processStart(process.pid) !== undefined;
  expect(tryLock(path, "test", systemClock).lock !== undefined).toBe(told);
});

test("the lock of a live process is kept, also without a start mark", () => {
  leave({});
  expect(tryLock(path, "test", systemClock).lock).toBeUndefined();
});

test("a lock held for longer than any work takes is taken over, and its holder can see it", () => {
  const first = take();
  const later = { ...systemClock, nowMs: () => Date.now() + 16 * 60_000 };
  const second = take(later);
  expect(first.isMine()).toBe(false);
  first.release();
  expect(second.isMine()).toBe(true);
  second.release();
});

test("an empty file is a lock being written; after a while it is nobody's", () => {
  writeFileSync(path, "");
  expect(tryLock(path, "test", systemClock).lock).toBeUndefined();
  utimesSync(path, 0, 0);
  take().release();
});

test("while one process breaks a stale lock, another keeps off", () => {
  leave({ pid: deadPid() });
  const stale = readFileSync(path, "utf8");
  writeFileSync(`${path}.break`, "");
  expect(tryLock(path, "test", systemClock).lock).toBeUndefined();
  expect(readFileSync(path, "utf8")).toBe(stale);
  // Left by a process killed in the middle of it.
  utimesSync(`${path}.break`, 0, 0);
  expect(tryLock(path, "test", systemClock).lock).toBeUndefined();
  take().release();
});

test("waiting ends with the lock, with an error after the bound, or with the signal", async () => {
  const first = take();
  const options = { clock: systemClock, timeoutMs: 10_000 };
  const waiting = waitLock(path, "second", options);
  await expect(waitLock(path, "third", { ...options, timeoutMs: 1 })).rejects.toThrow(
    /held by process \d+ \(test\)/,
  );
  const signal = AbortSignal.abort(new Error("enough"));
  await expect(waitLock(path, "fourth", { ...options, signal })).rejects.toThrow("enough");
  first.release();
  const second = await waiting;
  expect(second.isMine()).toBe(true);
  second.release();
});
