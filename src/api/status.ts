/**
 * What HTTP calls one thing and gRPC another: statuses both ways, and the header names that keep their meaning under
 * a `dapr-` name when HTTP headers become metadata.
 */
import { STATUS_CODES } from "node:http";
import { ApiError, errorInfo, GrpcCode } from "./errors.ts";

const httpByGrpc: Readonly<Record<number, number>> = {
  [GrpcCode.OK]: 200,
  [GrpcCode.Canceled]: 408,
  [GrpcCode.InvalidArgument]: 400,
  [GrpcCode.DeadlineExceeded]: 504,
  [GrpcCode.NotFound]: 404,
  [GrpcCode.AlreadyExists]: 409,
  [GrpcCode.PermissionDenied]: 403,
  [GrpcCode.Unauthenticated]: 401,
  [GrpcCode.ResourceExhausted]: 429,
  [GrpcCode.FailedPrecondition]: 400,
  [GrpcCode.Aborted]: 409,
  [GrpcCode.OutOfRange]: 400,
  [GrpcCode.Unimplemented]: 501,
  [GrpcCode.Unavailable]: 503,
};

const grpcByHttp: Readonly<Record<number, GrpcCode>> = {
  400: GrpcCode.Internal,
  401: GrpcCode.Unauthenticated,
  403: GrpcCode.PermissionDenied,
  404: GrpcCode.NotFound,
  408: GrpcCode.Canceled,
  409: GrpcCode.AlreadyExists,
  429: GrpcCode.ResourceExhausted,
  500: GrpcCode.Unknown,
  501: GrpcCode.Unimplemented,
  503: GrpcCode.Unavailable,
  504: GrpcCode.DeadlineExceeded,
};

/** Bytes of an HTTP error body that a gRPC caller gets to see. */
const shownBodyBytes = 63;

/** HTTP status of a gRPC code; 500 for Unknown, Internal, DataLoss and unknown numbers. */
export function httpFromCode(code: number): number {
  return httpByGrpc[code] ?? 500;
}

/** gRPC code of an app's HTTP status. 2xx is OK; whatever has no own row (3xx too) is Unknown. */
export function codeFromHttp(status: number): GrpcCode {
  if (status >= 200 && status < 300) return GrpcCode.OK;
  return grpcByHttp[status] ?? GrpcCode.Unknown;
}

/** Where Go's texts differ from node's. */
const goTexts: Readonly<Record<number, string>> = {
  413: "Request Entity Too Large",
  414: "Request URI Too Long",
  416: "Requested Range Not Satisfiable",
  418: "I'm a teapot",
  509: "",
};

/** Standard text of an HTTP status as Go writes it; empty for unknown ones. */
export function httpStatusText(status: number): string {
  return goTexts[status] ?? STATUS_CODES[status] ?? "";
}

/**
 * The gRPC error that stands for an HTTP answer that is not 2xx: message = status text, one ErrorInfo with the number
 * and the beginning of the body.
 */
export function grpcErrorOfHttp(status: number, body: Uint8Array | string): ApiError {
  const text = httpStatusText(status);
  const bytes =
    typeof body === "string" ? Buffer.from(body) : Buffer.from(body.buffer, body.byteOffset, body.length);
  const metadata = {
    "http.code": String(status),
    "http.error_message": bytes.toString("utf8", 0, shownBodyBytes),
  };
  return new ApiError({
    code: "ERROR",
    httpStatus: status,
    grpcCode: codeFromHttp(status),
    message: text,
    grpcDetails: [errorInfo(text, metadata)],
  });
}

/** Headers with a fixed meaning in HTTP; as metadata they are called `dapr-<name>`. */
const permanentHeaders = new Set([
  "accept",
  "accept-charset",
  "accept-language",
  "accept-ranges",
  "cache-control",
  "connection",
  "content-length",
  "content-type",
  "cookie",
  "date",
  "expect",
  "from",
  "host",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-schedule-tag-match",
  "if-unmodified-since",
  "keep-alive",
  "max-forwards",
  "origin",
  "pragma",
  "proxy-connection",
  "referer",
  "transfer-encoding",
  "upgrade",
  "via",
  "warning",
]);

/** Metadata name of an HTTP header: lower case, permanent headers with `dapr-` before them. */
export function metadataName(header: string): string {
  const name = header.toLowerCase();
  return permanentHeaders.has(name) ? `dapr-${name}` : name;
}
