/** Every error the secrets API answers, with the texts that Dapr clients know. */
import { type ApiError, GrpcCode, passed, plainError } from "../../api/errors.ts";
import { textOf } from "../../lib/thrown.ts";

/** No secret store is loaded at all. */
export function storesNotConfigured(): ApiError {
  const message = "secret store is not configured";
  return plainError("ERR_SECRET_STORES_NOT_CONFIGURED", 500, GrpcCode.FailedPrecondition, message);
}

/** There are secret stores, but none of this name. */
export function storeNotFound(store: string): ApiError {
  const message = `failed finding secret store with key ${store}`;
  return plainError("ERR_SECRET_STORE_NOT_FOUND", 401, GrpcCode.InvalidArgument, message);
}

/** The scopes of the Configuration keep the secret from this app. */
export function accessDenied(store: string, name: string): ApiError {
  const message = `access denied by policy to get "${name}" from "${store}"`;
  return plainError("ERR_PERMISSION_DENIED", 403, GrpcCode.PermissionDenied, message);
}

export function getFailed(store: string, name: string, cause: unknown): ApiError {
  const message = `failed getting secret with key ${name} from secret store ${store}: ${textOf(cause)}`;
  return passed(cause) ?? plainError("ERR_SECRET_GET", 500, GrpcCode.Internal, message, cause);
}

export function getAllFailed(store: string, cause: unknown): ApiError {
  const message = `failed getting secrets from secret store ${store}: ${textOf(cause)}`;
  return passed(cause) ?? plainError("ERR_SECRET_GET", 500, GrpcCode.Internal, message, cause);
}
