/**
 * Prometheus metrics under Dapr's names. Recording stands on the hot path of every call, so it is a map look-up and an
 * addition on plain numbers (docs/decisions/0013): families are made once at boot, series hold their label text ready.
 */
import { processMetrics } from "./process-metrics.ts";

/** Upper bounds of latency buckets, ms. */
const latencyBucketsMs: readonly number[] = [
  1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650,
  800, 1000, 2000, 5000, 10000, 20000, 50000, 100000,
];

/** Series kept per family; further label sets are counted in one series whose labels are all `overflow`. */
const maxSeries = 2_000;

/** Records one event. Label values in the order of the family's label names. */
export type CountFamily = (...labels: string[]) => void;
export type LatencyFamily = (latencyMs: number, ...labels: string[]) => void;
/** Sets the current value. */
export type GaugeFamily = (value: number, ...labels: string[]) => void;

export type Metrics = {
  /**
   * Family `dapr_<name>` with these labels, and `app_id` = the own app unless it is among them. Asking again for a name
   * gives the same family.
   */
  count(name: string, help: string, labels: readonly string[]): CountFamily;
  latency(name: string, help: string, labels: readonly string[]): LatencyFamily;
  gauge(name: string, help: string, labels: readonly string[]): GaugeFamily;
  /** Text exposition; a family appears after its first record. */
  render(): string;
  readonly contentType: string;
};

/** Metrics of one sidecar. */
export function createMetrics(appId: string): Metrics {
  const families = new Map<string, Family<Series>>();
  const family = <S extends Series>(name: string, make: () => Family<S>): Family<S> => {
    const found = (families.get(name) as Family<S> | undefined) ?? make();
    families.set(name, found);
    return found;
  };
  return {
    count(name, help, labels) {
      const counters = family(
        name,
        () => new Family(`dapr_${name}`, "counter", help, appId, labels, newCounter),
      );
      return (...values) => {
        counters.series(values).value++;
      };
    },
    latency(name, help, labels) {
      const latencies = family(
        name,
        () => new Family(`dapr_${name}`, "histogram", help, appId, labels, newHistogram),
      );
      return (latencyMs, ...values) => {
        const series = latencies.series(values);
        series.sum += latencyMs;
        series.buckets[bucketOf(latencyMs)]!++;
      };
    },
    gauge(name, help, labels) {
      const gauges = family(name, () => new Family(`dapr_${name}`, "gauge", help, appId, labels, newCounter));
      return (value, ...values) => {
        gauges.series(values).value = value;
      };
    },
    render: () => [...families.values()].map((each) => each.render()).join("") + processMetrics(),
    contentType: "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
  };
}

/** Nothing is recorded (`spec.metrics.enabled: false`). */
export const noMetrics: Metrics = Object.freeze({
  count: () => () => {},
  latency: () => () => {},
  gauge: () => () => {},
  render: () => "",
  contentType: "text/plain",
});

type Series = { readonly labels: string; render(name: string): string };
type Counter = Series & { value: number };
type Histogram = Series & { sum: number; readonly buckets: Float64Array };

class Family<S extends Series> {
  readonly #name: string;
  readonly #head: string;
  readonly #appId: string;
  readonly #labelNames: readonly string[];
  readonly #make: (labels: string) => S;
  readonly #series = new Map<string, S>();

  constructor(
    name: string,
    type: "counter" | "histogram" | "gauge",
    help: string,
    appId: string,
    labelNames: readonly string[],
    make: (labels: string) => S,
  ) {
    this.#name = name;
    this.#head = `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
    this.#appId = appId;
    this.#labelNames = labelNames;
    this.#make = make;
  }

  series(values: readonly string[]): S {
    const key = keyOf(values);
    return this.#series.get(key) ?? this.#add(key, values);
  }

  render(): string {
    if (this.#series.size === 0) return "";
    let text = this.#head;
    for (const series of this.#series.values()) text += series.render(this.#name);
    return text;
  }

  #add(key: string, values: readonly string[]): S {
    if (this.#series.size >= maxSeries) {
      const labels = new Array<string>(values.length).fill("overflow");
      // The key that a caller's own series of these labels has: a page must not show the same labels twice.
      const overflow = keyOf(labels);
      return this.#series.get(overflow) ?? this.#keep(overflow, labels);
    }
    return this.#keep(key, values);
  }

  #keep(key: string, values: readonly string[]): S {
    const named = this.#labelNames.map((name, i) => [name, values[i] ?? ""] as const);
    const pairs = this.#labelNames.includes("app_id") ? named : [["app_id", this.#appId] as const, ...named];
    const sorted = pairs.sort(([a], [b]) => (a < b ? -1 : 1));
    const made = this.#make(sorted.map(([name, value]) => `${name}="${escapeLabel(value)}"`).join(","));
    this.#series.set(key, made);
    return made;
  }
}

function keyOf(values: readonly string[]): string {
  return values.length === 1 ? values[0]! : values.join("\u0000");
}

function newCounter(labels: string): Counter {
  return { labels, value: 0, render: renderCounter };
}

function renderCounter(this: Counter, name: string): string {
  return `${name}{${this.labels}} ${this.value}\n`;
}

function newHistogram(labels: string): Histogram {
  return { labels, sum: 0, buckets: new Float64Array(latencyBucketsMs.length + 1), render: renderHistogram };
}

function renderHistogram(this: Histogram, name: string): string {
  let text = "";
  let count = 0;
  for (const [i, bucket] of this.buckets.entries()) {
    count += bucket;
    text += `${name}_bucket{${this.labels},le="${latencyBucketsMs[i] ?? "+Inf"}"} ${count}\n`;
  }
  return `${text}${name}_sum{${this.labels}} ${this.sum}\n${name}_count{${this.labels}} ${count}\n`;
}

/** Index of the first bucket whose bound is not below the value; the last one is +Inf. */
function bucketOf(valueMs: number): number {
  let low = 0;
  let high = latencyBucketsMs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (latencyBucketsMs[middle]! >= valueMs) high = middle;
    else low = middle + 1;
  }
  return low;
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
