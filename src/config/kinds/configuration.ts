/**
 * The Configuration of one sidecar: all `--config` files merged over the defaults. Parts that nothing uses yet are
 * kept as JSON data.
 */
import { deepFreeze } from "../../lib/freeze.ts";
import type { Problem } from "../problem.ts";
import type { AccessControlSettings } from "./access-control.ts";

export interface ConfigurationResource {
  /** `metadata.name` of the last file that has one; empty without. */
  readonly name: string;
  readonly tracing: TracingSettings;
  /** `spec.metric` with the fields of `spec.metrics` over it. */
  readonly metrics: MetricSettings;
  readonly api: { readonly allowed: readonly ApiRule[]; readonly denied: readonly ApiRule[] };
  readonly apiLogging: ApiLoggingSettings;
  readonly features: readonly Feature[];
  readonly httpPipeline: readonly PipelineHandler[];
  readonly appHttpPipeline: readonly PipelineHandler[];
  /** `spec.components.deny`, see `isDenied`. */
  readonly deniedComponents: readonly string[];
  readonly secretScopes: readonly SecretScope[];
  readonly wasmStrictSandbox: boolean;
  /** Undefined when none is written. */
  readonly accessControl: AccessControlSettings | undefined;
  readonly nameResolution: unknown;
  readonly workflow: unknown;
  readonly mtls: unknown;
  /** To log as warnings, see `formatProblem`. */
  readonly problems: readonly Problem[];
}

export interface TracingSettings {
  /** As written; empty when not given. `"0"` turns tracing off. */
  readonly samplingRate: string;
  readonly stdout: boolean;
  /** Full URL; empty for none. */
  readonly zipkinEndpoint: string;
  readonly otel: OtelSettings;
}

/** A sampling rate as written; undefined for what is no number. */
export function parseRate(text: string): number | undefined {
  return /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i.test(text) ? Number(text) : undefined;
}

/** OTLP export is on when endpoint and protocol are both given. */
export interface OtelSettings {
  /** `http`, `grpc` or empty. */
  readonly protocol: string;
  /** host:port; empty for none. */
  readonly endpoint: string;
  readonly isSecure: boolean;
  /** `key=value` each. */
  readonly headers: readonly string[];
  /** 0 for the exporter's default. */
  readonly timeoutMs: number;
}

export interface MetricSettings {
  readonly enabled: boolean;
  readonly recordErrorCodes: boolean;
  readonly http: {
    readonly increasedCardinality: boolean;
    readonly pathMatching: readonly string[];
    readonly excludeVerbs: boolean;
  };
  /** Upper bounds of the buckets; empty for the default ones. */
  readonly latencyBuckets: readonly number[];
  readonly rules: readonly MetricRule[];
}

/** Values of labels are rewritten before they are counted. */
export interface MetricRule {
  /** Of the family, with or without `dapr_`. */
  readonly name: string;
  readonly labels: readonly {
    readonly name: string;
    /** Every match of a pattern is replaced. */
    readonly regex: readonly { readonly replacement: string; readonly pattern: string }[];
  }[];
}

export interface ApiRule {
  readonly name: string;
  readonly version: string;
  readonly protocol: string;
}

export interface ApiLoggingSettings {
  readonly enabled: boolean;
  readonly obfuscateUrls: boolean;
  readonly omitHealthChecks: boolean;
}

export interface Feature {
  readonly name: string;
  readonly enabled: boolean;
}

export interface PipelineHandler {
  readonly name: string;
  readonly type: string;
  readonly version: string;
}

export interface SecretScope {
  readonly storeName: string;
  readonly defaultAccess: "allow" | "deny";
  readonly allowedSecrets: readonly string[];
  readonly deniedSecrets: readonly string[];
}

/** Features that are on unless a Configuration turns them off. */
const ON_BY_DEFAULT = ["HotReload", "WorkflowsRemoteActivityReminder"];

/** What holds without any `--config`. */
export const DEFAULT_CONFIGURATION: ConfigurationResource = deepFreeze({
  name: "",
  tracing: {
    samplingRate: "",
    stdout: false,
    zipkinEndpoint: "",
    otel: { protocol: "", endpoint: "", isSecure: true, headers: [], timeoutMs: 0 },
  },
  metrics: {
    enabled: true,
    recordErrorCodes: false,
    http: { increasedCardinality: true, pathMatching: [], excludeVerbs: false },
    latencyBuckets: [],
    rules: [],
  },
  api: { allowed: [], denied: [] },
  apiLogging: { enabled: false, obfuscateUrls: false, omitHealthChecks: false },
  features: [],
  httpPipeline: [],
  appHttpPipeline: [],
  deniedComponents: [],
  secretScopes: [],
  wasmStrictSandbox: false,
  accessControl: undefined,
  nameResolution: undefined,
  workflow: undefined,
  mtls: undefined,
  problems: [],
});

/** Names of all features that are on, as the metadata API lists them. The last entry of a name counts. */
export function enabledFeatures(configuration: ConfigurationResource): readonly string[] {
  const enabled = new Set(ON_BY_DEFAULT);
  for (const feature of configuration.features) {
    if (feature.enabled) enabled.add(feature.name);
    else enabled.delete(feature.name);
  }
  return [...enabled];
}
