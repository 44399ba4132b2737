/**
 * Tracing of one sidecar from its settings: which kind of Tracer, and the exporters behind it, each loaded only when it
 * is configured. This file itself is loaded only when tracing is not off.
 */
import type { Clock } from "../../../mesh/index.ts";
import type { TracingSettings } from "../../config/kinds/configuration.ts";
import type { Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { SpanBatch, type SpanExporter } from "./batch.ts";
import type { SpanSink } from "./span.ts";
import { readLimits, readRate, readResource } from "./settings.ts";
import { passingTracer, recordingTracer, type Tracer } from "./tracer.ts";

/** Name of the instrumentation, as collectors show it. */
const scope = "dapr-diagnostics";

export type TracingParts = {
  readonly settings: TracingSettings;
  readonly appId: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
};

export type OpenTracing = {
  readonly tracer: Tracer;
  /** Delivers what waits, within `graceMs`. */
  close(graceMs: number): Promise<void>;
};

export async function openTracing(parts: TracingParts): Promise<OpenTracing> {
  const { settings, clock, log } = parts;
  const { rate, given } = readRate(settings.samplingRate);
  const exporters = await loadExporters(parts);
  if (!given && exporters.length === 0 && !settings.stdout) {
    return { tracer: passingTracer(), close: () => Promise.resolve() };
  }
  const batches = exporters.map((exporter) => new SpanBatch(exporter, batchParts(parts)));
  const sinks: SpanSink[] = batches.map((batch) => (span) => batch.push(span));
  if (settings.stdout) sinks.push((await import("./export-log.ts")).createLogSink(log));
  const tracer = recordingTracer({ rate, sink: together(sinks), clock });
  return {
    tracer,
    close: async (graceMs) => void (await Promise.all(batches.map((batch) => batch.close(graceMs)))),
  };
}

async function loadExporters({ settings, appId, env }: TracingParts): Promise<SpanExporter[]> {
  const { otel, zipkinEndpoint } = settings;
  const resource = readResource(appId, env);
  const exporters: SpanExporter[] = [];
  if (otel.endpoint !== "" && otel.protocol !== "") {
    const { createExporter } =
      otel.protocol === "http"
        ? await import("./export-otlp-http.ts")
        : await import("./export-otlp-grpc.ts");
    exporters.push(createExporter(otel, resource, scope));
  }
  if (zipkinEndpoint !== "") {
    const { createExporter } = await import("./export-zipkin.ts");
    exporters.push(createExporter(zipkinEndpoint, resource, scope));
  }
  return exporters;
}

function batchParts({ env, clock, log, metrics }: TracingParts): ConstructorParameters<typeof SpanBatch>[1] {
  const scoped = log.scope("dapr.runtime.trace");
  const count = metrics.count(
    "runtime_trace_spans_dropped_total",
    "Spans lost on their way to a collector.",
    ["exporter", "reason"],
  );
  return {
    limits: readLimits(env),
    clock,
    warn: (text) => scoped.warn(text),
    dropped(spans, exporter, reason) {
      for (let i = 0; i < spans; i++) count(exporter, reason);
    },
  };
}

function together(sinks: readonly SpanSink[]): SpanSink | undefined {
  if (sinks.length < 2) return sinks[0];
  return (span) => {
    for (const sink of sinks) sink(span);
  };
}
