/** OTLP over HTTP: protobuf to `/v1/traces`. */
import type { OtelSettings } from "../../config/kinds/configuration.ts";
import type { SpanExporter } from "./batch.ts";
import { exportTimeoutMs, otlpHeaders } from "./otlp-settings.ts";
import { type Attributes, encodeOtlp } from "./otlp-encode.ts";
import { createPoster } from "./post.ts";

export function createExporter(otel: OtelSettings, resource: Attributes, scope: string): SpanExporter {
  const url = new URL(`${otel.isSecure ? "https" : "http"}://${otel.endpoint}`);
  // An endpoint from the environment may come with a path of its own.
  if (url.pathname === "/" || url.pathname === "") url.pathname = "/v1/traces";
  const headers = { ...otlpHeaders(otel), "Content-Type": "application/x-protobuf" };
  const poster = createPoster(url, headers, exportTimeoutMs(otel));
  return {
    name: "otlp-http",
    export: (spans) => poster.post(encodeOtlp(resource, scope, spans)),
    close: () => poster.close(),
  };
}
