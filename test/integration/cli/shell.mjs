// Runs a shell pipeline as a child, for tests of what happens between the programs of one.
import { spawnSync } from "node:child_process";

const { status } = spawnSync("/bin/sh", ["-c", process.argv[2]], { stdio: "inherit" });
process.exit(status ?? 1);
