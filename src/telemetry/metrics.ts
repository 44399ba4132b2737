/**
 * Prometheus metrics under Dapr's names. Blocks ask for a family once, at boot, and record through it;
 * label children are held by prom-client, so recording allocates little.
 */
import { Counter, Histogram, Registry, collectDefaultMetrics } from "prom-client";

/** Upper bounds of latency buckets, ms. */
const latencyBuckets = [
  1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650, 800, 1000,
  2000, 5000, 10000, 20000, 50000, 100000,
];

/** Series kept per family; further label sets are counted in the series whose labels are all `overflow`. */
const maxSeries = 2000;

/** Records one event: label values in the order of the family's label names, and for latencies its ms. */
export type CountFamily = (...labels: string[]) => void;
export type LatencyFamily = (latencyMs: number, ...labels: string[]) => void;

export type Metrics = {
  /** Family `dapr_<name>` with `app_id` and these labels. */
  count(name: string, help: string, labels: readonly string[]): CountFamily;
  latency(name: string, help: string, labels: readonly string[]): LatencyFamily;
  /** Text exposition. */
  render(): Promise<string>;
  readonly contentType: string;
};

/** Metrics of one sidecar, with its own registry. */
export function createMetrics(appId: string): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 });
  return {
    count(name, help, labels) {
      const labelNames = ["app_id", ...labels];
      const counter = new Counter({ name: `dapr_${name}`, help, labelNames, registers: [registry] });
      const child = childCache(labels.length, (values) => counter.labels(appId, ...values));
      return (...values) => child(values).inc();
    },
    latency(name, help, labels) {
      const labelNames = ["app_id", ...labels];
      const histogram = new Histogram({
        name: `dapr_${name}`,
        help,
        labelNames,
        buckets: latencyBuckets,
        registers: [registry],
      });
      const child = childCache(labels.length, (values) => histogram.labels(appId, ...values));
      return (latencyMs, ...values) => child(values).observe(latencyMs);
    },
    render: () => registry.metrics(),
    contentType: registry.contentType,
  };
}

/** Nothing is recorded (`spec.metrics.enabled: false`). */
export const noMetrics: Metrics = Object.freeze({
  count: () => () => {},
  latency: () => () => {},
  render: () => Promise.resolve(""),
  contentType: "text/plain",
});

function childCache<C>(labelCount: number, make: (values: string[]) => C): (values: string[]) => C {
  const children = new Map<string, C>();
  return (values) => {
    const key = values.length === 1 ? values[0]! : values.join("\u0000");
    let child = children.get(key);
    if (child === undefined) {
      const full = children.size >= maxSeries;
      const labels = full ? new Array<string>(labelCount).fill("overflow") : values;
      child = make(labels);
      if (!full) children.set(key, child);
    }
    return child;
  };
}
