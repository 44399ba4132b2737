/**
 * The gRPC API as blocks see it: a method table over decoded messages. Framing, deadlines and status
 * encoding stand in ingress/grpc.ts.
 */
import type { DescMessage, DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { BodyStream, MeshResponse } from "../../mesh/index.ts";
import type { Span } from "../telemetry/tracing/span.ts";

/** Lower-case metadata names to values; `-bin` values are raw bytes in latin1 text. */
export type GrpcMetadata = ReadonlyMap<string, readonly string[]>;

export type GrpcCall = {
  readonly metadata: GrpcMetadata;
  /** Aborted at the client's deadline, cancel, or sidecar stop. */
  readonly signal: AbortSignal;
  /** The span of this call, to go on with; undefined when tracing is off. */
  readonly span?: Span | undefined;
  /** Response header to send with the first message (or the status). */
  setHeader(name: string, value: string): void;
  setTrailer(name: string, value: string): void;
};

/** A call to a service that the sidecar does not have, as its socket gives it. */
export type ProxiedCall = {
  /** `/package.Service/Method`. */
  readonly path: string;
  /** Flat list as it came, pseudo headers included. */
  readonly headers: readonly string[];
  /** Frames with their prefixes: whole when the client had said all there was at once. */
  readonly body: Uint8Array | BodyStream;
  /** Aborted at the client's deadline, cancel, or sidecar stop. */
  readonly signal: AbortSignal;
  /** The span of this call, to go on with; undefined when tracing is off. */
  readonly span?: Span | undefined;
  /** What is left of the client's deadline, ms; undefined without one. */
  timeLeftMs(): number | undefined;
};

/**
 * Takes proxied calls. The answer's headers and trailers are wire pairs, `grpc-status` among the trailers: those of
 * `grpc` when the body is whole, of the body when it comes in pieces. Rejects when there is no answer.
 */
export type GrpcProxy = (call: ProxiedCall) => Promise<MeshResponse>;

/** One mounted method. `path` is `/package.Service/Method`. */
export type GrpcMethod = {
  readonly path: string;
  readonly method: DescMethod;
  readonly unary?: (request: unknown, call: GrpcCall) => Promise<unknown>;
  readonly stream?: (requests: AsyncIterable<unknown>, call: GrpcCall) => AsyncIterable<unknown>;
  /** An app may have this service too: a call that names an app goes there. */
  readonly yields?: boolean;
};

type Desc<I extends DescMessage, O extends DescMessage> = DescMethod & { input: I; output: O };

/** Mounts a unary method. Throw ApiError for a status; anything else becomes Unknown. */
export function unary<I extends DescMessage, O extends DescMessage>(
  method: Desc<I, O>,
  handle: (request: MessageShape<I>, call: GrpcCall) => Promise<MessageInitShape<O>>,
): GrpcMethod {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    method,
    unary: handle as (request: unknown, call: GrpcCall) => Promise<unknown>,
  };
}

/** Mounts a method with a stream on either side (a unary side yields or takes exactly one message). */
export function streaming<I extends DescMessage, O extends DescMessage>(
  method: Desc<I, O>,
  handle: (requests: AsyncIterable<MessageShape<I>>, call: GrpcCall) => AsyncIterable<MessageInitShape<O>>,
): GrpcMethod {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    method,
    stream: handle as (requests: AsyncIterable<unknown>, call: GrpcCall) => AsyncIterable<unknown>,
  };
}
