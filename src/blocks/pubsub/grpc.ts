/**
 * The gRPC methods of publishing. Streaming subscriptions stand in stream.ts.
 */
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import type { BulkPublishRequest } from "../../../proto/gen/dapr/proto/runtime/v1/pubsub_pb.ts";
import { unary } from "../../api/grpc.ts";
import type { GrpcCall, GrpcMethod } from "../../api/grpc.ts";
import type { BulkPublisher } from "./bulk-publish.ts";
import { publishFailed } from "./errors.ts";
import type { Publisher } from "./publish.ts";
import type { TraceContext } from "../../telemetry/tracing/trace-context.ts";
import { traceOf } from "./trace.ts";

export function grpcMethods(publisher: Publisher, bulk: BulkPublisher): GrpcMethod[] {
  return [
    unary(Dapr.method.publishEvent, async (request, call) => {
      const target = publisher.resolve(request.pubsubName, request.topic, request.metadata);
      const trace = withoutState(traceOf(call.span));
      const metadata = target.raw ? withTrace(request.metadata, trace) : request.metadata;
      const event = { data: bufferOf(request.data), contentType: request.dataContentType, metadata, trace };
      await publisher.publish(target, event, call.signal, "grpc");
      return {};
    }),
    unary(Dapr.method.bulkPublishEvent, (request, call) => publishBulk(publisher, bulk, request, call)),
    unary(Dapr.method.bulkPublishEventAlpha1, (request, call) => publishBulk(publisher, bulk, request, call)),
  ];
}

async function publishBulk(
  publisher: Publisher,
  bulk: BulkPublisher,
  request: BulkPublishRequest,
  call: GrpcCall,
): Promise<{ failedEntries: [] }> {
  const { metadata } = request;
  const target = publisher.resolve(request.pubsubName, request.topic, metadata);
  const entries = request.entries.map((entry) => ({
    entryId: entry.entryId,
    data: bufferOf(entry.event),
    contentType: entry.contentType,
    metadata: Object.keys(entry.metadata).length === 0 ? undefined : entry.metadata,
  }));
  bulk.checkIds(target, entries);
  const trace = withoutState(traceOf(call.span));
  const wanted = { entries, metadata, trace, span: call.span };
  const failed = await bulk.publish(target, wanted, call.signal, "grpc");
  // Clients of the gRPC API rely on a status; which entries failed is not part of it.
  if (failed !== undefined)
    throw publishFailed(target.broker.name, target.topic, new Error(failed[0]!.error));
  return { failedEntries: [] };
}

/** Over gRPC a caller's `tracestate` is not taken over. */
function withoutState({ traceparent }: TraceContext): TraceContext {
  return { traceparent, tracestate: "" };
}

/** Raw bytes have no envelope to carry the trace in. */
function withTrace(metadata: Readonly<Record<string, string>>, trace: TraceContext): Record<string, string> {
  return { ...metadata, traceid: trace.traceparent, tracestate: trace.tracestate };
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
