/** Where things stand in the checkout that the tests run. */
import { existsSync } from "node:fs";
import { join } from "node:path";

/** Top folder of the checkout. */
export const checkout = join(import.meta.dirname, "..", "..");

/** The Node that programs under test run on: the pinned one, else the one running the tests. */
export function nodeBinary(): string {
  const pinned = join(checkout, "node_modules", `node-${process.platform}-${process.arch}`, "bin", "node");
  return existsSync(pinned) ? pinned : process.execPath;
}

/** Command and first arguments of the sidecar: from source, or the executable that WEFT_TEST_BIN names. */
export function sidecarCommand(): readonly [string, ...string[]] {
  const binary = process.env["WEFT_TEST_BIN"];
  if (binary !== undefined && binary !== "") return [binary];
  return [nodeBinary(), join(checkout, "src", "main.ts")];
}
