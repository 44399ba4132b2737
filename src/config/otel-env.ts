/**
 * The OTEL_* variables that stand in for an OTLP exporter when the Configuration names none.
 */
import type { Environment } from "./flags.ts";
import type { TracingSettings } from "./kinds/configuration.ts";
import { SettingError } from "./setting-error.ts";

/**
 * The settings unchanged when they name an endpoint or the environment has none.
 * @throws {SettingError} for an endpoint that is no address.
 */
export function withOtelEnv(tracing: TracingSettings, env: Environment): TracingSettings {
  if (tracing.otel.endpoint !== "") return tracing;
  const read = (name: string): string =>
    env[`OTEL_EXPORTER_OTLP_TRACES_${name}`] || env[`OTEL_EXPORTER_OTLP_${name}`] || "";
  const endpoint = read("ENDPOINT").replace(/^https?:\/\//, "");
  if (endpoint === "") return tracing;
  if (!URL.canParse(`http://${endpoint}`)) {
    const text = `OTEL_EXPORTER_OTLP_ENDPOINT is ${JSON.stringify(endpoint)}, write for example`;
    throw new SettingError(`${text} http://localhost:4317`);
  }
  const timeoutMs = /^[0-9]+$/.test(read("TIMEOUT")) ? Number(read("TIMEOUT")) : tracing.otel.timeoutMs;
  const headers = read("HEADERS")
    .split(",")
    .map((header) => header.trim())
    .filter((header) => header !== "");
  return Object.freeze({
    ...tracing,
    samplingRate: tracing.samplingRate || "1",
    otel: Object.freeze({
      protocol: read("PROTOCOL").startsWith("http") ? "http" : "grpc",
      endpoint,
      isSecure: env["OTEL_EXPORTER_OTLP_INSECURE"] === "true" ? false : tracing.otel.isSecure,
      headers: Object.freeze([...tracing.otel.headers, ...headers]),
      timeoutMs,
    }),
  });
}
