/** A gRPC status other than OK as an Error: what an app answered, or what a handler wants to be answered. */

/** A status the app answered, or Unavailable when it could not be reached. */
export class GrpcStatusError extends Error {
  readonly code: number;
  /** Binary google.rpc.Status (grpc-status-details-bin), when sent. */
  readonly details: Uint8Array | undefined;
  readonly trailers: readonly string[];

  constructor(code: number, message: string, details?: Uint8Array, trailers: readonly string[] = []) {
    super(message);
    this.name = "GrpcStatusError";
    this.code = code;
    this.details = details;
    this.trailers = trailers;
  }
}
