/**
 * The name under which the system lists this process. Node calls every main thread `MainThread`; operators look for
 * `weftd`, and Dapr's CLI finds sidecars by the name `daprd`.
 */
import { writeFileSync } from "node:fs";
import { basename } from "node:path";

/** Takes the name that the program was started under, `weftd` from source. Does nothing where there is no /proc. */
export function nameProcess(argv0: string): void {
  const started = basename(argv0);
  const name = started.startsWith("daprd") || started.startsWith("weftd") ? started : "weftd";
  try {
    // Unlike process.title, this leaves the command line as it is, which Dapr's CLI reads.
    writeFileSync("/proc/self/comm", name.slice(0, 15));
  } catch {
    // Only a name.
  }
}
