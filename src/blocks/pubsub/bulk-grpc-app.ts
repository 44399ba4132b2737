/**
 * Delivers batches of events to an app that speaks gRPC: AppCallback.OnBulkTopicEvent, and the older name of the
 * method for apps that do not know it.
 */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  TopicEventBulkRequestSchema,
  type TopicEventBulkRequestEntrySchema,
  TopicEventBulkResponseSchema,
} from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import { GrpcCode } from "../../api/errors.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import type { AppChannel, AppGrpcResponse } from "../../app/channel.ts";
import type { Answer } from "./answer.ts";
import { dropLost, retry } from "./answer.ts";
import { bulkEventType } from "./bulk-delivery.ts";
import type { BulkEvents, BulkItem, DeliverBulk } from "./bulk-delivery.ts";
import { cloudEventsType } from "./envelope.ts";
import { readStatus, topicEventRequest } from "./grpc-app.ts";

const methods = [
  "/dapr.proto.runtime.v1.AppCallback/OnBulkTopicEvent",
  "/dapr.proto.runtime.v1.AppCallbackAlpha/OnBulkTopicEventAlpha1",
] as const;

export function deliverBulkToGrpcApp(app: AppChannel): DeliverBulk {
  // The method that the app is known to have.
  let known: string | undefined;
  return async (events, path, signal) => {
    const message = encode(events, path);
    try {
      for (const method of known === undefined ? methods : [known]) {
        const answer = await call(app, method, message, signal);
        if (answer === undefined) continue;
        known = method;
        return readStatuses(answer.message);
      }
    } catch (error) {
      if (!(error instanceof GrpcStatusError)) throw error;
      return retry(error, { kind: "grpc", code: error.code });
    }
    return dropLost;
  };
}

/** Undefined when the app does not have the method. */
async function call(
  app: AppChannel,
  path: string,
  message: Uint8Array,
  signal: AbortSignal,
): Promise<AppGrpcResponse | undefined> {
  try {
    return await app.grpc({ path, metadata: [], message }, signal);
  } catch (error) {
    if (error instanceof GrpcStatusError && error.code === GrpcCode.Unimplemented) return undefined;
    throw error;
  }
}

function encode({ id, pubsub, topic, raw, items }: BulkEvents, path: string): Uint8Array {
  const request = create(TopicEventBulkRequestSchema, {
    id,
    topic,
    path,
    pubsubName: pubsub,
    type: bulkEventType,
    metadata: { pubsubName: pubsub },
    entries: items.map((item) => encodeEntry(item, raw)),
  });
  return toBinary(TopicEventBulkRequestSchema, request);
}

function encodeEntry(
  { entryId, event, message }: BulkItem,
  raw: boolean,
): MessageInitShape<typeof TopicEventBulkRequestEntrySchema> {
  const metadata = { ...message.metadata };
  if (raw) {
    const contentType = message.contentType ?? "application/octet-stream";
    return { entryId, metadata, contentType, event: { case: "bytes", value: message.data } };
  }
  const { id, source, type, specVersion, dataContentType, data, extensions } = topicEventRequest(event, "");
  return {
    entryId,
    metadata,
    contentType: message.contentType ?? cloudEventsType,
    event: {
      case: "cloudEvent",
      value: { id, source, type, specVersion, dataContentType, data, ...(extensions && { extensions }) },
    },
  };
}

function readStatuses(message: Uint8Array): ReadonlyMap<string, Answer> {
  const { statuses } = fromBinary(TopicEventBulkResponseSchema, message);
  return new Map(statuses.map(({ entryId, status }) => [entryId, readStatus(status)]));
}
