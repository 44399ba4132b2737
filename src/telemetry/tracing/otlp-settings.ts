/** What both forms of OTLP read from the settings. */
import type { OtelSettings } from "../../config/kinds/configuration.ts";

const defaultTimeoutMs = 10_000;

export function exportTimeoutMs(otel: OtelSettings): number {
  return otel.timeoutMs > 0 ? otel.timeoutMs : defaultTimeoutMs;
}

/** The configured `key=value` headers, names in lower case; what has no `=` is left out. */
export function otlpHeaders(otel: OtelSettings): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const header of otel.headers) {
    const equals = header.indexOf("=");
    if (equals > 0) headers[header.slice(0, equals).trim().toLowerCase()] = header.slice(equals + 1).trim();
  }
  return headers;
}
