/** Spans of calls between apps: the caller's own is named by its target, the callee's is begun here. */
import type { MeshRequest, MeshResponse } from "../../../mesh/index.ts";
import { httpStatusText } from "../../telemetry/tracing/status.ts";
import { grpcTracePairs, readTraceHeaders, setTrace } from "../../telemetry/tracing/headers.ts";
import type { Span } from "../../telemetry/tracing/span.ts";
import { binaryTrace } from "../../telemetry/tracing/trace-context.ts";
import type { Tracer } from "../../telemetry/tracing/tracer.ts";

/** The span of the API call that turned out to be an invocation. */
export function nameSpan(span: Span, id: string, method: string): void {
  span.name = `CallLocal/${id}/${method}`;
  span.set("rpc.service", "ServiceInvocation");
  span.set("net.peer.name", id);
}

/** The span of a call that arrived, under its caller's. */
export function serverSpan(tracer: Tracer, appId: string, { path, headers }: MeshRequest): Span {
  const { traceparent, tracestate } = readTraceHeaders(headers);
  const method = path.startsWith("/") ? path.slice(1) : path;
  const span = tracer.start(`CallLocal/${appId}/${method}`, "server", traceparent, tracestate);
  span.set("rpc.service", "ServiceInvocation");
  span.set("net.peer.name", appId);
  span.set("dapr.invoke_method", method);
  return span;
}

/** The span of a proxied call that arrived; of several contexts the last is that of the caller's sidecar. */
export function proxySpan(tracer: Tracer, { path, headers }: MeshRequest): Span {
  const at = headers.lastIndexOf("traceparent");
  const span = tracer.start(path, "server", at < 0 ? undefined : headers[at + 1]);
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!;
    if (name.startsWith("dapr-") && !name.endsWith("-bin") && name !== "dapr-api-token")
      span.set(name, headers[i + 1]!);
  }
  return span;
}

/** Headers for the app: the span's context in place of the caller's. */
export function traced(headers: string[], span: Span, protocol: string): string[] {
  setTrace(headers, span);
  if (protocol === "grpc") headers.push(...grpcTracePairs(span).slice(2));
  return headers;
}

/** A gRPC app gets its own form beside the text, also when its caller is this sidecar's app. */
export function withBinaryTrace(headers: readonly string[]): readonly string[] {
  const { traceparent } = readTraceHeaders(headers);
  const binary = traceparent === undefined ? undefined : binaryTrace(traceparent);
  if (binary === undefined) return headers;
  const others = headers.filter((_, i) => headers[i - (i % 2)]!.toLowerCase() !== "grpc-trace-bin");
  return [...others, "grpc-trace-bin", binary.toString("base64").replace(/=+$/, "")];
}

/** What the app answered. */
export function describeAnswer(span: Span, { status, grpc }: MeshResponse): void {
  if (grpc !== undefined) {
    if (grpc.code !== 0) span.fail(grpc.message);
    return;
  }
  if (status >= 400) span.fail(httpStatusText(status));
}
