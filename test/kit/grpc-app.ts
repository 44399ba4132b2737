/**
 * A user's app as a gRPC server inside the test: AppCallback with programmable answers, every call recorded with its
 * metadata.
 */
import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { DescMessage } from "@bufbuild/protobuf";
import { Metadata, Server, ServerCredentials, status } from "@grpc/grpc-js";
import type { handleUnaryCall } from "@grpc/grpc-js";
import type { InvokeRequest, InvokeResponseSchema } from "../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import {
  AppCallback,
  AppCallbackAlpha,
  AppCallbackHealthCheck,
} from "../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import type {
  BindingEventRequest,
  BindingEventResponseSchema,
  TopicEventBulkRequest,
  TopicEventBulkResponseEntrySchema,
  TopicEventRequest,
  TopicEventResponse_TopicEventResponseStatus as TopicStatus,
  TopicSubscriptionSchema,
} from "../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import { addWitness } from "./cleanup.ts";
import { eventually } from "./eventually.ts";
import { GrpcError, message, methodDefinition } from "./grpc.ts";
import type { UnaryMethod } from "./grpc.ts";
import { freePort } from "./ports.ts";

type Answer<T> = T | Promise<T>;

/** How the app behaves; each may be replaced while it runs. A thrown GrpcError becomes that status. */
export type GrpcAppHandlers = {
  onInvoke: (
    request: InvokeRequest,
    metadata: Metadata,
  ) => Answer<MessageInitShape<typeof InvokeResponseSchema>>;
  /** Nothing means SUCCESS. */
  onTopicEvent: (event: TopicEventRequest, metadata: Metadata) => Answer<TopicStatus | undefined | void>;
  /** Nothing means that the app does not have the method. */
  onBulkTopicEvent:
    | ((request: TopicEventBulkRequest) => MessageInitShape<typeof TopicEventBulkResponseEntrySchema>[])
    | undefined;
  /** The same under the older name of the method. */
  onBulkTopicEventAlpha: GrpcAppHandlers["onBulkTopicEvent"];
  onBindingEvent: (event: BindingEventRequest) => Answer<MessageInitShape<typeof BindingEventResponseSchema>>;
  /** A throw makes the app ill. */
  onHealthCheck: () => void;
};

export type GrpcAppOptions = Partial<GrpcAppHandlers> & {
  readonly port?: number;
  /** Input bindings that the app lists. */
  readonly bindings?: readonly string[];
  readonly subscriptions?: readonly MessageInitShape<typeof TopicSubscriptionSchema>[];
};

export type Recorded<T> = { readonly request: T; readonly metadata: Metadata };

export type GrpcApp = AsyncDisposable & {
  readonly port: number;
  readonly handlers: GrpcAppHandlers;
  readonly invocations: readonly Recorded<InvokeRequest>[];
  readonly events: readonly Recorded<TopicEventRequest>[];
  readonly bulkEvents: readonly Recorded<TopicEventBulkRequest>[];
  readonly bindingEvents: readonly Recorded<BindingEventRequest>[];
  /** Metadata of each time it was asked for its topics or bindings. */
  readonly listings: readonly Metadata[];
  /** Waits until at least `count` events have come and gives them. */
  received(count: number, timeoutMs?: number): Promise<readonly Recorded<TopicEventRequest>[]>;
};

const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
const MAX_RECORDED = 100_000;

/** A status for a handler to throw, e.g. `grpcStatus(5, "no such order")`. */
export function grpcStatus(code: number, details: string, metadata = new Metadata()): GrpcError {
  return new GrpcError("the test app", code, details, metadata);
}

/** Starts a gRPC app on a free loopback port. */
export async function startGrpcApp(options: GrpcAppOptions = {}): Promise<GrpcApp> {
  const port = options.port ?? (await freePort());
  const handlers: GrpcAppHandlers = {
    onInvoke: options.onInvoke ?? (() => ({})),
    onTopicEvent: options.onTopicEvent ?? (() => undefined),
    onBulkTopicEvent: options.onBulkTopicEvent,
    onBulkTopicEventAlpha: options.onBulkTopicEventAlpha,
    onBindingEvent: options.onBindingEvent ?? (() => ({})),
    onHealthCheck: options.onHealthCheck ?? (() => undefined),
  };
  const invocations: Recorded<InvokeRequest>[] = [];
  const events: Recorded<TopicEventRequest>[] = [];
  const bulkEvents: Recorded<TopicEventBulkRequest>[] = [];
  const bindingEvents: Recorded<BindingEventRequest>[] = [];
  const listings: Metadata[] = [];
  const server = new Server({
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
  });
  register(server, AppCallback.method.onInvoke, async (request, metadata) => {
    record(invocations, { request, metadata });
    return handlers.onInvoke(request, metadata);
  });
  register(server, AppCallback.method.onTopicEvent, async (request, metadata) => {
    record(events, { request, metadata });
    return { status: (await handlers.onTopicEvent(request, metadata)) ?? 0 };
  });
  register(server, AppCallback.method.listTopicSubscriptions, (_request, metadata) => {
    record(listings, metadata);
    return { subscriptions: [...(options.subscriptions ?? [])] };
  });
  register(server, AppCallback.method.listInputBindings, (_request, metadata) => {
    record(listings, metadata);
    return { bindings: [...(options.bindings ?? [])] };
  });
  const bulk =
    (name: "onBulkTopicEvent" | "onBulkTopicEventAlpha") =>
    (request: TopicEventBulkRequest, metadata: Metadata) => {
      const handler = handlers[name];
      if (handler === undefined) throw grpcStatus(status.UNIMPLEMENTED, "no such method");
      record(bulkEvents, { request, metadata });
      return { statuses: handler(request) };
    };
  register(server, AppCallback.method.onBulkTopicEvent, bulk("onBulkTopicEvent"));
  register(server, AppCallbackAlpha.method.onBulkTopicEventAlpha1, bulk("onBulkTopicEventAlpha"));
  register(server, AppCallback.method.onBindingEvent, async (request, metadata) => {
    record(bindingEvents, { request, metadata });
    return handlers.onBindingEvent(request);
  });
  register(server, AppCallbackHealthCheck.method.healthCheck, () => {
    handlers.onHealthCheck();
    return {};
  });
  await bind(server, port);
  let disposed = false;
  const logs = (): string => `${invocations.length} invocations, ${events.length} events`;
  addWitness({ name: `grpc app on port ${port}`, logs, disposed: () => disposed });
  return {
    port,
    handlers,
    invocations,
    events,
    bulkEvents,
    bindingEvents,
    listings,
    received(count, timeoutMs = 10_000) {
      const attempt = (): Recorded<TopicEventRequest>[] => {
        if (events.length < count) throw new Error(`${events.length} of ${count} events have come`);
        return events;
      };
      return eventually(attempt, { timeoutMs });
    },
    [Symbol.asyncDispose]() {
      disposed = true;
      server.forceShutdown();
      return Promise.resolve();
    },
  };
}

function record<T>(list: T[], item: T): void {
  if (list.length < MAX_RECORDED) list.push(item);
}

function bind(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    );
  });
}

function register<I extends DescMessage, O extends DescMessage>(
  server: Server,
  method: UnaryMethod<I, O>,
  answer: (request: MessageShape<I>, metadata: Metadata) => Answer<MessageInitShape<O>>,
): void {
  const { path, requestStream, responseStream, requestDeserialize, responseSerialize } =
    methodDefinition(method);
  const handle: handleUnaryCall<MessageShape<I>, MessageShape<O>> = (call, callback) => {
    void Promise.resolve()
      .then(() => answer(call.request, call.metadata))
      .then(
        (init) => callback(null, message(method.output, init)),
        (error: unknown) => callback(toServiceStatus(error)),
      );
  };
  server.register(path, handle, responseSerialize, requestDeserialize, kindOf(requestStream, responseStream));
}

function kindOf(requestStream: boolean, responseStream: boolean): string {
  if (requestStream) return responseStream ? "bidi" : "clientStream";
  return responseStream ? "serverStream" : "unary";
}

function toServiceStatus(error: unknown): { code: number; details: string; metadata?: Metadata } {
  if (error instanceof GrpcError)
    return { code: error.code, details: error.details, metadata: error.metadata };
  return { code: status.UNKNOWN, details: error instanceof Error ? error.message : String(error) };
}
