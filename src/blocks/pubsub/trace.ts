/** Spans of events: what a published event carries on, and the span of its delivery. */
import type { Span } from "../../telemetry/tracing/span.ts";
import { noTrace, type TraceContext } from "../../telemetry/tracing/trace-context.ts";
import type { Tracer } from "../../telemetry/tracing/tracer.ts";
import type { Answer } from "./answer.ts";
import { type AppEvent, eventTrace } from "./event.ts";

/** The trace that an event published under this span belongs to; none when tracing is off or passes on nothing. */
export function traceOf(span: Span | undefined): TraceContext {
  return span?.valid === true ? span : noTrace;
}

/** The span of one delivery, under the event's own; undefined when tracing is off or the event has no trace. */
export function deliverySpan(
  tracer: Tracer | undefined,
  { attributes, topic }: Pick<AppEvent, "attributes" | "topic">,
): Span | undefined {
  const trace = tracer === undefined ? undefined : eventTrace(attributes);
  if (tracer === undefined || trace === undefined) return undefined;
  const span = tracer.start(`pubsub/${topic}`, "client", trace);
  span.set("messaging.system", "pubsub");
  span.set("messaging.destination.name", topic);
  return span;
}

/** Ends it by what became of the event. */
export function endDelivery(span: Span, answer: Answer): void {
  if (answer.kind === "retry" && span.error === undefined) span.fail(answer.error.message);
  span.end();
}
