/** How to start the sidecar that belongs to this CLI: from source, or the executable of which this is a part. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { isSea } from "node:sea";

export type SidecarCommand = {
  readonly command: string;
  readonly args: readonly string[];
  /** Name to call it by. */
  readonly argv0?: string;
};

export function sidecarCommand(): SidecarCommand {
  if (!isSea()) return { command: process.execPath, args: [join(import.meta.dirname, "..", "main.ts")] };
  // The file of the right name shows as `weftd` in process lists; one program under the other name works too.
  const beside = join(dirname(process.execPath), "weftd");
  if (existsSync(beside)) return { command: beside, args: [] };
  return { command: process.execPath, args: [], argv0: "weftd" };
}

/**
 * Folder of compiled code that `bin/weft` names for Weft itself; undefined in an executable. Apps must not inherit it.
 */
export function ownCompileCache(): string | undefined {
  return isSea() ? undefined : join(import.meta.dirname, "..", "..", ".cache", "node-compile");
}
