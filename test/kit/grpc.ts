/** What the gRPC test client and the gRPC test app share: methods of generated services as grpc-js wants them. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type {
  DescMessage,
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
} from "@bufbuild/protobuf";
import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Metadata } from "@grpc/grpc-js";
import type { MethodDefinition } from "@grpc/grpc-js";
import { StatusSchema } from "../../proto/gen/google/rpc/status_pb.ts";
import type { Status } from "../../proto/gen/google/rpc/status_pb.ts";

export type UnaryMethod<I extends DescMessage, O extends DescMessage> = DescMethodUnary<I, O>;
/** Methods that answer with a stream, whatever they take. */
export type StreamMethod<I extends DescMessage, O extends DescMessage> =
  | DescMethodBiDiStreaming<I, O>
  | DescMethodServerStreaming<I, O>;

/** Flat metadata of a call; a name ending in `-bin` takes bytes. */
export type GrpcMetadata = Readonly<Record<string, string | Uint8Array>>;

/** `/package.Service/Method`. */
export function methodPath(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** A method with the (de)serializers of its messages. */
export function methodDefinition<I extends DescMessage, O extends DescMessage>(
  method: DescMethod & { readonly input: I; readonly output: O },
): MethodDefinition<MessageShape<I>, MessageShape<O>> {
  return {
    path: methodPath(method),
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: (value) => Buffer.from(toBinary(method.input, value)),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes),
    responseSerialize: (value) => Buffer.from(toBinary(method.output, value)),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
  };
}

/** A message from its plain fields. */
export function message<D extends DescMessage>(schema: D, init: MessageInitShape<D>): MessageShape<D> {
  return create(schema, init);
}

export function toMetadata(plain: GrpcMetadata = {}): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(plain)) {
    metadata.set(name, typeof value === "string" ? value : Buffer.from(value));
  }
  return metadata;
}

/** A call that ended with a status other than OK. */
export class GrpcError extends Error {
  readonly code: number;
  /** The text of the status, without grpc-js' prefix. */
  readonly details: string;
  readonly metadata: Metadata;

  constructor(path: string, code: number, details: string, metadata: Metadata) {
    super(`${path} ended with status ${code}: ${details}`);
    this.name = "GrpcError";
    this.code = code;
    this.details = details;
    this.metadata = metadata;
  }

  /** The google.rpc.Status with its details, when one was sent. */
  status(): Status | undefined {
    const bytes = this.metadata.get("grpc-status-details-bin")[0];
    return bytes instanceof Uint8Array ? fromBinary(StatusSchema, bytes) : undefined;
  }
}
