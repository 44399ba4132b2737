/**
 * Prometheus metrics under Dapr's names. Recording stands on the hot path of every call, so it is a map look-up and an
 * addition on plain numbers (docs/decisions/0013): families are made once at boot, series hold their label text ready.
 */
import { DEFAULT_CONFIGURATION, type MetricSettings } from "../config/kinds/configuration.ts";
import { errorCategory } from "./error-category.ts";
import { createHttpLabels, type HttpLabels, noHttpLabels } from "./http-labels.ts";
import { type LabelRules, readLabelRules, type Rewrite } from "./label-rules.ts";
import { processMetrics } from "./process-metrics.ts";

/** Upper bounds of latency buckets, ms, unless the Configuration names others. */
const defaultLatencyBucketsMs: readonly number[] = [
  1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650,
  800, 1000, 2000, 5000, 10000, 20000, 50000, 100000,
];

const kiB = 1024;
const miB = 1024 * kiB;
/** Upper bounds of size buckets, bytes. */
const sizeBucketsBytes: readonly number[] = [
  ...[1, 2, 4, 16, 64, 256].map((size) => size * kiB),
  ...[1, 4, 16, 64, 256, 1024, 4096].map((size) => size * miB),
];

/**
 * Series kept per family; further label sets are counted in one series whose labels are all `overflow`. A histogram has
 * some 36 lines a series on the page, others one.
 */
const maxSeries: Readonly<Record<FamilyType, number>> = {
  counter: 2_000,
  gauge: 2_000,
  latency: 500,
  size: 500,
};

/** Records one event. Label values in the order of the family's label names. */
export type CountFamily = ((...labels: string[]) => void) & {
  /**
   * The series of these labels, for who records it again and again; at most 1,000 are to be held, and none over a
   * change of the settings.
   */
  at(...labels: string[]): () => void;
};
export type LatencyFamily = ((latencyMs: number, ...labels: string[]) => void) & {
  at(...labels: string[]): (latencyMs: number) => void;
};
export type SizeFamily = ((sizeBytes: number, ...labels: string[]) => void) & {
  at(...labels: string[]): (sizeBytes: number) => void;
};
/** Sets the current value. */
export type GaugeFamily = (value: number, ...labels: string[]) => void;

export type Metrics = {
  /**
   * Family `dapr_<name>` with these labels, and `app_id` = the own app unless it is among them. Asking again for a name
   * gives the same family.
   */
  count(name: string, help: string, labels: readonly string[]): CountFamily;
  latency(name: string, help: string, labels: readonly string[]): LatencyFamily;
  size(name: string, help: string, labels: readonly string[]): SizeFamily;
  gauge(name: string, help: string, labels: readonly string[]): GaugeFamily;
  /** Counts an error that is answered; nothing unless `recordErrorCodes`. */
  errorCode(code: string): void;
  /** Labels of HTTP requests, as the Configuration wants them. */
  readonly http: HttpLabels;
  /** Text exposition; a family appears after its first record. */
  render(): string;
  readonly contentType: string;
};

/** Metrics of one sidecar, which follow the Configuration. */
export type RunningMetrics = Metrics & {
  /** Families stay; their series too, but for histograms of other buckets. */
  set(settings: MetricSettings): void;
};

export function createMetrics(
  appId: string,
  settings: MetricSettings = DEFAULT_CONFIGURATION.metrics,
): RunningMetrics {
  return new Registry(appId, settings);
}

class Registry implements RunningMetrics {
  readonly contentType = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
  http: HttpLabels = noHttpLabels;
  errorCode: (code: string) => void = () => {};
  readonly #appId: string;
  #on = true;
  #latencyBuckets = defaultLatencyBucketsMs;
  #rules: LabelRules = new Map();
  readonly #families = new Map<string, Family<Series>>();

  constructor(appId: string, settings: MetricSettings) {
    this.#appId = appId;
    this.set(settings);
  }

  set({ enabled, latencyBuckets, http, rules, recordErrorCodes }: MetricSettings): void {
    this.#on = enabled;
    this.http = enabled ? createHttpLabels(http) : noHttpLabels;
    this.errorCode = enabled && recordErrorCodes ? this.#errorCounter() : () => {};
    this.#rules = readLabelRules(rules);
    const buckets = latencyBuckets.length > 0 ? latencyBuckets : defaultLatencyBucketsMs;
    const rebucketed = buckets.join() !== this.#latencyBuckets.join();
    this.#latencyBuckets = buckets;
    for (const [name, family] of this.#families) {
      family.rewrites = this.#rewritesOf(name, family.labelNames);
      if (rebucketed && family.type === "latency") family.clear();
    }
  }

  count(name: string, help: string, labels: readonly string[]): CountFamily {
    const counters = this.#family(name, "counter", help, labels, newNumber);
    const count = (...values: string[]): void => {
      if (this.#on) counters.series(values).value++;
    };
    const at = (...values: string[]): (() => void) => {
      if (!this.#on) return () => {};
      const series = counters.series(values);
      return () => {
        series.value++;
      };
    };
    return Object.assign(count, { at });
  }

  gauge(name: string, help: string, labels: readonly string[]): GaugeFamily {
    const gauges = this.#family(name, "gauge", help, labels, newNumber);
    return (value, ...values) => {
      if (this.#on) gauges.series(values).value = value;
    };
  }

  latency(name: string, help: string, labels: readonly string[]): LatencyFamily {
    return this.#histogram(name, "latency", help, labels, () => this.#latencyBuckets);
  }

  size(name: string, help: string, labels: readonly string[]): SizeFamily {
    return this.#histogram(name, "size", help, labels, () => sizeBucketsBytes);
  }

  render(): string {
    if (!this.#on) return "";
    let text = "";
    let overflow = "";
    const own = escapeLabel(this.#appId);
    for (const [name, family] of this.#families) {
      text += family.render();
      const { overflowed } = family;
      if (overflowed > 0)
        overflow += `${overflowName}{app_id="${own}",metric="dapr_${name}"} ${overflowed}\n`;
    }
    return text + (overflow === "" ? "" : overflowHead + overflow) + processMetrics();
  }

  #histogram(
    name: string,
    type: "latency" | "size",
    help: string,
    labels: readonly string[],
    bounds: () => readonly number[],
  ): LatencyFamily {
    const histograms = this.#family(name, type, help, labels, (text) => newHistogram(text, bounds()));
    const observe = (series: Histogram, value: number): void => {
      series.sum += value;
      series.buckets[bucketOf(series.bounds, value)]!++;
    };
    const record = (value: number, ...values: string[]): void => {
      if (this.#on) observe(histograms.series(values), value);
    };
    const at = (...values: string[]): ((value: number) => void) => {
      if (!this.#on) return () => {};
      const series = histograms.series(values);
      return (value) => observe(series, value);
    };
    return Object.assign(record, { at });
  }

  #family<S extends Series>(
    name: string,
    type: FamilyType,
    help: string,
    labels: readonly string[],
    make: (labels: string) => S,
  ): Family<S> {
    const found = this.#families.get(name) as Family<S> | undefined;
    if (found !== undefined) return found;
    const made = new Family(`dapr_${name}`, type, help, this.#appId, labels, make);
    made.rewrites = this.#rewritesOf(name, labels);
    this.#families.set(name, made);
    return made;
  }

  #rewritesOf(name: string, labels: readonly string[]): Family<Series>["rewrites"] {
    const rules = this.#rules.get(name);
    return rules === undefined ? undefined : labels.map((label) => rules.get(label));
  }

  #errorCounter(): (code: string) => void {
    const count = this.count("error_code_total", "Errors answered, by code.", ["category", "error_code"]);
    return (code) => count(errorCategory(code), code);
  }
}

const overflowName = "dapr_runtime_metrics_overflow_total";
const overflowHead =
  `# HELP ${overflowName} Records counted under the labels overflow, because a metric has too many series.\n` +
  `# TYPE ${overflowName} counter\n`;

const noCount: CountFamily = Object.assign(() => {}, { at: () => () => {} });
const noValue: LatencyFamily = Object.assign(() => {}, { at: () => () => {} });

/** For who records without a sidecar. */
export const noMetrics: Metrics = Object.freeze({
  count: () => noCount,
  latency: () => noValue,
  size: () => noValue,
  gauge: () => () => {},
  errorCode: () => {},
  http: noHttpLabels,
  render: () => "",
  contentType: "text/plain",
});

type Series = { readonly labels: string; render(name: string): string };
type FamilyType = "counter" | "gauge" | "latency" | "size";
type NumberSeries = Series & { value: number };
type Histogram = Series & { sum: number; readonly buckets: Float64Array; readonly bounds: readonly number[] };

class Family<S extends Series> {
  /** Records that went to the overflow series. */
  overflowed = 0;
  /** By place of the label; undefined without rules. */
  rewrites: readonly (Rewrite | undefined)[] | undefined;
  readonly type: FamilyType;
  readonly labelNames: readonly string[];
  readonly #name: string;
  readonly #head: string;
  readonly #appId: string;
  readonly #make: (labels: string) => S;
  readonly #max: number;
  /** Of those kept. */
  #size = 0;
  /** One step a label: joining the labels to one key would make a text for each record. */
  readonly #root: Level<S> = new Map();

  constructor(
    name: string,
    type: FamilyType,
    help: string,
    appId: string,
    labelNames: readonly string[],
    make: (labels: string) => S,
  ) {
    this.#name = name;
    this.type = type;
    const shown = type === "latency" || type === "size" ? "histogram" : type;
    this.#head = `# HELP ${name} ${help}\n# TYPE ${name} ${shown}\n`;
    this.#max = maxSeries[type];
    this.#appId = appId;
    this.labelNames = labelNames;
    this.#make = make;
  }

  series(given: readonly string[]): S {
    const { rewrites } = this;
    const values = rewrites === undefined ? given : given.map((value, i) => rewrites[i]?.(value) ?? value);
    return this.#find(values) ?? this.#add(values);
  }

  clear(): void {
    this.#root.clear();
    this.#size = 0;
  }

  render(): string {
    if (this.#size === 0) return "";
    let text = this.#head;
    for (const series of seriesBelow(this.#root)) text += series.render(this.#name);
    return text;
  }

  #find(values: readonly string[]): S | undefined {
    let level: Level<S> | undefined = this.#root;
    const last = values.length - 1;
    for (let i = 0; i < last; i++) level = level?.get(values[i]!) as Level<S> | undefined;
    return level?.get(values[last] ?? "") as S | undefined;
  }

  #add(values: readonly string[]): S {
    if (this.#size < this.#max) return this.#keep(values);
    this.overflowed++;
    // A caller's own series of these labels is the same one: a page must not show the same labels twice.
    const overflow = new Array<string>(values.length).fill("overflow");
    return this.#find(overflow) ?? this.#keep(overflow);
  }

  #keep(values: readonly string[]): S {
    const named = this.labelNames.map((name, i) => [name, values[i] ?? ""] as const);
    const pairs = this.labelNames.includes("app_id") ? named : [["app_id", this.#appId] as const, ...named];
    const sorted = pairs.sort(([a], [b]) => (a < b ? -1 : 1));
    const made = this.#make(sorted.map(([name, value]) => `${name}="${escapeLabel(value)}"`).join(","));
    let level = this.#root;
    for (const value of values.slice(0, -1)) {
      const next: Level<S> = (level.get(value) as Level<S> | undefined) ?? new Map();
      level.set(value, next);
      level = next;
    }
    level.set(values.at(-1) ?? "", made);
    this.#size++;
    return made;
  }
}

/** Series by the last label, or the next level by an earlier one. */
type Level<S> = Map<string, Level<S> | S>;

function* seriesBelow<S>(level: Level<S>): Iterable<S> {
  for (const entry of level.values()) {
    if (entry instanceof Map) yield* seriesBelow(entry);
    else yield entry;
  }
}

function newNumber(labels: string): NumberSeries {
  return { labels, value: 0, render: renderNumber };
}

function renderNumber(this: NumberSeries, name: string): string {
  return `${name}{${this.labels}} ${this.value}\n`;
}

function newHistogram(labels: string, bounds: readonly number[]): Histogram {
  return { labels, bounds, sum: 0, buckets: new Float64Array(bounds.length + 1), render: renderHistogram };
}

function renderHistogram(this: Histogram, name: string): string {
  let text = "";
  let count = 0;
  for (const [i, bucket] of this.buckets.entries()) {
    count += bucket;
    text += `${name}_bucket{${this.labels},le="${this.bounds[i] ?? "+Inf"}"} ${count}\n`;
  }
  return `${text}${name}_sum{${this.labels}} ${this.sum}\n${name}_count{${this.labels}} ${count}\n`;
}

/** Index of the first bucket whose bound is not below the value; the last one is +Inf. */
function bucketOf(bounds: readonly number[], value: number): number {
  let low = 0;
  let high = bounds.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bounds[middle]! >= value) high = middle;
    else low = middle + 1;
  }
  return low;
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
