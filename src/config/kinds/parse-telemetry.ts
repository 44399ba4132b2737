/** Reads `tracing`, `metric` and `metrics` of a Configuration. */
import { DurationError, parseGoDuration } from "../../lib/duration.ts";
import type { Section } from "../section.ts";
import {
  DEFAULT_CONFIGURATION,
  type MetricRule,
  type MetricSettings,
  type OtelSettings,
  parseRate,
  type TracingSettings,
} from "./configuration.ts";

export function readTracing(tracing: Section | undefined): TracingSettings {
  const defaults = DEFAULT_CONFIGURATION.tracing;
  if (tracing === undefined) return defaults;
  tracing.warnUnknown(["samplingRate", "stdout", "zipkin", "otel"]);
  return {
    samplingRate: readRate(tracing),
    stdout: tracing.boolean("stdout") ?? false,
    zipkinEndpoint: readZipkin(tracing.section("zipkin")),
    otel: readOtel(tracing.section("otel")),
  };
}

/** What is no number counts as the default rate. */
function readRate(tracing: Section): string {
  const text = tracing.text("samplingRate") ?? "";
  if (text !== "" && parseRate(text) === undefined) {
    const fault = `${tracing.nameOf("samplingRate")} ${JSON.stringify(text)} is no number, 0.0001 is used`;
    tracing.problems.warn(tracing.positionOf("samplingRate"), `${fault}; write a share from "0" to "1"`);
  }
  return text;
}

function readZipkin(zipkin: Section | undefined): string {
  zipkin?.warnUnknown(["endpointAddress"]);
  const endpoint = zipkin?.text("endpointAddress") ?? "";
  if (zipkin === undefined || endpoint === "") return "";
  if (!/^https?:\/\//i.test(endpoint) || !URL.canParse(endpoint))
    refuseAddress(zipkin, endpoint, "a URL such as http://localhost:9411/api/v2/spans");
  return endpoint;
}

function readOtel(otel: Section | undefined): OtelSettings {
  if (otel === undefined) return DEFAULT_CONFIGURATION.tracing.otel;
  otel.warnUnknown(["protocol", "endpointAddress", "isSecure", "headers", "timeout"]);
  const protocol = otel.text("protocol") ?? "";
  const address = otel.text("endpointAddress") ?? "";
  const endpoint = address.replace(/^https?:\/\//i, "");
  if (endpoint !== address) {
    const text = `${otel.nameOf("endpointAddress")} is host:port, what stands before is left out`;
    otel.problems.warn(otel.positionOf("endpointAddress"), `${text}; write ${endpoint}, and isSecure`);
  }
  if (endpoint !== "" && !["", "http", "grpc"].includes(protocol)) {
    const text = `invalid protocol ${protocol} provided for Otel endpoint, write http or grpc`;
    otel.problems.error(otel.positionOf("protocol"), text);
  }
  if (endpoint !== "" && (/[\s/]/.test(endpoint) || !URL.canParse(`http://${endpoint}`)))
    refuseAddress(otel, endpoint, "host:port, such as localhost:4317");
  if (endpoint !== "" && protocol === "") {
    const fault = `${otel.nameOf("protocol")} is missing, so nothing is exported`;
    otel.problems.warn(otel.positionOf("protocol"), `${fault}; write http or grpc`);
  }
  return {
    protocol,
    endpoint,
    isSecure: otel.boolean("isSecure") ?? true,
    headers: otel.texts("headers") ?? [],
    timeoutMs: readDuration(otel, "timeout"),
  };
}

function refuseAddress(section: Section, given: string, wanted: string): void {
  const fault = `${section.nameOf("endpointAddress")} is ${JSON.stringify(given)}, write ${wanted}`;
  section.problems.error(section.positionOf("endpointAddress"), fault);
}

/** Later sections win, field by field. */
export function readMetrics(sections: readonly (Section | undefined)[]): MetricSettings {
  let metrics = DEFAULT_CONFIGURATION.metrics;
  for (const section of sections) {
    if (section === undefined) continue;
    section.warnUnknown(["enabled", "recordErrorCodes", "http", "latencyDistributionBuckets", "rules"]);
    const http = section.section("http");
    http?.warnUnknown(["increasedCardinality", "pathMatching", "excludeVerbs"]);
    metrics = {
      enabled: section.boolean("enabled") ?? metrics.enabled,
      recordErrorCodes: section.boolean("recordErrorCodes") ?? metrics.recordErrorCodes,
      http:
        http === undefined
          ? metrics.http
          : {
              increasedCardinality: http.boolean("increasedCardinality") ?? true,
              pathMatching: http.texts("pathMatching") ?? [],
              excludeVerbs: http.boolean("excludeVerbs") ?? false,
            },
      latencyBuckets: readBuckets(section) ?? metrics.latencyBuckets,
      rules: section.node("rules") === undefined ? metrics.rules : section.sections("rules").map(readRule),
    };
  }
  return metrics;
}

function readRule(rule: Section): MetricRule {
  rule.warnUnknown(["name", "labels"]);
  const labels = rule.sections("labels").map((label) => {
    label.warnUnknown(["name", "regex"]);
    return { name: label.requiredText("name", "path"), regex: readPatterns(label) };
  });
  return { name: rule.requiredText("name", "http_server_latency"), labels };
}

/** Patterns that cannot be used are left out. */
function readPatterns(label: Section): MetricRule["labels"][number]["regex"] {
  const regex = label.section("regex");
  return (regex?.keys() ?? []).flatMap((replacement) => {
    const pattern = regex!.text(replacement) ?? "";
    try {
      return [{ replacement, pattern: new RegExp(pattern).source }];
    } catch (error) {
      const fault = `${regex!.nameOf(replacement)}: ${error instanceof Error ? error.message : String(error)}`;
      regex!.problems.warn(regex!.positionOf(replacement), `${fault}; it is ignored, correct the pattern`);
      return [];
    }
  });
}

function readBuckets(section: Section): readonly number[] | undefined {
  const texts = section.texts("latencyDistributionBuckets");
  if (texts === undefined) return undefined;
  const buckets = texts.map(Number);
  if (buckets.every(Number.isFinite) && !texts.includes("")) return buckets;
  const at = section.positionOf("latencyDistributionBuckets");
  section.problems.error(
    at,
    `${section.nameOf("latencyDistributionBuckets")} must be a list of numbers (milliseconds)`,
  );
  return undefined;
}

function readDuration(section: Section | undefined, key: string): number {
  const text = section?.text(key) ?? "";
  if (section === undefined || text === "") return 0;
  try {
    return parseGoDuration(text);
  } catch (error) {
    if (!(error instanceof DurationError)) throw error;
    section.problems.error(
      section.positionOf(key),
      `${section.nameOf(key)}: ${error.message}, write for example 30s`,
    );
    return 0;
  }
}
