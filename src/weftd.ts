/**
 * weftd: flags -> lives of one sidecar, a new one after each SIGHUP. Exit codes: 0 after a clean end, 1 after a failure
 * or a forced end, 2 for a wrong command line.
 */
import { rmSync } from "node:fs";
import { socketPaths } from "./apis.ts";
import { resolveOptions, type SidecarOptions } from "./config/options.ts";
import { parseFlags, type Flags } from "./config/flags.ts";
import { runSidecar } from "./life.ts";
import type { Orders } from "./orders.ts";
import { instanceName } from "./runtime.ts";
import { openLog } from "./telemetry/log.ts";
import { systemClock } from "../mesh/index.ts";
import { version } from "./version.ts";
import { waitForSidecar } from "./wait.ts";
import { textOf } from "./lib/thrown.ts";

/** Runs until the sidecar ends; resolves with the exit code. Closes `orders`. */
export async function weftd(
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  orders: Orders,
): Promise<number> {
  const outcome = parseFlags(argv, env, { version, commit: env["WEFT_COMMIT"] ?? "" });
  if (outcome.kind === "run") return run(outcome.flags, env, orders);
  // What is no sidecar ends by signals as every program does.
  orders.close();
  if (outcome.kind === "wait") return waitForSidecar(outcome.httpPort);
  process[outcome.stream].write(outcome.text);
  return outcome.exitCode;
}

async function run(flags: Flags, env: NodeJS.ProcessEnv, orders: Orders): Promise<number> {
  let options: SidecarOptions;
  let opened: ReturnType<typeof openLog>;
  try {
    options = resolveOptions(flags, env);
    const { appId } = options;
    opened = openLog({
      ...options.log,
      appId,
      instance: instanceName,
      version,
      clock: systemClock,
      terminal: process.stdout.isTTY,
    });
  } catch (error) {
    process.stdout.write(`Fatal error from runtime: ${textOf(error)}\n`);
    return 1;
  }
  const { log, close } = opened;
  try {
    for (;;) {
      const end = await runSidecar({ options, env, log, orders, clock: systemClock });
      if (end !== "reload") return end;
    }
  } catch (error) {
    log.fatal(`Fatal error from runtime: ${textOf(error)}`);
    return 1;
  } finally {
    // A forced end closes no server.
    for (const path of socketPaths(options)) rmSync(path, { force: true });
    orders.close();
    close();
  }
}
