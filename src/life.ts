/**
 * One life of a sidecar: files are read, it runs until an order or a failure ends it, and it ends in one of the ways
 * of the contract: gracefully, held back, by force, or to be started again.
 */
import type { Clock } from "../mesh/index.ts";
import { enabledFeatures } from "./config/kinds/configuration.ts";
import { loadConfiguration } from "./config/load-configuration.ts";
import { configurationEnv, type SidecarOptions } from "./config/options.ts";
import { type FileMemory, loadResources } from "./config/resources.ts";
import { followFiles, warningsOf } from "./hot-reload.ts";
import { formatGoDuration } from "./lib/duration.ts";
import type { Order, Orders } from "./orders.ts";
import { startSidecar, type Sidecar } from "./runtime.ts";
import type { Log } from "./telemetry/log.ts";
import { version } from "./version.ts";

/** Delay before a forced end, so that the answer of the shutdown call leaves, ms. */
const forcedExitMs = 100;
/** Beyond the grace period, time for the parts to tell callers that they were given up, ms. */
const overrunMs = 1_000;

export type LifeInit = {
  readonly options: SidecarOptions;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  readonly orders: Orders;
  readonly clock: Clock;
};

/** Resolves with the exit code, or `reload` to begin the next life. Rejects when it cannot start or breaks. */
export async function runSidecar(init: LifeInit): Promise<number | "reload"> {
  const over = new AbortController();
  try {
    return await live(init, over.signal);
  } finally {
    over.abort(new Error("this life is over"));
  }
}

async function live(init: LifeInit, over: AbortSignal): Promise<number | "reload"> {
  const { options, log, orders } = init;
  const watching = new AbortController();
  const watched = AbortSignal.any([over, watching.signal]);
  const starting = start(init, watched);
  const early = orders.take(["end", "force", "exit"], watched);
  for (const promise of [starting, early]) promise.catch(() => {});
  const first = await Promise.race([starting, early]);
  if ("kind" in first) return endStart(first, init);

  const broken = first.running.then(() => new Promise<never>(() => {}));
  const reload = orders.take(["reload"], watched);
  reload.catch(() => {});
  const order = await Promise.race([early, reload, broken]);
  // Later orders are for whoever ends this life.
  watching.abort(new Error("an order was taken"));
  switch (order.kind) {
    case "force":
      log.info(`${order.text}: shutting down at once`);
      await init.clock.sleep(forcedExitMs);
      return 1;
    case "exit":
      return 1;
    case "reload": {
      log.info(`${order.text}: reading configuration and resources again`);
      const how = await endGracefully(first, init, over);
      // A stream that nobody ends must not cost the sidecar its life.
      return how === "clean" || how === "late" ? "reload" : 1;
    }
    case "end": {
      log.info(`${order.text}: beginning shutdown`);
      if (order.by === "signal" && options.shutdown.blockMs > 0) {
        const forced = await holdBack(first, init, over);
        if (forced !== undefined) return forced;
      }
      return (await endGracefully(first, init, over)) === "clean" ? 0 : 1;
    }
  }
}

/** Files are followed until the signal is aborted. */
async function start(init: LifeInit, watched: AbortSignal): Promise<Sidecar> {
  const { options, env, log, orders } = init;
  for (const warning of options.warnings) log.warn(warning);
  log.info(`Starting Weft ${version} -- Node ${process.version}, pid ${process.pid}, app ${options.appId}`);
  const configuration = await loadConfiguration(
    options.resources.configFiles,
    configurationEnv(options, env),
  );
  const memory: FileMemory = new Map();
  const { directories } = options.resources;
  const resources = await loadResources(directories, { appId: options.appId, env }, memory);
  const files = { configuration, resources };
  for (const line of warningsOf(files)) log.warn(line);
  const sidecar = await startSidecar({
    ...files,
    options,
    log,
    env,
    onShutdownRequest: (force) => {
      const text = "Received a call of the shutdown API";
      orders.give(force ? { kind: "force", text } : { kind: "end", by: "api", text });
    },
  });
  if (enabledFeatures(configuration).includes("HotReload")) {
    const watch = await followFiles({ ...init, files, memory, update: sidecar.update });
    if (watched.aborted) watch.close();
    else watched.addEventListener("abort", () => watch.close(), { once: true });
  }
  return sidecar;
}

/** Nothing is served yet, so there is nothing to wait for. */
function endStart(order: Order, { log }: LifeInit): number {
  log.info(`${order.text}: shutting down during the start`);
  if (order.kind !== "end") return 1;
  log.info("Daprd shutdown gracefully");
  return 0;
}

/** --dapr-block-shutdown-duration. Resolves with an exit code when it is cut short by force. */
async function holdBack(sidecar: Sidecar, init: LifeInit, over: AbortSignal): Promise<number | undefined> {
  const { options, log, clock, orders } = init;
  const { blockMs, graceMs } = options.shutdown;
  log.info(`Blocking graceful shutdown for ${formatGoDuration(blockMs)} or until the app reports unhealthy`);
  const done = new AbortController();
  const held = sidecar.hold(graceMs);
  const order = orders.take(["end", "force", "exit"], AbortSignal.any([over, done.signal]));
  const wait = clock.sleep(blockMs, done.signal);
  for (const promise of [order, wait, held]) promise.catch(() => {});
  const why = await Promise.race([
    wait.then(() => "Block shutdown period expired"),
    sidecar.appIll().then(() => "App reported unhealthy"),
    order,
  ]);
  done.abort(new Error("the block is over"));
  log.info(`${typeof why === "string" ? why : why.text}: entering shutdown`);
  if (typeof why === "string" || why.kind === "end") return undefined;
  if (why.kind === "force") await clock.sleep(forcedExitMs);
  return 1;
}

/** How an end went: `late` cut what was left after the grace period, `stuck` did not come to an end at all. */
type Ending = "clean" | "late" | "stuck" | "forced";

async function endGracefully(sidecar: Sidecar, init: LifeInit, over: AbortSignal): Promise<Ending> {
  const { options, log, clock, orders } = init;
  const { graceMs } = options.shutdown;
  log.info("dapr shutting down");
  const startMs = clock.monotonicMs();
  const overrun = Promise.withResolvers<"overrun">();
  const timer = clock.setTimeout(() => overrun.resolve("overrun"), graceMs + overrunMs);
  const stopped = sidecar.stop(graceMs).then(() => "stopped" as const);
  const forced = orders.take(["force", "exit"], over);
  for (const promise of [stopped, forced]) promise.catch(() => {});
  const how = await Promise.race([stopped, overrun.promise, forced]);
  timer.cancel();
  if (typeof how !== "string") {
    log.error(`${how.text}: ending at once`);
    return "forced";
  }
  if (how === "overrun" || clock.monotonicMs() - startMs >= graceMs) {
    log.error("Graceful shutdown timeout exceeded, forcing shutdown");
    return how === "overrun" ? "stuck" : "late";
  }
  log.info("Daprd shutdown gracefully");
  return "clean";
}
