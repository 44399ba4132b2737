/** `stdout: true`: one line of the sidecar's log for each span. */
import type { Log } from "../log.ts";
import type { SpanSink } from "./span.ts";

/** At info, under the scope `dapr.runtime.trace`. */
export function createLogSink(log: Log): SpanSink {
  const scoped = log.scope("dapr.runtime.trace");
  return (span) => {
    const attributes: Record<string, string | number> = {};
    for (let i = 0; i + 1 < span.attributes.length; i += 2)
      attributes[String(span.attributes[i])] = span.attributes[i + 1]!;
    scoped.info(`Span ${span.name}`, {
      trace_id: span.traceId,
      span_id: span.spanId,
      parent_id: span.parentSpanId,
      kind: span.kind,
      start: new Date(span.startMs).toISOString(),
      duration_ms: Number((span.endMs - span.startMs).toFixed(3)),
      status: span.error === undefined ? "unset" : `error: ${span.error}`,
      attributes: JSON.stringify(attributes),
    });
  };
}
