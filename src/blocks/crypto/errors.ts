/** Every error the cryptography API answers, with the texts that Dapr clients know. */
import { type ApiError, GrpcCode, plainError } from "../../api/errors.ts";
import { textOf } from "../../lib/thrown.ts";

/** No crypto provider is loaded at all. */
export function providersNotConfigured(): ApiError {
  const message = "crypto providers not configured";
  return plainError("ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", 500, GrpcCode.Internal, message);
}

/** There are crypto providers, but none of this name. */
export function providerNotFound(name: string): ApiError {
  const message = `crypto provider ${name} not found`;
  return plainError("ERR_CRYPTO_PROVIDER_NOT_FOUND", 400, GrpcCode.InvalidArgument, message);
}

/** Something that the request must say is not there. */
export function badRequest(what: string): ApiError {
  return plainError("ERR_BAD_REQUEST", 400, GrpcCode.InvalidArgument, `invalid request: ${what}`);
}

/** The key or the document is of no use; the cause's message is for the client. */
export function operationFailed(cause: unknown): ApiError {
  const message = `failed to perform operation: ${textOf(cause)}`;
  const deeper = cause instanceof Error ? (cause.cause ?? cause) : cause;
  return plainError("ERR_CRYPTO", 500, GrpcCode.Internal, message, deeper);
}

/** Operations on single keys. */
export function subtleNotThere(): ApiError {
  const message = "this API is currently not implemented";
  return plainError("ERR_API_UNIMPLEMENTED", 501, GrpcCode.Unimplemented, message);
}
