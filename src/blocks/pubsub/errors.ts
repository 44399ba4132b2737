/**
 * Everything the pub/sub API answers when it cannot do what was asked, in the words clients know from Dapr.
 * `requestMetadata` is what the caller sent as `metadata.*`; it is repeated in the details.
 */
import { ApiError, GrpcCode, errorInfo, resourceInfo } from "../../api/errors.ts";
import type { ErrorDetail } from "../../api/errors.ts";

type Metadata = Readonly<Record<string, string>>;

/** Details of a rich error: which pub/sub component, and why. */
function details(pubsub: string, message: string, reason: string, metadata: Metadata): ErrorDetail[] {
  return [resourceInfo("pubsub", pubsub, message), errorInfo(`DAPR_PUBSUB_${reason}`, metadata)];
}

export function pubsubNotFound(pubsub: string, requestMetadata: Metadata): ApiError {
  const reason = "DAPR_PUBSUB_NOT_FOUND";
  return new ApiError({
    code: "ERR_PUBSUB_NOT_FOUND",
    httpStatus: 404,
    grpcCode: GrpcCode.InvalidArgument,
    message: `pubsub ${pubsub} is not found`,
    details: [errorInfo(reason, requestMetadata)],
    grpcDetails: [errorInfo(reason)],
  });
}

export function pubsubNameEmpty(requestMetadata: Metadata): ApiError {
  const message = "pubsub name is empty";
  return new ApiError({
    code: "ERR_PUBSUB_EMPTY",
    httpStatus: 404,
    grpcCode: GrpcCode.InvalidArgument,
    message,
    details: details("", message, "NAME_EMPTY", requestMetadata),
  });
}

export function topicEmpty(pubsub: string, requestMetadata: Metadata): ApiError {
  const message = `topic is empty in pubsub ${pubsub}`;
  return new ApiError({
    code: "ERR_TOPIC_NAME_EMPTY",
    httpStatus: 404,
    grpcCode: GrpcCode.InvalidArgument,
    message,
    details: details(pubsub, message, "TOPIC_NAME_EMPTY", requestMetadata),
  });
}

export function badRawPayload(pubsub: string, value: string, requestMetadata: Metadata): ApiError {
  const message = `failed deserializing metadata. Error: ${rawPayloadProblem(value)}`;
  return new ApiError({
    code: "ERR_PUBSUB_REQUEST_METADATA",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message,
    details: details(pubsub, message, "METADATA_DESERIALIZATION", requestMetadata),
  });
}

/** What the component cannot do with the metadata of a publish. */
export function publishMetadataRefused(pubsub: string, topic: string, cause: Error): ApiError {
  const message = publishFailedMessage(pubsub, topic, cause);
  return new ApiError({
    code: "ERR_PUBSUB_REQUEST_METADATA",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message,
    details: details(pubsub, message, "METADATA_REFUSED", { topic, error: cause.message }),
    cause,
  });
}

/** What is wrong with a `rawPayload` value, in words. */
export function rawPayloadProblem(value: string): string {
  return `rawPayload value must be a valid boolean: actual is '${value}'`;
}

export function cannotCreateCloudEvent(pubsub: string, appId: string, cause: Error): ApiError {
  const message = "cannot create cloudevent";
  return new ApiError({
    code: "ERR_PUBSUB_CLOUD_EVENTS_SER",
    httpStatus: 500,
    grpcCode: GrpcCode.InvalidArgument,
    message,
    details: details(pubsub, message, "CLOUD_EVENT_CREATION", { appID: appId, error: cause.message }),
    cause,
  });
}

export function topicForbidden(pubsub: string, topic: string, appId: string): ApiError {
  const message = `topic ${topic} is not allowed for app id ${appId}`;
  return new ApiError({
    code: "ERR_PUBSUB_FORBIDDEN",
    httpStatus: 403,
    grpcCode: GrpcCode.PermissionDenied,
    message,
    details: details(pubsub, message, "FORBIDDEN", { topic, error: message }),
  });
}

/** The words of a publish that the broker refused. */
export function publishFailedMessage(pubsub: string, topic: string, cause: Error): string {
  return `error when publishing to topic ${topic} in pubsub ${pubsub}: ${cause.message}`;
}

export function publishFailed(pubsub: string, topic: string, cause: Error): ApiError {
  const message = publishFailedMessage(pubsub, topic, cause);
  return new ApiError({
    code: "ERR_PUBSUB_PUBLISH_MESSAGE",
    httpStatus: 500,
    grpcCode: GrpcCode.Internal,
    message,
    details: details(pubsub, message, "PUBLISH_MESSAGE", { topic, error: cause.message }),
    cause,
  });
}

/** A bulk publish whose body, ids or events cannot be used; `step` says which, `reason` is the machine's word. */
export function bulkRefused(
  pubsub: string,
  appId: string,
  step: { readonly reason: string; readonly message: string; readonly cause?: string },
): ApiError {
  const metadata: Metadata =
    step.cause === undefined ? { appID: appId } : { appID: appId, error: step.cause };
  return new ApiError({
    code: "ERR_PUBSUB_EVENTS_SER",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message: step.message,
    details: details(pubsub, step.message, step.reason, metadata),
  });
}

/** The sidecar ends: it takes no further streaming subscription. */
export function streamsEnded(): ApiError {
  return new ApiError({
    code: "ERR_PUBSUB_STREAM",
    httpStatus: 503,
    grpcCode: GrpcCode.Unavailable,
    message: "the sidecar stops",
    grpcDetails: [],
  });
}

/** What the component cannot do with the metadata of a streaming subscription. */
export function streamRefused(message: string): ApiError {
  return new ApiError({
    code: "ERR_PUBSUB_REQUEST_METADATA",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message,
    grpcDetails: [],
  });
}

/** Ends a streaming subscription with code Unknown. */
export function streamError(message: string): ApiError {
  return new ApiError({
    code: "ERR_PUBSUB_STREAM",
    httpStatus: 500,
    grpcCode: GrpcCode.Unknown,
    message,
    grpcDetails: [],
  });
}
