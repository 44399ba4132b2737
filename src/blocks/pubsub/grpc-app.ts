/**
 * Delivers events to an app that speaks gRPC (AppCallback.OnTopicEvent), and builds the message that streams share.
 */
import { asError } from "../../lib/thrown.ts";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { JsonObject } from "@bufbuild/protobuf";
import {
  TopicEventRequestSchema,
  TopicEventResponseSchema,
  TopicEventResponse_TopicEventResponseStatus as Status,
} from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import type { TopicEventRequest } from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import { GrpcCode } from "../../api/errors.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import type { AppChannel } from "../../app/channel.ts";
import { decodeGoBase64 } from "../../lib/go-base64.ts";
import { goJson } from "../../lib/go-json.ts";
import { grpcTracePairs } from "../../telemetry/tracing/headers.ts";
import { dropAsked, dropLost, retry, success } from "./answer.ts";
import type { Answer, Deliver } from "./answer.ts";
import { grpcMetadata } from "../../app/callback-metadata.ts";
import { cloudEventsType } from "./envelope.ts";
import { textAttribute } from "./event.ts";
import type { AppEvent, CloudEvent } from "./event.ts";
import { mediaType } from "./payload.ts";

const method = "/dapr.proto.runtime.v1.AppCallback/OnTopicEvent";

export function deliverToGrpcApp(app: AppChannel): Deliver {
  return async (event, path, signal) => {
    let message: Uint8Array;
    try {
      message = toBinary(TopicEventRequestSchema, topicEventRequest(event, path));
    } catch (error) {
      return retry(asError(error));
    }
    try {
      const answer = await app.grpc({ path: method, metadata: metadataOf(event), message }, signal);
      return readStatus(fromBinary(TopicEventResponseSchema, answer.message).status);
    } catch (error) {
      if (!(error instanceof GrpcStatusError)) return retry(asError(error));
      if (error.code === GrpcCode.Unimplemented) return dropLost;
      return retry(error, { kind: "grpc", code: error.code });
    }
  };
}

function metadataOf(event: AppEvent): string[] {
  const metadata = grpcMetadata(event.metadata);
  return event.span === undefined ? metadata : [...metadata, ...grpcTracePairs(event.span)];
}

/** What a subscriber's status means. */
export function readStatus(status: Status | undefined): Answer {
  switch (status) {
    case Status.SUCCESS:
    case undefined:
      return success;
    case Status.DROP:
      return dropAsked;
    case Status.RETRY:
      return retry("the app asked for RETRY");
    default:
      return retry(`the app answered the unknown status ${String(status)}`);
  }
}

const coreAttributes: ReadonlySet<string> = new Set([
  "id",
  "source",
  "datacontenttype",
  "type",
  "specversion",
  "data",
  "data_base64",
]);

/** The event as a message. Throws Error when its data does not fit its content type. */
export function topicEventRequest(event: AppEvent, path: string): TopicEventRequest {
  const { attributes } = event;
  const extensions: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(attributes))
    if (!coreAttributes.has(name)) extensions[name] = value;
  return create(TopicEventRequestSchema, {
    id: textAttribute(attributes, "id"),
    source: textAttribute(attributes, "source"),
    type: textAttribute(attributes, "type"),
    specVersion: textAttribute(attributes, "specversion"),
    dataContentType: textAttribute(attributes, "datacontenttype"),
    data: dataOf(attributes),
    topic: event.topic,
    pubsubName: event.pubsub,
    path,
    extensions: extensions as JsonObject,
  });
}

function dataOf(event: CloudEvent): Uint8Array {
  const base64 = event["data_base64"];
  if (base64 !== undefined && base64 !== null) return fromBase64(base64);
  const data = event["data"];
  if (data === undefined || data === null) return new Uint8Array();
  if (data instanceof Uint8Array) return data;
  const type = mediaType(textAttribute(event, "datacontenttype"));
  if (type === "application/json" || type === cloudEventsType) return Buffer.from(goJson(data));
  if (typeof data === "string") return Buffer.from(data);
  if (type.startsWith("text/") || type === "application/xml") {
    throw new Error(`the event's data is no text although its datacontenttype is ${type}`);
  }
  return Buffer.from(goJson(data));
}

function fromBase64(value: unknown): Uint8Array {
  if (typeof value !== "string") throw new Error("the event's data_base64 is no text");
  return decodeGoBase64(value);
}
