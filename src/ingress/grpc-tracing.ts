/** Spans of the gRPC API: begun when a method is known, named and described by its request, ended with its status. */
import type { ApiError } from "../api/errors.ts";
import { GrpcCode } from "../api/errors.ts";
import { baggageFault } from "../telemetry/tracing/baggage.ts";
import { readBinaryHeader } from "../telemetry/tracing/headers.ts";
import type { Span } from "../telemetry/tracing/span.ts";
import { binaryTrace } from "../telemetry/tracing/trace-context.ts";
import type { Tracer } from "../telemetry/tracing/tracer.ts";
import { type ServerCall, statusError } from "./grpc-call.ts";
import { setDatabase } from "./http-tracing.ts";

const runtime = "/dapr.proto.runtime.v1.Dapr/";
const invokeService = `${runtime}InvokeService`;

export type GrpcTracing = {
  /** Gives the call its span. Throws ApiError for baggage that is none. */
  begin(call: ServerCall, unary: boolean): void;
  /** Describes a unary request, decoded. */
  request(call: ServerCall, request: unknown): void;
};

/** Ends the span that a call got by `begin`, if any. */
export function endSpan({ span }: ServerCall, code: number, message: string): void {
  if (span === undefined) return;
  if (code !== GrpcCode.OK) span.fail(message);
  span.end();
}

export function grpcTracing(tracer: Tracer): GrpcTracing {
  return {
    begin(call, unary) {
      const { headers, path } = call;
      const baggage = headers["baggage"] as string | undefined;
      const fault = baggage === undefined ? undefined : baggageFault(baggage);
      if (fault !== undefined) throw badBaggage(fault);
      const kind = path.startsWith("/TaskHubSidecarService/") && !unary ? "server" : "client";
      const { traceparent, tracestate } = contextOf(call);
      const span = tracer.start(path, kind, traceparent, tracestate);
      call.span = span;
      if (baggage !== undefined) call.setHeader("baggage", baggage);
      if (unary) answerWith(call, span);
      if (span.recording) describe(span, call);
    },
    request(call, request) {
      const { span, path } = call;
      if (span?.recording !== true || !path.startsWith(runtime)) return;
      describeRequest(span, path, path.slice(runtime.length), request as Request);
    },
  };
}

function badBaggage(fault: string): ApiError {
  return statusError(GrpcCode.InvalidArgument, `invalid baggage header: ${fault}`);
}

function contextOf({ headers }: ServerCall): { traceparent?: string; tracestate?: string } {
  const binary = headers["grpc-trace-bin"];
  if (typeof binary === "string" && binary !== "") return readBinaryHeader(binary);
  const { traceparent, tracestate } = headers as Record<string, string | undefined>;
  return {
    ...(traceparent === undefined ? {} : { traceparent }),
    ...(tracestate === undefined ? {} : { tracestate }),
  };
}

/** Errors carry it too: it is set before anything can fail. */
function answerWith(call: ServerCall, span: Span): void {
  if (call.path === invokeService) return call.setHeader("traceparent", span.traceparent);
  const binary = binaryTrace(span.traceparent);
  if (binary !== undefined) call.setHeader("grpc-trace-bin", binary.toString("latin1"));
}

function describe(span: Span, { path, rawHeaders }: ServerCall): void {
  span.set("dapr.protocol", "grpc");
  span.set("dapr.api", path);
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!;
    if (!name.startsWith("dapr-") || name.endsWith("-bin") || name === "dapr-api-token") continue;
    span.set(name, rawHeaders[i + 1]!);
  }
}

/** Members of the requests that say what a call is about. */
type Request = Partial<
  Record<"storeName" | "name" | "topic" | "actorType" | "actorId" | "method", string | undefined>
>;

function describeRequest(span: Span, path: string, rpc: string, request: Request): void {
  switch (systems.get(rpc)) {
    case "state":
    case "secrets":
      setDatabase(span, systems.get(rpc)!, request.storeName ?? "", path);
      return span.set("rpc.service", "Dapr");
    case "bindings":
      setDatabase(span, "bindings", request.name ?? "", path);
      return span.set("rpc.service", "Dapr");
    case "pubsub":
      span.set("messaging.system", "pubsub");
      span.set("messaging.destination.name", request.topic ?? "");
      return span.set("rpc.service", "Dapr");
    case "actor":
      span.name = `CallActor/${request.actorType ?? ""}/${request.method ?? ""}`;
      span.set("dapr.actor", `${request.actorType}.${request.actorId}`);
      span.set("rpc.service", "ServiceInvocation");
      return span.set("net.peer.name", `${request.actorType}.${request.actorId}`);
    case "actor state":
      span.set("dapr.actor", `${request.actorType}.${request.actorId}`);
      return setDatabase(span, "state", "actor", path);
    case "conversation":
      return span.set("rpc.system", request.name ?? "");
    case undefined:
    default:
  }
}

const systems: ReadonlyMap<string, string> = new Map(
  Object.entries({
    state:
      "GetState GetBulkState SaveState DeleteState DeleteBulkState QueryStateAlpha1 ExecuteStateTransaction",
    secrets: "GetSecret GetBulkSecret",
    bindings: "InvokeBinding",
    pubsub: "PublishEvent BulkPublishEvent BulkPublishEventAlpha1",
    actor: "InvokeActor",
    "actor state": "GetActorState ExecuteActorStateTransaction",
    conversation: "ConverseAlpha1 ConverseAlpha2",
  }).flatMap(([system, names]) => names.split(" ").map((name): [string, string] => [name, system])),
);
