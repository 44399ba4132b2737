/**
 * The Python interpreter of the compatibility tests, with what test/compat/requirements.txt pins. `npm test` provides
 * it beforehand; a test that is run alone makes it on first use.
 */
import { join } from "node:path";
import { ensurePython } from "../../scripts/python.ts";
import { withFileLock } from "./file-lock.ts";
import { checkout } from "./paths.ts";
import { startProcess } from "./process.ts";
import type { RunningProcess } from "./process.ts";

/** Path of an interpreter that has the pinned packages. Rejects with pip's words and what to install. */
export async function python(): Promise<string> {
  const given = process.env["WEFT_TEST_PYTHON"];
  if (given !== undefined && given !== "") return given;
  const made = await withFileLock(join(checkout, ".cache", "python.lock"), ensurePython);
  if (made === undefined) throw new Error("test/compat/requirements.txt is missing, so no Python was set up");
  return made;
}

/** Runs a Python program of the checkout, e.g. `test/compat/python/caller.py`, unbuffered. */
export async function startPython(
  program: string,
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<RunningProcess> {
  return startProcess({
    name: `python ${program}`,
    command: await python(),
    args: [join(checkout, program), ...args],
    env: { PYTHONUNBUFFERED: "1", PYTHONDONTWRITEBYTECODE: "1", ...env },
  });
}

/** Runs a Python program to its end. Resolves with its output; rejects with it when the exit code is not 0. */
export async function runPython(
  program: string,
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  await using running = await startPython(program, args, env);
  const code = await running.exited;
  if (code !== 0)
    throw new Error(`${running.name} ${args.join(" ")} ended with code ${code}\n${running.logs()}`);
  return running.logs();
}
