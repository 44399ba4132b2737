/** OTLP over HTTP: protobuf to `/v1/traces`. */
import type { OtelSettings } from "../../config/kinds/configuration.ts";
import type { SpanExporter } from "./batch.ts";
import { exportTimeoutMs, otlpHeaders } from "./otlp-settings.ts";
import { type Attributes, OtlpBatch, OtlpForm } from "./otlp-encode.ts";
import { createPoster } from "./post.ts";

export function createExporter(
  otel: OtelSettings,
  resource: Attributes,
  scope: string,
): SpanExporter<OtlpBatch> {
  const url = new URL(`${otel.isSecure ? "https" : "http"}://${otel.endpoint}`);
  // An endpoint from the environment may come with a path of its own.
  if (url.pathname === "/" || url.pathname === "") url.pathname = "/v1/traces";
  const form = new OtlpForm(resource, scope);
  const headers = { ...otlpHeaders(otel), "Content-Type": "application/x-protobuf" };
  const poster = createPoster(url, headers, exportTimeoutMs(otel));
  return {
    name: "otlp-http",
    begin: () => new OtlpBatch(form),
    async export(spans) {
      await poster.post(spans.pieces());
      spans.release();
    },
    close: () => poster.close(),
  };
}
