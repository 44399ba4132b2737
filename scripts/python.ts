// A Python with the packages that test/compat needs, in .cache/venv: made once, made anew when the list changes.
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root, runCommand, say } from "./command.ts";

const requirements = join(root, "test", "compat", "requirements.txt");
const folder = join(root, ".cache", "venv");
const stamp = join(folder, "requirements.sha256");

/** Path of the interpreter that `ensurePython` provides, whichever way it was made. */
export const pythonPath = join(folder, "bin", "python");

/**
 * Makes the environment when it is missing or out of date, and resolves to its interpreter; to `undefined` when no
 * test needs one (no requirements.txt). Rejects with what to install when Python or pip cannot be had.
 */
export async function ensurePython(): Promise<string | undefined> {
  if (!existsSync(requirements)) return undefined;
  const wanted = createHash("sha256").update(readFileSync(requirements)).digest("hex");
  if (existsSync(pythonPath) && existsSync(stamp) && readFileSync(stamp, "utf8") === wanted)
    return pythonPath;
  const started = performance.now();
  say("set-up: Python packages of test/compat/requirements.txt into .cache/venv ...");
  rmSync(folder, { recursive: true, force: true });
  const made = await runCommand("python3", ["-m", "venv", folder]).catch(notFound);
  if (made.code === 0) await install([pythonPath, "-m", "pip", "install"]);
  else await installBeside(made.output);
  writeFileSync(stamp, wanted);
  say(`set-up: Python packages ready in ${((performance.now() - started) / 1000).toFixed(0)} s`);
  return pythonPath;
}

/** Debian has python3 without venv: packages go into a folder, and `python` is a script that adds that folder. */
async function installBeside(whyNoVenv: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  const packages = join(folder, "packages");
  mkdirSync(join(folder, "bin"), { recursive: true });
  await install(["python3", "-m", "pip", "install", "--target", packages]).catch((error: unknown) => {
    throw new Error(`${String(error)}\nNor could a virtual environment be made:\n${whyNoVenv}`, {
      cause: error,
    });
  });
  writeFileSync(pythonPath, `#!/bin/sh\nPYTHONPATH='${packages}' exec python3 "$@"\n`);
  chmodSync(pythonPath, 0o755);
}

async function install(pip: readonly [string, ...string[]]): Promise<void> {
  const [command, ...args] = pip;
  const env = { PIP_DISABLE_PIP_VERSION_CHECK: "1", PIP_NO_INPUT: "1", PIP_ROOT_USER_ACTION: "ignore" };
  const result = await runCommand(command, [...args, "--quiet", "-r", requirements], { env }).catch(notFound);
  if (result.code === 0) return;
  throw new Error(`${pip.join(" ")} failed. Fix: install Python 3.10+ with venv and pip.\n${result.output}`);
}

function notFound(error: unknown): { code: number; output: string } {
  return { code: 1, output: String(error) };
}
