/** Everything the bindings API answers when it cannot do what was asked, in the words clients know from Dapr. */
import { ApiError, errorInfo, GrpcCode } from "../../api/errors.ts";
import { metadataHeaders } from "../../lib/metadata-headers.ts";
import type { BindingMetadata } from "./port.ts";

/** The body of an invocation is no JSON, or a member of it has the wrong kind. */
export function malformedBody(cause: unknown): ApiError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new ApiError({
    code: "ERR_MALFORMED_REQUEST",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message: `failed deserializing HTTP body: ${text}`,
    cause,
  });
}

/** `metadata` of the component's failure is told in headers even so. */
export function invokeFailed(name: string, cause: unknown, metadata: BindingMetadata = {}): ApiError {
  const text = cause instanceof Error ? cause.message : String(cause);
  const code = "ERR_INVOKE_OUTPUT_BINDING";
  return new ApiError({
    code,
    httpStatus: 500,
    grpcCode: GrpcCode.Internal,
    message: `error invoking output binding ${name}: ${text}`,
    grpcDetails: [errorInfo(code)],
    httpHeaders: metadataHeaders(metadata),
    cause,
  });
}

export const noOperation = (): Error => new Error("operation field is missing from request");

export const notFound = (name: string): Error => new Error(`couldn't find output binding ${name}`);

export function unsupported(name: string, operation: string, known: readonly string[]): Error {
  return new Error(
    `binding ${name} does not support operation ${operation}. supported operations:${known.join(" ")}`,
  );
}
