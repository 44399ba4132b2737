/** What the tracing settings and the OTEL_* environment mean. */
import { parseRate, type TracingSettings } from "../../config/kinds/configuration.ts";
import type { BatchLimits } from "./batch.ts";
import type { Attributes } from "./otlp-encode.ts";

type Environment = Readonly<Record<string, string | undefined>>;

const defaultRate = 0.0001;

/** Share of roots that are sampled; `given` is false when nothing was written. What is no number counts as default. */
export function readRate(text: string): { readonly rate: number; readonly given: boolean } {
  const rate = parseRate(text) ?? defaultRate;
  return { rate: Math.min(Math.max(rate, 0), 1), given: text !== "" };
}

/** `samplingRate: "0"`: no part of tracing is there. */
export function tracingIsOff(settings: TracingSettings): boolean {
  return parseRate(settings.samplingRate) === 0;
}

/** Attributes of the resource; `service.name` comes first. */
export function readResource(appId: string, env: Environment): Attributes {
  const named = new Map([["service.name", appId]]);
  for (const pair of (env["OTEL_RESOURCE_ATTRIBUTES"] ?? "").split(",")) {
    const equals = pair.indexOf("=");
    if (equals > 0) named.set(pair.slice(0, equals).trim(), decoded(pair.slice(equals + 1).trim()));
  }
  const service = env["OTEL_SERVICE_NAME"];
  if (service !== undefined && service !== "") named.set("service.name", service);
  return [...named].flat();
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Of one exporter's queue, under OpenTelemetry's own names for them. */
export function readLimits(env: Environment): BatchLimits {
  const read = (name: string, otherwise: number, most: number): number => {
    const text = env[`OTEL_BSP_${name}`] ?? "";
    return /^[1-9]\d*$/.test(text) ? Math.min(Number(text), most) : otherwise;
  };
  const maxQueue = read("MAX_QUEUE_SIZE", 2_048, 65_536);
  return {
    maxQueue,
    maxBatch: Math.min(read("MAX_EXPORT_BATCH_SIZE", 512, 8_192), maxQueue),
    delayMs: read("SCHEDULE_DELAY", 5_000, 600_000),
  };
}
