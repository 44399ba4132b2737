/** The method of output bindings over gRPC: decode, call bindings.ts, encode. */
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { type GrpcCall, type GrpcMethod, unary } from "../../api/grpc.ts";
import { canonicalHeader } from "../../lib/canonical-header.ts";
import { traceMetadata } from "../../telemetry/tracing/headers.ts";
import type { Outputs } from "./bindings.ts";

export function bindingMethods(outputs: Outputs): GrpcMethod[] {
  return [
    unary(Dapr.method.invokeBinding, async (request, call) => {
      const { name, operation, data } = request;
      const metadata = withCallMetadata(request.metadata, call);
      const response = await outputs.invoke(name, { operation, data, metadata }, call.signal);
      if (response === undefined) return {};
      for (const [key, value] of Object.entries(response.metadata)) {
        const header = canonicalHeader(`metadata.${key}`).toLowerCase();
        if (/^[a-z0-9._-]+$/.test(header)) call.setHeader(header, value);
      }
      return { data: response.data, metadata: { ...response.metadata } };
    }),
  ];
}

/** Of the caller's span; the sidecar's own goes on in their place. */
const traceNames: ReadonlySet<string> = new Set(["traceparent", "tracestate", "grpc-trace-bin"]);

/**
 * All metadata of the call goes to the binding, under names that a binding can tell from its own; what the request
 * says itself stands.
 */
function withCallMetadata(
  metadata: Record<string, string>,
  { metadata: sent, span }: GrpcCall,
): Record<string, string> {
  const traced = span?.valid === true ? traceMetadata(span) : {};
  const all = { ...traced, ...metadata };
  for (const [name, [value]] of sent) {
    if (value === undefined || (span !== undefined && traceNames.has(name))) continue;
    const reserved = name.startsWith(":") || name.startsWith("grpc-");
    const key = reserved ? `dapr-${name.replace(/^:/, "")}` : name;
    all[key] ??= value;
  }
  return all;
}
