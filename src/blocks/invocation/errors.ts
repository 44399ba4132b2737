/**
 * Catalogue of service invocation errors: one code over HTTP, Internal over gRPC, reasons in the words of the
 * contract.
 */
import { ApiError, GrpcCode, grpcStatusText } from "../../api/errors.ts";

const code = "ERR_DIRECT_INVOKE";

/** Neither path, header nor user part of the URL names an app. */
export function noTarget(): ApiError {
  return new ApiError({
    code,
    httpStatus: 404,
    grpcCode: GrpcCode.NotFound,
    message: "failed getting app id either from the URL path or the header dapr-app-id",
  });
}

/** The call could not be made; `reason` is the part after `err: `. */
export function invokeFailed(id: string, reason: string, cause?: unknown): ApiError {
  return new ApiError({
    code,
    httpStatus: 500,
    grpcCode: GrpcCode.Internal,
    message: `failed to invoke, id: ${id}, err: ${reason}`,
    cause,
  });
}

/** The called sidecar's access control refuses this caller. */
export function denied(id: string, reason: string, cause?: unknown): ApiError {
  return new ApiError({
    code,
    httpStatus: 403,
    grpcCode: GrpcCode.Internal,
    message: `failed to invoke, id: ${id}, err: ${grpcStatusText(GrpcCode.PermissionDenied, reason)}`,
    cause,
  });
}

/** An attempt took longer than the timeout of its policy. Over gRPC the words stand alone. */
export function timedOut(id: string, text: string): ApiError {
  const said = { message: text, httpMessage: `failed to invoke, id: ${id}, err: ${text}` };
  return new ApiError({ code, httpStatus: 500, grpcCode: GrpcCode.DeadlineExceeded, ...said });
}

/** A circuit breaker did not let the call through. */
export function breakerRefused(id: string, text: string): ApiError {
  const said = { message: text, httpMessage: `failed to invoke, id: ${id}, err: ${text}` };
  return new ApiError({ code, httpStatus: 500, grpcCode: GrpcCode.Unknown, ...said });
}

/** A method name that no app can have, e.g. one with a control character. */
export function invalidMethod(id: string, reason: string): ApiError {
  return invokeFailed(id, invalidArgument(`invalid method: ${reason}`));
}

/** The reason of a request that can never be valid. */
export function invalidArgument(reason: string): string {
  return grpcStatusText(GrpcCode.InvalidArgument, reason);
}

/** A gRPC app's status, passed on unchanged. `details` is the binary google.rpc.Status. */
export function grpcAppStatus(grpcCode: number, message: string, details: Uint8Array | undefined): ApiError {
  return new ApiError({
    code,
    httpStatus: 500,
    grpcCode: grpcCode as GrpcCode,
    message,
    grpcStatus: details,
  });
}

/** A proxied call names no app. With tracing, daprd refuses it in another place and in other words. */
export function noProxyTarget(path: string, tracing: boolean): ApiError {
  const ours = path.startsWith("/dapr.proto.runtime.");
  return unknownProxyTarget(
    ours || !tracing
      ? "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found"
      : "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata",
  );
}

/** A proxied call names an app that cannot be or is not there. */
export function unknownProxyTarget(message: string, cause?: unknown): ApiError {
  return new ApiError({ code, httpStatus: 500, grpcCode: GrpcCode.Unknown, message, cause });
}

/** A proxied call found no instance of an app that is there otherwise. */
export function noInstance(message: string, cause?: unknown): ApiError {
  return new ApiError({ code, httpStatus: 503, grpcCode: GrpcCode.Unavailable, message, cause });
}
