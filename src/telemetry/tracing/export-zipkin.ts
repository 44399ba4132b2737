/** Zipkin's JSON, version 2. */
import type { SpanExporter } from "./batch.ts";
import type { Attributes } from "./otlp-encode.ts";
import { createPoster } from "./post.ts";
import type { Span } from "./span.ts";

const timeoutMs = 10_000;

/** `endpoint` is the whole URL, e.g. `http://localhost:9411/api/v2/spans`. */
export function createExporter(
  endpoint: string,
  resource: Attributes,
  scope: string,
): SpanExporter<ZipkinBatch> {
  const poster = createPoster(new URL(endpoint), { "Content-Type": "application/json" }, timeoutMs);
  const fixed = tagsOf(resource);
  fixed["otel.scope.name"] = scope;
  return {
    name: "zipkin",
    begin: () => new ZipkinBatch(fixed),
    export: (spans) => poster.post([Buffer.from(`[${spans.texts.join(",")}]`)]),
    close: () => poster.close(),
  };
}

class ZipkinBatch {
  readonly texts: string[] = [];
  readonly #fixed: Readonly<Record<string, string>>;

  constructor(fixed: Readonly<Record<string, string>>) {
    this.#fixed = fixed;
  }

  add(span: Span): void {
    this.texts.push(JSON.stringify(zipkinSpan(span, this.#fixed)));
  }
}

function zipkinSpan(span: Span, fixed: Readonly<Record<string, string>>): Record<string, unknown> {
  const tags = { ...fixed, ...tagsOf(span.attributes) };
  if (span.error !== undefined) {
    tags["otel.status_code"] = "ERROR";
    tags["error"] = span.error;
  }
  return {
    traceId: span.traceId,
    id: span.spanId,
    ...(span.parentSpanId === "" ? {} : { parentId: span.parentSpanId }),
    ...(span.kind === "internal" ? {} : { kind: span.kind.toUpperCase() }),
    name: span.name.toLowerCase(),
    timestamp: Math.round(span.startMs * 1000),
    // Zipkin takes 0 for unknown.
    duration: Math.max(1, Math.round((span.endMs - span.startMs) * 1000)),
    localEndpoint: { serviceName: fixed["service.name"] },
    tags,
  };
}

function tagsOf(attributes: Attributes): Record<string, string> {
  const tags: Record<string, string> = {};
  for (let i = 0; i + 1 < attributes.length; i += 2) tags[String(attributes[i])] = String(attributes[i + 1]);
  return tags;
}
