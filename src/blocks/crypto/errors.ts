/** Every error the cryptography API answers, with the texts that Dapr clients know. */
import { ApiError, GrpcCode } from "../../api/errors.ts";

/** No crypto provider is loaded at all. */
export function providersNotConfigured(): ApiError {
  const message = "crypto providers not configured";
  return simple("ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", 500, GrpcCode.Internal, message);
}

/** There are crypto providers, but none of this name. */
export function providerNotFound(name: string): ApiError {
  const message = `crypto provider ${name} not found`;
  return simple("ERR_CRYPTO_PROVIDER_NOT_FOUND", 400, GrpcCode.InvalidArgument, message);
}

/** Something that the request must say is not there. */
export function badRequest(what: string): ApiError {
  return simple("ERR_BAD_REQUEST", 400, GrpcCode.InvalidArgument, `invalid request: ${what}`);
}

/** The key or the document is of no use; the cause's message is for the client. */
export function operationFailed(cause: unknown): ApiError {
  const text = cause instanceof Error ? cause.message : String(cause);
  const message = `failed to perform operation: ${text}`;
  return simple("ERR_CRYPTO", 500, GrpcCode.Internal, message, cause);
}

/** Operations on single keys. */
export function subtleNotThere(): ApiError {
  const message = "this API is currently not implemented";
  return simple("ERR_API_UNIMPLEMENTED", 501, GrpcCode.Unimplemented, message);
}

function simple(
  code: string,
  httpStatus: number,
  grpcCode: GrpcCode,
  message: string,
  thrown?: unknown,
): ApiError {
  const cause = thrown instanceof Error ? (thrown.cause ?? thrown) : thrown;
  return new ApiError({ code, httpStatus, grpcCode, message, cause });
}
