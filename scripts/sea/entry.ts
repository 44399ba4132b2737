// First code of the bundle inside the executable. One program, two names: as `weft` it is the CLI, under any other
// name (`weftd`, `daprd`, or whatever it was renamed to) it is the sidecar.
import { basename } from "node:path";

/** True when the program was started as `weft`, also `weft-linux-x64` or `weft.exe`, but not `weftd`. */
export function isCli(argv0: string, execPath: string): boolean {
  for (const path of [argv0, execPath]) {
    const name = /^(weftd?|daprd)(?![a-z0-9])/.exec(basename(path))?.[1];
    if (name !== undefined) return name === "weft";
  }
  return false;
}

if (isCli(process.argv0, process.execPath)) void import("../../src/cli/main.ts");
else void import("../../src/main.ts");
