/** How a sidecar is watched from outside: metrics and their port, traces, the profiler; each by its settings. */
import type { Clock } from "../mesh/index.ts";
import type { ConfigurationResource } from "./config/kinds/configuration.ts";
import type { SidecarOptions } from "./config/options.ts";
import type { Log } from "./telemetry/log.ts";
import { createMetricsServer } from "./telemetry/metrics-server.ts";
import { createMetrics, type RunningMetrics } from "./telemetry/metrics.ts";
import { RunningTracing } from "./telemetry/tracing/running.ts";
import type { Counts } from "./telemetry/profiling.ts";

export type ObservationInit = {
  readonly options: SidecarOptions;
  readonly configuration: ConfigurationResource;
  readonly log: Log;
  readonly env: NodeJS.ProcessEnv;
  /** For the profiler's page. */
  readonly counts: Counts;
};

/** Both follow the Configuration by their `set`. */
export type Observation = {
  readonly metrics: RunningMetrics;
  readonly tracing: RunningTracing;
};

/** What it opens is closed with `opened`. Rejects with Error when a port or an endpoint cannot be had. */
export async function openObservation(
  init: ObservationInit,
  clock: Clock,
  opened: AsyncDisposableStack,
): Promise<Observation> {
  const { options, configuration, log, env } = init;
  const { appId } = options;
  const metrics = createMetrics(appId, configuration.metrics);
  if (options.metrics.enabled) {
    const server = await createMetricsServer(metrics, options.metrics, log);
    opened.defer(() => server.close());
  }
  const tracing = new RunningTracing({ appId, env, clock, log, metrics });
  await tracing.set(configuration.tracing);
  opened.defer(() => tracing.close());
  const profiling = await openProfiling(init, clock);
  opened.defer(() => profiling?.close());
  return { metrics, tracing };
}

/** The profiler is loaded only where it is wanted. */
async function openProfiling(
  { options, counts, log }: ObservationInit,
  clock: Clock,
): Promise<{ close(): Promise<void> } | undefined> {
  if (!options.profiling.enabled) return undefined;
  const { createProfilingServer } = await import("./telemetry/profiling.ts");
  const { port } = options.profiling;
  const server = await createProfilingServer({ addresses: options.api.addresses, port }, clock, counts);
  log.info(`profiling on port ${port}: /debug/pprof/`);
  return server;
}
