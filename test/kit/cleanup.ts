/**
 * What must not outlive a test run: child processes and temporary folders. A small shell beside this process is told
 * of each; when this process ends in any way, also by kill -9, the shell kills and removes what is left.
 * This file also remembers what runs, so that a failing test can show the logs.
 */
import { spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Writable } from "node:stream";

// Reads "+ pid" and "- pid" lines; the end of input means that the test process is gone. $1 is its temporary folder.
const REAPER = `
live=
while read -r op pid; do
  if [ "$op" = + ]; then live="$live $pid"; continue; fi
  kept=
  for p in $live; do [ "$p" = "$pid" ] || kept="$kept $p"; done
  live=$kept
done
for p in $live; do kill -9 "$p" 2>/dev/null; done
rm -rf -- "$1"
`;

type Reaper = { readonly folder: string; readonly input: Writable };

// The one state of the kit that belongs to the process and not to a test: there is one reaper for all tests in it.
const reaper = ((): (() => Reaper) => {
  let started: Reaper | undefined;
  return () => (started ??= startReaper());
})();

function startReaper(): Reaper {
  const folder = mkdtempSync(join(tmpdir(), "weft-test-"));
  const child = spawn("/bin/sh", ["-c", REAPER, "weft-test-reaper", folder], {
    stdio: ["pipe", "ignore", "ignore"],
    // Its own group: a Ctrl-C at the terminal must not end it before it has done its work.
    detached: true,
    env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin" },
  });
  child.unref();
  if (child.stdin === null) throw new Error("the shell that cleans up after tests did not start");
  child.stdin.on("error", () => {});
  // A pipe to a child keeps this process alive unless it is told not to.
  if ("unref" in child.stdin && typeof child.stdin.unref === "function") child.stdin.unref();
  return { folder, input: child.stdin };
}

/** Parent of all temporary folders of this process; removed when the process ends. */
export function temporaryRoot(): string {
  return reaper().folder;
}

/** From now on `pid` is killed when this process ends. */
export function guardProcess(pid: number): void {
  reaper().input.write(`+ ${pid}\n`);
}

/** The process has ended; its id may belong to somebody else soon. */
export function releaseProcess(pid: number): void {
  reaper().input.write(`- ${pid}\n`);
}

/** Something a test started and whose words help when the test fails. */
export type Witness = {
  readonly name: string;
  logs(): string;
  /** True once it was disposed of: it belongs to tests that have ended. */
  disposed(): boolean;
};

const witnesses = new Set<Witness>();
const MAX_WITNESSES = 256;
const SHOWN_LINES = 60;
const SHOWN_WIDTH = 600;

/** Adds something whose logs `showLogs` prints. */
export function addWitness(witness: Witness): void {
  if (witnesses.size >= MAX_WITNESSES) forgetDisposed();
  if (witnesses.size < MAX_WITNESSES) witnesses.add(witness);
}

/** Drops what earlier tests have disposed of. Call after each test (setup.ts does). */
export function forgetDisposed(): void {
  for (const witness of witnesses) if (witness.disposed()) witnesses.delete(witness);
}

/** The last lines of everything that ran in this test, as one text. */
export function collectLogs(): string {
  const parts = [...witnesses].map((witness) => {
    return `--- ${witness.name}\n${lastLines(witness.logs(), SHOWN_LINES)}`;
  });
  return parts.join("\n");
}

/** The last lines of a log, overlong ones cut. */
export function lastLines(log: string, count: number): string {
  const lines = log.trimEnd().split("\n");
  const cut = lines.length > count ? [`... ${lines.length - count} lines before`] : [];
  const shown = lines
    .slice(-count)
    .map((line) => (line.length > SHOWN_WIDTH ? `${line.slice(0, SHOWN_WIDTH)}...` : line));
  return [...cut, ...shown].join("\n");
}

/**
 * Prints the logs when the test fails, for runners without setup.ts: `showLogsOnFailure(onTestFailed)` with the
 * function of the test's context.
 */
export function showLogsOnFailure(onTestFailed: (task: () => void) => void): void {
  onTestFailed(() => process.stderr.write(`${collectLogs()}\n`));
}
