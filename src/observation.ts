/** How a sidecar is watched from outside: metrics and their port, traces, the profiler; each by its settings. */
import type { Clock } from "../mesh/index.ts";
import type { ConfigurationResource } from "./config/kinds/configuration.ts";
import type { SidecarOptions } from "./config/options.ts";
import type { Log } from "./telemetry/log.ts";
import { createMetricsServer } from "./telemetry/metrics-server.ts";
import { createMetrics, type Metrics, noMetrics } from "./telemetry/metrics.ts";
import { tracingIsOff } from "./telemetry/tracing/settings.ts";
import type { Counts } from "./telemetry/profiling.ts";
import type { Tracer } from "./telemetry/tracing/tracer.ts";

export type ObservationInit = {
  readonly options: SidecarOptions;
  readonly configuration: ConfigurationResource;
  readonly log: Log;
  readonly env: NodeJS.ProcessEnv;
  /** For the profiler's page. */
  readonly counts: Counts;
};

export type Observation = {
  readonly metrics: Metrics;
  /** Undefined when tracing is off. */
  readonly tracer: Tracer | undefined;
};

/** Time for the last spans to leave, ms. */
const spanGraceMs = 1_000;

/** What it opens is closed with `opened`. Rejects with Error when a port or an endpoint cannot be had. */
export async function openObservation(
  init: ObservationInit,
  clock: Clock,
  opened: AsyncDisposableStack,
): Promise<Observation> {
  const { options, configuration, log } = init;
  const { metrics: settings } = configuration;
  const problem = (text: string): void => log.error(`spec.metrics.rules: ${text}`);
  const metrics = settings.enabled ? createMetrics(options.appId, settings, problem) : noMetrics;
  if (options.metrics.enabled) {
    const server = await createMetricsServer(metrics, options.metrics, log);
    opened.defer(() => server.close());
  }
  const tracer = await openTracer(init, clock, metrics, opened);
  const profiling = await openProfiling(init, clock);
  opened.defer(() => profiling?.close());
  return { metrics, tracer };
}

/** Nothing of tracing is loaded when it is off. */
async function openTracer(
  { options, configuration, env, log }: ObservationInit,
  clock: Clock,
  metrics: Metrics,
  opened: AsyncDisposableStack,
): Promise<Tracer | undefined> {
  const settings = configuration.tracing;
  if (tracingIsOff(settings)) return undefined;
  const { openTracing } = await import("./telemetry/tracing/open.ts");
  const tracing = await openTracing({ settings, appId: options.appId, env, clock, log, metrics });
  opened.defer(() => tracing.close(spanGraceMs));
  return tracing.tracer;
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
