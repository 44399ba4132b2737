/** The trace context among the headers of a call: flat name, value lists of HTTP, the mesh, and gRPC on the wire. */
import type { Span } from "./span.ts";
import { binaryTrace, readBinaryTrace, type TraceContext } from "./trace-context.ts";

/**
 * Puts the span's context into a list in place of the caller's. Of several `baggage` lines the first stays, as apps
 * behind Dapr see it.
 */
export function setTrace(headers: string[], span: Span): void {
  let kept = 0;
  let baggage = false;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const kind = traceHeader(headers[i]!);
    if (kind !== undefined) {
      if (kind !== "baggage" || baggage) continue;
      baggage = true;
    }
    headers[kept++] = headers[i]!;
    headers[kept++] = headers[i + 1]!;
  }
  headers.length = kept;
  headers.push("traceparent", span.traceparent);
  if (span.tracestate !== "") headers.push("tracestate", span.tracestate);
}

/** Which of the headers of tracing this is. Most names differ in length already, which costs nothing to see. */
function traceHeader(name: string): string | undefined {
  const { length } = name;
  if (length !== 11 && length !== 10 && length !== 7 && length !== 14) return undefined;
  const lower = name.toLowerCase();
  const known =
    lower === "traceparent" || lower === "tracestate" || lower === "baggage" || lower === "grpc-trace-bin";
  return known ? lower : undefined;
}

/** The context in a flat list as sidecars send it; gRPC's binary form counts when there is no other. */
export function readTraceHeaders(headers: readonly string[]): Partial<TraceContext> {
  let traceparent: string | undefined;
  let tracestate: string | undefined;
  let binary: string | undefined;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const kind = traceHeader(headers[i]!);
    if (kind === "traceparent") traceparent ??= headers[i + 1];
    else if (kind === "tracestate") tracestate ??= headers[i + 1];
    else if (kind === "grpc-trace-bin") binary ??= headers[i + 1];
  }
  if (traceparent === undefined && binary !== undefined) return readBinaryHeader(binary);
  return {
    ...(traceparent === undefined ? {} : { traceparent }),
    ...(tracestate === undefined ? {} : { tracestate }),
  };
}

/** `grpc-trace-bin` as on the wire, base64. */
export function readBinaryHeader(base64: string): TraceContext {
  return readBinaryTrace(Buffer.from(base64, "base64").toString("latin1"));
}

/** Metadata on the wire that tells a gRPC server of the span: `traceparent`, `grpc-trace-bin`. */
export function grpcTracePairs(span: Span): string[] {
  const binary = binaryTrace(span.traceparent);
  const pairs = ["traceparent", span.traceparent];
  if (binary !== undefined) pairs.push("grpc-trace-bin", binary.toString("base64").replace(/=+$/, ""));
  return pairs;
}

/** The span's context as metadata of a message, by header names. */
export function traceMetadata({ traceparent, tracestate }: Span): Record<string, string> {
  return tracestate === "" ? { traceparent } : { traceparent, tracestate };
}
