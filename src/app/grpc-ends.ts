/** How calls to a gRPC app end without a status of the app: aborts, resets, lost connections, foreign servers. */
import { type ClientHttp2Stream, constants, type Http2Session, type IncomingHttpHeaders } from "node:http2";
import { ApiError, GrpcCode } from "../api/errors.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import { passingStatus } from "../api/mesh-status.ts";
import { GrpcWireError, isGrpcContentType } from "../lib/grpc-wire.ts";

/** The app surely did not begin the call (stream refused, or above the last one of a GOAWAY): it may be sent again. */
export class RefusedError extends GrpcStatusError {
  constructor(message: string) {
    super(GrpcCode.Unavailable, message);
    this.name = "RefusedError";
  }
}

/** The status of a stream that closed without one. `headers` are those of the answer, if any came. */
export function endWithoutStatus(
  stream: ClientHttp2Stream,
  session: Http2Session | undefined,
  headers: IncomingHttpHeaders | undefined,
): GrpcStatusError {
  const { rstCode } = stream;
  if (rstCode === constants.NGHTTP2_REFUSED_STREAM) return new RefusedError(resetText(rstCode));
  if (headers !== undefined) {
    const refused = httpStatusError(headers);
    if (refused !== undefined) return refused;
  }
  // node reports a lost connection as a cancel of its streams.
  if (session?.destroyed === true || rstCode === undefined || rstCode === constants.NGHTTP2_NO_ERROR) {
    return new GrpcStatusError(GrpcCode.Unavailable, "error reading from server: EOF");
  }
  return new GrpcStatusError(codeOfReset(rstCode), resetText(rstCode));
}

/** The status of a call whose signal was aborted for this reason. */
export function abortStatus(reason: unknown): GrpcStatusError {
  if (reason instanceof GrpcStatusError) return reason;
  if (reason instanceof ApiError) return new GrpcStatusError(reason.grpcCode, reason.message);
  if (reason instanceof Error && reason.name === "TimeoutError") {
    return new GrpcStatusError(GrpcCode.DeadlineExceeded, "context deadline exceeded");
  }
  return new GrpcStatusError(GrpcCode.Canceled, "context canceled");
}

export function asStatus(error: unknown): GrpcStatusError {
  return error instanceof GrpcWireError
    ? new GrpcStatusError(error.code, error.message)
    : passingStatus(error);
}

export function detailsOf(fields: IncomingHttpHeaders): Uint8Array | undefined {
  const text = fields["grpc-status-details-bin"];
  return typeof text === "string" && text !== "" ? Buffer.from(text, "base64") : undefined;
}

const codeByHttp: Readonly<Record<number, GrpcCode>> = {
  400: GrpcCode.Internal,
  401: GrpcCode.Unauthenticated,
  403: GrpcCode.PermissionDenied,
  404: GrpcCode.Unimplemented,
  429: GrpcCode.Unavailable,
  502: GrpcCode.Unavailable,
  503: GrpcCode.Unavailable,
  504: GrpcCode.Unavailable,
};

/** An answer that is no gRPC at all, e.g. of a web server on the app's port; undefined for one that is. */
export function httpStatusError(headers: IncomingHttpHeaders): GrpcStatusError | undefined {
  const status = Number(headers[":status"]);
  const type = headers["content-type"];
  if (status === 200 && isGrpcContentType(type)) return undefined;
  const content =
    type === undefined
      ? "missing content-type field"
      : `received unexpected content-type ${JSON.stringify(type)}`;
  const text = `unexpected HTTP status code received from server: ${status}; transport: ${content}`;
  return new GrpcStatusError(codeByHttp[status] ?? GrpcCode.Unknown, text);
}

const codeByReset = new Map<number, GrpcCode>([
  [constants.NGHTTP2_FLOW_CONTROL_ERROR, GrpcCode.ResourceExhausted],
  [constants.NGHTTP2_REFUSED_STREAM, GrpcCode.Unavailable],
  [constants.NGHTTP2_CANCEL, GrpcCode.Canceled],
  [constants.NGHTTP2_ENHANCE_YOUR_CALM, GrpcCode.ResourceExhausted],
  [constants.NGHTTP2_INADEQUATE_SECURITY, GrpcCode.PermissionDenied],
]);

/** gRPC code of an HTTP/2 reset code; Internal for most. */
function codeOfReset(rstCode: number | undefined): GrpcCode {
  return codeByReset.get(rstCode ?? 0) ?? GrpcCode.Internal;
}

const resetNames = [
  "NO_ERROR",
  "PROTOCOL_ERROR",
  "INTERNAL_ERROR",
  "FLOW_CONTROL_ERROR",
  "SETTINGS_TIMEOUT",
  "STREAM_CLOSED",
  "FRAME_SIZE_ERROR",
  "REFUSED_STREAM",
  "CANCEL",
  "COMPRESSION_ERROR",
  "CONNECT_ERROR",
  "ENHANCE_YOUR_CALM",
  "INADEQUATE_SECURITY",
  "HTTP_1_1_REQUIRED",
];

function resetText(rstCode: number | undefined): string {
  return `stream terminated by RST_STREAM with error code: ${resetNames[rstCode ?? 0] ?? rstCode}`;
}
