/**
 * The one error class of the API and its two wire forms. Blocks own their catalogues (blocks/<block>/errors.ts)
 * and build ApiErrors there; ingress turns any thrown value into an answer with the functions at the end.
 */
import { goJson } from "../lib/go-json.ts";

/** gRPC status codes, by name. */
export const GrpcCode = Object.freeze({
  OK: 0,
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const);

export type GrpcCode = (typeof GrpcCode)[keyof typeof GrpcCode];

/** Name of a gRPC code, e.g. `NotFound`; `Code(99)` for unknown numbers. */
export function grpcCodeName(code: number): string {
  for (const [name, value] of Object.entries(GrpcCode)) if (value === code) return name;
  return `Code(${code})`;
}

/** A status as grpc-go prints it: apps look for this text in Dapr's messages. */
export function grpcStatusText(code: number, reason: string): string {
  return `rpc error: code = ${grpcCodeName(code)} desc = ${reason}`;
}

/** One google.rpc detail. `type` is the message name without package, `fields` its proto-JSON members. */
export type ErrorDetail = {
  readonly type: "ErrorInfo" | "ResourceInfo" | "BadRequest" | "Help" | "RetryInfo";
  readonly fields: Readonly<Record<string, unknown>>;
};

export function errorInfo(
  reason: string,
  metadata: Readonly<Record<string, string>> | null = null,
): ErrorDetail {
  return { type: "ErrorInfo", fields: { domain: "dapr.io", metadata, reason } };
}

export function resourceInfo(
  resourceType: string,
  resourceName: string,
  description = "",
  owner = "",
): ErrorDetail {
  return {
    type: "ResourceInfo",
    fields: { description, owner, resource_name: resourceName, resource_type: resourceType },
  };
}

export function badRequest(field: string, description: string): ErrorDetail {
  return { type: "BadRequest", fields: { field_violations: [{ field, description }] } };
}

export function help(url: string, description: string): ErrorDetail {
  return { type: "Help", fields: { links: [{ description, url }] } };
}

export type ApiErrorInit = {
  /** `errorCode` of the HTTP body, e.g. `ERR_STATE_GET`. */
  readonly code: string;
  readonly httpStatus: number;
  readonly grpcCode: GrpcCode;
  readonly message: string;
  /** HTTP `message` when it differs from the gRPC one. */
  readonly httpMessage?: string;
  readonly details?: readonly ErrorDetail[];
  /** Details for gRPC when they differ from HTTP's (simple errors have none over HTTP). */
  readonly grpcDetails?: readonly ErrorDetail[];
  /** Binary google.rpc.Status of an app, passed through in place of `grpcDetails`. */
  readonly grpcStatus?: Uint8Array | undefined;
  /** Logged, never sent. */
  readonly cause?: unknown;
  /** Extra HTTP headers of the answer. */
  readonly httpHeaders?: Readonly<Record<string, string>>;
};

/** An operating error that is answered to the client. */
export class ApiError extends Error {
  readonly code: string;
  readonly httpStatus: number;
  readonly grpcCode: GrpcCode;
  readonly httpMessage: string;
  readonly details: readonly ErrorDetail[] | undefined;
  readonly grpcDetails: readonly ErrorDetail[];
  readonly grpcStatus: Uint8Array | undefined;
  readonly httpHeaders: Readonly<Record<string, string>> | undefined;

  constructor(init: ApiErrorInit) {
    super(init.message, { cause: init.cause });
    this.name = "ApiError";
    this.code = init.code;
    this.httpStatus = init.httpStatus;
    this.grpcCode = init.grpcCode;
    this.httpMessage = init.httpMessage ?? init.message;
    this.details = init.details;
    this.grpcDetails = init.grpcDetails ?? init.details ?? [];
    this.grpcStatus = init.grpcStatus;
    this.httpHeaders = init.httpHeaders;
  }
}

/** An error of code and message alone. */
export function plainError(
  code: string,
  httpStatus: number,
  grpcCode: GrpcCode,
  message: string,
  cause?: unknown,
): ApiError {
  return new ApiError({ code, httpStatus, grpcCode, message, cause });
}

/** An error without details over HTTP; over gRPC its code is the reason of one ErrorInfo. */
export function simpleError(
  code: string,
  httpStatus: number,
  grpcCode: GrpcCode,
  message: string,
  cause?: unknown,
): ApiError {
  return new ApiError({ code, httpStatus, grpcCode, message, cause, grpcDetails: [errorInfo(code)] });
}

/** The client broke off its body, or sent what is none. */
export function bodyUnreadable(reason: string, cause?: unknown): ApiError {
  return new ApiError({
    code: "ERR_BODY_READ",
    httpStatus: 400,
    grpcCode: GrpcCode.InvalidArgument,
    message: `failed to read request body: ${reason}`,
    cause,
  });
}

export function bodyTooLarge(limitBytes: number): ApiError {
  return bodyUnreadable(`http: request body too large (limit ${limitBytes} bytes, set by --max-body-size)`);
}

/** An ApiError made deeper down, which goes to the client as it is. */
export function passed(cause: unknown): ApiError | undefined {
  return cause instanceof ApiError ? cause : undefined;
}

/** Any thrown value as an ApiError; untyped ones are `ERROR`, 500, Unknown. */
export function toApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  return new ApiError({
    code: "ERROR",
    httpStatus: 500,
    grpcCode: GrpcCode.Unknown,
    message: thrown instanceof Error ? thrown.message : String(thrown),
    cause: thrown,
  });
}

/** JSON body of an error over HTTP: legacy form without details, rich form with them. No newline. */
export function httpErrorBody(error: ApiError): string {
  const legacy = `{"errorCode":${goJson(error.code)},"message":${goJson(error.httpMessage)}`;
  if (error.details === undefined) return `${legacy}}`;
  const details = error.details.map((detail) =>
    goJson({ "@type": `type.googleapis.com/google.rpc.${detail.type}`, ...detail.fields }),
  );
  return `${legacy},"details":[${details.join(",")}]}`;
}
