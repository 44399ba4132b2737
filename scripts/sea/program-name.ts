// Which of the two programs an executable was started as.
import { basename } from "node:path";

/**
 * True when the program was started as `weft`, also `weft-linux-x64`, but not as `weftd` or `daprd`. The name it was
 * called by counts first, then the name of its file; a name that says nothing means the sidecar.
 */
export function isCli(argv0: string, execPath: string): boolean {
  for (const path of [argv0, execPath]) {
    const name = /^(weftd?|daprd)(?![a-z0-9])/.exec(basename(path))?.[1];
    if (name !== undefined) return name === "weft";
  }
  return false;
}
