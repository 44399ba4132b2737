/** What a failure of the mesh is as a gRPC status, for calls that pass through as gRPC. */
import { MeshError, type MeshErrorCode } from "../../mesh/index.ts";
import { ApiError, GrpcCode } from "./errors.ts";
import { GrpcStatusError } from "./grpc-status-error.ts";

const codes: Partial<Record<MeshErrorCode, GrpcCode>> = {
  "no-responders": GrpcCode.Unavailable,
  timeout: GrpcCode.Unavailable,
  interrupted: GrpcCode.Unavailable,
  disconnected: GrpcCode.Unavailable,
  closed: GrpcCode.Unavailable,
  cancelled: GrpcCode.Canceled,
  "too-large": GrpcCode.ResourceExhausted,
  denied: GrpcCode.PermissionDenied,
};

/** Anything that was thrown while a call passed through. */
export function passingStatus(error: unknown): GrpcStatusError {
  if (error instanceof GrpcStatusError) return error;
  if (error instanceof ApiError) return new GrpcStatusError(error.grpcCode, error.message);
  const text = error instanceof Error ? error.message : String(error);
  if (!(error instanceof MeshError)) return new GrpcStatusError(GrpcCode.Internal, text);
  return new GrpcStatusError(codes[error.code] ?? GrpcCode.Internal, text);
}
