/**
 * The Python interpreter of the compatibility tests, with what test/compat/requirements.txt pins installed below
 * .cache. Made on first use; several test processes may ask at once.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { checkout } from "./paths.ts";

export type Python = {
  /** Path of the interpreter. */
  readonly command: string;
  /** To be added to the environment of every program run with it. */
  readonly env: Readonly<Record<string, string>>;
};

const requirements = join(checkout, "test", "compat", "requirements.txt");
const cache = join(checkout, ".cache");
const venv = join(cache, "venv");
const packages = join(cache, "python-packages");
const marker = join(cache, "python.json");
const lock = join(cache, "python.lock");
const INSTALL_LIMIT_MS = 10 * 60_000;
const LOCK_POLL_MS = 200;

/** Resolves to an interpreter that has the pinned packages. Rejects with pip's words and what to install. */
export async function python(): Promise<Python> {
  const wanted = createHash("sha256").update(readFileSync(requirements)).digest("hex");
  const present = readMarker(wanted);
  if (present !== undefined) return present;
  mkdirSync(cache, { recursive: true });
  await takeLock();
  try {
    const meanwhile = readMarker(wanted);
    if (meanwhile !== undefined) return meanwhile;
    const made = await install();
    writeFileSync(marker, JSON.stringify({ wanted, ...made }));
    return made;
  } finally {
    rmSync(lock, { force: true });
  }
}

function readMarker(wanted: string): Python | undefined {
  try {
    const read = JSON.parse(readFileSync(marker, "utf8")) as Python & { wanted: string };
    if (read.wanted !== wanted || !existsSync(read.command)) return undefined;
    return { command: read.command, env: read.env };
  } catch {
    return undefined;
  }
}

/** A virtual environment; where Python comes without one (Debian's python3-venv missing), a folder of packages. */
async function install(): Promise<Python> {
  for (const old of [venv, packages, marker]) rmSync(old, { recursive: true, force: true });
  const base = await findPython();
  const pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--requirement", requirements];
  const own = join(venv, "bin", "python");
  const made = await run(base, ["-m", "venv", venv]);
  if (made.code === 0) {
    const installed = await run(own, pip);
    if (installed.code !== 0) throw new Error(`installing ${requirements} failed:\n${installed.output}`);
    return { command: own, env: { PYTHONUNBUFFERED: "1" } };
  }
  const installed = await run(base, [...pip, "--target", packages]);
  if (installed.code === 0) return { command: base, env: { PYTHONUNBUFFERED: "1", PYTHONPATH: packages } };
  throw new Error(
    `${base} has neither venv nor pip. Fix: install them (Debian, Ubuntu: apt-get install python3-venv python3-pip)\n` +
      `${made.output}\n${installed.output}`,
  );
}

/** Full path of a Python >= 3.10. */
async function findPython(): Promise<string> {
  const check = "import sys; assert sys.version_info >= (3, 10); print(sys.executable)";
  for (const name of ["python3", "python"]) {
    const found = await run(name, ["-c", check]);
    if (found.code === 0) return found.output.trim();
  }
  throw new Error("the compatibility tests need Python 3.10 or newer as python3. Fix: install it and run them again");
}

function run(command: string, args: readonly string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    let output = "";
    const child = spawn(command, [...args], { stdio: ["ignore", "pipe", "pipe"], timeout: INSTALL_LIMIT_MS });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => (output = (output + chunk.toString("utf8")).slice(-16_384)));
    }
    child.on("error", (error) => resolve({ code: 127, output: error.message }));
    child.on("close", (code) => resolve({ code: code ?? 1, output }));
  });
}

/** One installation at a time. A lock whose holder has died is taken over. */
async function takeLock(): Promise<void> {
  const until = performance.now() + INSTALL_LIMIT_MS;
  for (;;) {
    try {
      writeFileSync(lock, String(process.pid), { flag: "wx" });
      return;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    }
    if (!holderLives()) rmSync(lock, { force: true });
    if (performance.now() > until) throw new Error(`waited too long for another installation; remove ${lock}`);
    await sleep(LOCK_POLL_MS);
  }
}

function holderLives(): boolean {
  try {
    const pid = Number(readFileSync(lock, "utf8"));
    // Empty: its holder is about to write its id.
    if (pid === 0) return true;
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
