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
import { noTrace, readBinaryTrace, readTrace } from "./trace.ts";
import type { TraceContext } from "./trace.ts";

export function grpcMethods(publisher: Publisher, bulk: BulkPublisher): GrpcMethod[] {
  return [
    unary(Dapr.method.publishEvent, async (request, call) => {
      const target = publisher.resolve(request.pubsubName, request.topic, request.metadata);
      const trace = traceOf(call);
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
  const wanted = { entries, metadata, trace: traceOf(call) };
  const failed = await bulk.publish(target, wanted, call.signal, "grpc");
  // Clients of the gRPC API rely on a status; which entries failed is not part of it.
  if (failed !== undefined)
    throw publishFailed(target.broker.name, target.topic, new Error(failed[0]!.error));
  return { failedEntries: [] };
}

/** The caller's trace. Over gRPC a `tracestate` is not taken over. */
function traceOf(call: GrpcCall): TraceContext {
  const binary = call.metadata.get("grpc-trace-bin")?.[0];
  if (binary !== undefined) return readBinaryTrace(binary);
  const parent = call.metadata.get("traceparent")?.[0];
  return parent === undefined ? noTrace : readTrace(parent, undefined);
}

/** Raw bytes have no envelope to carry the trace in. */
function withTrace(metadata: Readonly<Record<string, string>>, trace: TraceContext): Record<string, string> {
  return { ...metadata, traceid: trace.traceparent, tracestate: trace.tracestate };
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
