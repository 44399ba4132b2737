/** Every error the lock API answers, with the texts that Dapr clients know. */
import { type ApiError, GrpcCode, passed, plainError } from "../../api/errors.ts";
import { textOf } from "../../lib/thrown.ts";

/** No lock store is loaded at all. */
export function storesNotConfigured(): ApiError {
  const message = "lock store is not configured";
  return plainError("ERR_LOCK_STORE_NOT_CONFIGURED", 500, GrpcCode.FailedPrecondition, message);
}

/** There are lock stores, but none of this name. */
export function storeNotFound(store: string): ApiError {
  const message = `lock store ${store} not found`;
  return plainError("ERR_LOCK_STORE_NOT_FOUND", 400, GrpcCode.InvalidArgument, message);
}

/** The time to hold the lock is 0 or less. */
export function expiryNotPositive(store: string): ApiError {
  return malformed(`ExpiryInSeconds is not positive in lock store ${store}`);
}

export function fieldEmpty(field: "ResourceId" | "LockOwner", store: string): ApiError {
  return malformed(`${field} is empty in lock store ${store}`);
}

/** The body over HTTP is no request. */
export function bodyUnreadable(cause: unknown): ApiError {
  return malformed(`failed deserializing HTTP body: proto: ${textOf(cause)}`, cause);
}

export function tryLockFailed(cause: unknown): ApiError {
  const message = `failed to try acquiring lock: ${textOf(cause)}`;
  return passed(cause) ?? plainError("ERR_TRY_LOCK", 500, GrpcCode.Internal, message, cause);
}

export function unlockFailed(cause: unknown): ApiError {
  const message = `failed to release lock: ${textOf(cause)}`;
  return passed(cause) ?? plainError("ERR_UNLOCK", 500, GrpcCode.Internal, message, cause);
}

/** Text of a resource id or key prefix that holds the separator. */
export function illegalKeyText(key: string): string {
  return `input key/keyPrefix '${key}' can't contain '||'`;
}

function malformed(message: string, cause?: unknown): ApiError {
  return plainError("ERR_MALFORMED_REQUEST", 400, GrpcCode.InvalidArgument, message, cause);
}
