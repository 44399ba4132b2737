/** A thin gRPC client for tests: grpc-js with the generated messages, and every status as one error class. */
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Client, credentials } from "@grpc/grpc-js";
import type { CallOptions, ClientDuplexStream, Metadata, ServiceError } from "@grpc/grpc-js";
import { GrpcError, message, methodDefinition, methodPath, toMetadata } from "./grpc.ts";
import type { StreamMethod, GrpcMetadata, UnaryMethod } from "./grpc.ts";

export type GrpcCallOptions = {
  readonly metadata?: GrpcMetadata;
  /** Longest wait for the answer, ms; 30,000 when not given, and none for streams. */
  readonly timeoutMs?: number;
};

export type GrpcAnswer<T> = {
  readonly message: T;
  readonly headers: Metadata;
  readonly trailers: Metadata;
};

/** A two-way stream. Iterating yields the peer's messages, ends with OK and throws GrpcError for any other status. */
export type GrpcStream<I, O> = AsyncIterable<O> & {
  send(init: I): void;
  /** The next message; `undefined` when the peer has ended with OK. */
  next(): Promise<O | undefined>;
  /** No more messages from this side. */
  end(): void;
  cancel(): void;
};

export type GrpcClient = Disposable & {
  /** `unary(Dapr.method.getState, { storeName, key })`. Rejects with GrpcError. */
  unary<I extends DescMessage, O extends DescMessage>(
    method: UnaryMethod<I, O>,
    request: MessageInitShape<I>,
    options?: GrpcCallOptions,
  ): Promise<MessageShape<O>>;
  /** Like `unary`, with headers and trailers. */
  call<I extends DescMessage, O extends DescMessage>(
    method: UnaryMethod<I, O>,
    request: MessageInitShape<I>,
    options?: GrpcCallOptions,
  ): Promise<GrpcAnswer<MessageShape<O>>>;
  stream<I extends DescMessage, O extends DescMessage>(
    method: StreamMethod<I, O>,
    options?: GrpcCallOptions,
  ): GrpcStream<MessageInitShape<I>, MessageShape<O>>;
  /** Bytes to any method, also one the peer does not know. */
  raw(path: string, request: Uint8Array, options?: GrpcCallOptions): Promise<GrpcAnswer<Buffer>>;
};

const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
const TIMEOUT_MS = 30_000;

/** A client of the gRPC server on this loopback port. */
export function grpcClient(port: number): GrpcClient {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
    // Clients of several tests must not share a connection, nor wait long for a server that was restarted.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 500,
  });
  const call: GrpcClient["call"] = (method, request, options) => {
    const { path, requestSerialize, responseDeserialize } = methodDefinition(method);
    return unaryCall(
      client,
      path,
      requestSerialize,
      responseDeserialize,
      message(method.input, request),
      options,
    );
  };
  return {
    call,
    unary: async (method, request, options) => (await call(method, request, options)).message,
    stream(method, options = {}) {
      const { path, requestSerialize, responseDeserialize } = methodDefinition(method);
      const metadata = toMetadata(options.metadata);
      const stream = client.makeBidiStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        metadata,
        deadline(options),
      );
      return wrapStream(methodPath(method), stream, (init) => message(method.input, init));
    },
    raw: (path, request, options) => {
      const same = (bytes: Buffer): Buffer => bytes;
      return unaryCall(client, path, same, same, Buffer.from(request), options);
    },
    [Symbol.dispose]: () => client.close(),
  };
}

function deadline(options: GrpcCallOptions): CallOptions {
  return options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs };
}

function unaryCall<I, O>(
  client: Client,
  path: string,
  serialize: (value: I) => Buffer,
  deserialize: (bytes: Buffer) => O,
  request: I,
  options: GrpcCallOptions = {},
): Promise<GrpcAnswer<O>> {
  const limit = deadline({ timeoutMs: TIMEOUT_MS, ...options });
  return new Promise((resolve, reject) => {
    let headers = toMetadata();
    let trailers = toMetadata();
    let answer: O | undefined;
    const done = (error: ServiceError | null, value?: O): void => {
      if (error !== null) reject(toGrpcError(path, error));
      else answer = value;
    };
    const metadata = toMetadata(options.metadata);
    const call = client.makeUnaryRequest(path, serialize, deserialize, request, metadata, limit, done);
    call.on("metadata", (received) => (headers = received));
    call.on("status", (status) => {
      trailers = status.metadata;
      if (answer !== undefined) resolve({ message: answer, headers, trailers });
    });
  });
}

function toGrpcError(path: string, error: ServiceError): GrpcError {
  return new GrpcError(path, error.code, error.details, error.metadata);
}

function wrapStream<Init, I, O>(
  path: string,
  stream: ClientDuplexStream<I, O>,
  build: (init: Init) => I,
): GrpcStream<Init, O> {
  const iterator = stream[Symbol.asyncIterator]() as AsyncIterator<O, undefined>;
  const next = async (): Promise<O | undefined> => {
    try {
      const step = await iterator.next();
      return step.done === true ? undefined : step.value;
    } catch (error) {
      throw isServiceError(error) ? toGrpcError(path, error) : error;
    }
  };
  return {
    send: (init) => void stream.write(build(init)),
    next,
    end: () => stream.end(),
    cancel: () => stream.cancel(),
    async *[Symbol.asyncIterator]() {
      for (;;) {
        const value = await next();
        if (value === undefined) return;
        yield value;
      }
    },
  };
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}
