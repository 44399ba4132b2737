/** Every error the configuration API answers, with the texts that Dapr clients know. */
import { type ApiError, GrpcCode, passed, simpleError } from "../../api/errors.ts";
import { textOf } from "../../lib/thrown.ts";

/** No configuration store is loaded at all. */
export function storesNotConfigured(): ApiError {
  const message = "configuration stores not configured";
  return simpleError("ERR_CONFIGURATION_STORE_NOT_CONFIGURED", 500, GrpcCode.FailedPrecondition, message);
}

/** There are configuration stores, but none of this name. */
export function storeNotFound(store: string): ApiError {
  const message = `configuration store ${store} not found`;
  return simpleError("ERR_CONFIGURATION_STORE_NOT_FOUND", 400, GrpcCode.InvalidArgument, message);
}

export function getFailed(store: string, keys: readonly string[], cause: unknown): ApiError {
  const message = `failed to get ${listed(keys)} from Configuration store ${store}: ${textOf(cause)}`;
  return passed(cause) ?? simpleError("ERR_CONFIGURATION_GET", 500, GrpcCode.Internal, message, cause);
}

export function subscribeFailed(store: string, keys: readonly string[], cause: unknown): ApiError {
  const message = `failed to subscribe ${listed(keys)} from Configuration store ${store}: ${textOf(cause)}`;
  return (
    passed(cause) ?? simpleError("ERR_CONFIGURATION_SUBSCRIBE", 500, GrpcCode.InvalidArgument, message, cause)
  );
}

/** A subscription over HTTP has nobody to tell. */
export function noApp(): ApiError {
  const message = "app channel is not initialized. cannot subscribe to configuration updates";
  return simpleError("ERR_APP_CHANNEL_NIL", 500, GrpcCode.Internal, message);
}

/** Text for an unsubscribe of an id that nobody has: no error over gRPC, status 500 over HTTP. */
export function unknownIdText(id: string, protocol: "http" | "grpc"): string {
  const what =
    protocol === "http" ? `subscription with id ${id} does not exist` : "subscription does not exist";
  return `failed to unsubscribe to configuration request ${id}: ${what}`;
}

/** Lists stand in texts without commas. */
function listed(keys: readonly string[]): string {
  return Array.isArray(keys) ? `[${keys.join(" ")}]` : String(keys);
}
