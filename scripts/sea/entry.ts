// First code of the bundle inside the executable. One program, two names: as `weft` it is the CLI, under any other
// name (`weftd`, `daprd`, or whatever it was renamed to) it is the sidecar.
import { isCli } from "./program-name.ts";

if (isCli(process.argv0, process.execPath)) void import("../../src/cli/main.ts");
else void import("../../src/main.ts");
