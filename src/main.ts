/**
 * weftd: flags -> settings and resources -> sidecar -> signals. Exit codes: 0 after a clean end, 1 after a failure or a
 * forced end, 2 for a wrong command line.
 */
import { enabledFeatures } from "./config/kinds/configuration.ts";
import { loadConfiguration } from "./config/load-configuration.ts";
import { formatProblem, loadResources } from "./config/resources.ts";
import { configurationEnv, resolveOptions, type SidecarOptions } from "./config/options.ts";
import { parseFlags, type Flags } from "./config/flags.ts";
import { instanceName, startSidecar, type Sidecar } from "./runtime.ts";
import { nameProcess } from "./process-name.ts";
import { openLog, type Log } from "./telemetry/log.ts";
import { systemClock } from "../mesh/index.ts";
import { version } from "./version.ts";
import { waitForSidecar } from "./wait.ts";

/** Delay before a forced end, so that the answer of the shutdown call leaves, ms. */
const forcedExitMs = 100;

/** Runs until the sidecar ends; resolves with the exit code. */
async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const outcome = parseFlags(argv, env, { version, commit: env["WEFT_COMMIT"] ?? "" });
  if (outcome.kind === "print") {
    process[outcome.stream].write(outcome.text);
    return outcome.exitCode;
  }
  if (outcome.kind === "wait") return waitForSidecar(outcome.httpPort);
  return run(outcome.flags, env);
}

async function run(flags: Flags, env: NodeJS.ProcessEnv): Promise<number> {
  let options: SidecarOptions;
  try {
    options = resolveOptions(flags, env);
  } catch (error) {
    process.stdout.write(`Fatal error from runtime: ${textOf(error)}\n`);
    return 1;
  }
  const { log, close } = openLog({
    ...options.log,
    appId: options.appId,
    instance: instanceName,
    version,
    clock: systemClock,
  });
  try {
    return await serve(options, env, log);
  } catch (error) {
    log.fatal(`Fatal error from runtime: ${textOf(error)}`);
    return 1;
  } finally {
    close();
  }
}

async function serve(options: SidecarOptions, env: NodeJS.ProcessEnv, log: Log): Promise<number> {
  for (const warning of options.warnings) log.warn(warning);
  log.info(`Starting Weft ${version} -- Node ${process.version}, pid ${process.pid}, app ${options.appId}`);
  const ending = Promise.withResolvers<"graceful" | "forced">();
  const stopListening = listenForSignals((forced) => ending.resolve(forced ? "forced" : "graceful"));
  try {
    const configuration = await loadConfiguration(
      options.resources.configFiles,
      configurationEnv(options, env),
    );
    const resources = await loadResources(options.resources.directories, {
      appId: options.appId,
      env,
    });
    for (const problem of [...configuration.problems, ...resources.problems])
      log.warn(formatProblem(problem));
    const sidecar = await startSidecar({
      options,
      resources,
      apiLogging: options.api.apiLogging ?? configuration.apiLogging.enabled,
      metricsEnabled: configuration.metrics.enabled,
      features: enabledFeatures(configuration),
      log,
      env,
      onShutdownRequest: (force) => {
        log.info(force ? "Shutdown requested: at once" : "Shutdown requested");
        ending.resolve(force ? "forced" : "graceful");
      },
    });
    const failed = sidecar.running.then(
      () => new Promise<never>(() => {}),
      (error: unknown) => Promise.reject(error),
    );
    const how = await Promise.race([ending.promise, failed]);
    if (how === "forced") return await forcedEnd();
    return await gracefulEnd(sidecar, options, log);
  } finally {
    stopListening();
  }
}

async function forcedEnd(): Promise<number> {
  await systemClock.sleep(forcedExitMs);
  return 1;
}

/** Past the grace period, or at a second signal, the end is forced. */
async function gracefulEnd(sidecar: Sidecar, options: SidecarOptions, log: Log): Promise<number> {
  const { graceMs } = options.shutdown;
  log.info("dapr shutting down");
  const second = Promise.withResolvers<"again">();
  const stopListening = listenForSignals(() => second.resolve("again"));
  const overrun = Promise.withResolvers<"overrun">();
  // A little longer than the parts get, so that they can report what they gave up.
  const timer = systemClock.setTimeout(() => overrun.resolve("overrun"), graceMs + 1_000);
  const how = await Promise.race([
    sidecar.stop(graceMs).then(() => "done" as const),
    second.promise,
    overrun.promise,
  ]);
  timer.cancel();
  stopListening();
  if (how === "done") {
    log.info("Daprd shutdown gracefully");
    return 0;
  }
  log.error(
    how === "overrun"
      ? "Graceful shutdown timeout exceeded, forcing shutdown"
      : "Second signal: ending at once",
  );
  return 1;
}

function listenForSignals(onSignal: (again: boolean) => void): () => void {
  let count = 0;
  const listener = (): void => onSignal(++count > 1);
  process.on("SIGINT", listener).on("SIGTERM", listener);
  return () => void process.off("SIGINT", listener).off("SIGTERM", listener);
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

nameProcess(process.argv0);
void main(process.argv.slice(2), process.env).then((exitCode) => process.exit(exitCode));
