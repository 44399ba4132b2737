/**
 * Hands events of input bindings to an app that speaks gRPC, and does what its answer asks of other bindings.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  BindingEventRequestSchema,
  type BindingEventResponse,
  BindingEventResponse_BindingEventConcurrency as Concurrency,
  BindingEventResponseSchema,
  ListInputBindingsResponseSchema,
} from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import { grpcMetadata } from "../../app/callback-metadata.ts";
import type { AppChannel } from "../../app/channel.ts";
import { goJson, unmarshalJson } from "../../lib/go-json.ts";
import type { Log } from "../../telemetry/log.ts";
import { grpcTracePairs } from "../../telemetry/tracing/headers.ts";
import type { Span } from "../../telemetry/tracing/span.ts";
import type { Outputs } from "./bindings.ts";
import type { BindingApp } from "./input.ts";

const service = "/dapr.proto.runtime.v1.AppCallback";

export function openGrpcApp(app: AppChannel, outputs: Outputs, log: Log): BindingApp {
  // Asked once: the list holds for the life of the process, and an app that has none says so by an error.
  let listed: Promise<ReadonlySet<string>> | undefined;
  return {
    async wants(name, _route, signal) {
      listed ??= list(app, signal).catch(() => new Set<string>());
      return (await listed).has(name);
    },
    async deliver(name, _route, { data, metadata }, span, signal) {
      const message = toBinary(
        BindingEventRequestSchema,
        create(BindingEventRequestSchema, { name, data, metadata: { ...metadata } }),
      );
      const request = { path: `${service}/OnBindingEvent`, metadata: callMetadata(metadata, span), message };
      const answer = fromBinary(BindingEventResponseSchema, (await app.grpc(request, signal)).message);
      if (answer.to.length > 0) void forward(name, answer, outputs, signal, log);
      return answer.data;
    },
  };
}

async function list(app: AppChannel, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const request = { path: `${service}/ListInputBindings`, metadata: [], message: new Uint8Array() };
  const answer = await app.grpc(request, signal);
  return new Set(fromBinary(ListInputBindingsResponseSchema, answer.message).bindings);
}

function callMetadata(metadata: Readonly<Record<string, string>>, span: Span | undefined): string[] {
  const list = grpcMetadata(metadata);
  return span === undefined ? list : [...list, ...grpcTracePairs(span)];
}

/** The answer's data as `create` of each binding it names. Failures are nobody's but the log's. */
async function forward(
  from: string,
  answer: BindingEventResponse,
  outputs: Outputs,
  signal: AbortSignal,
  log: Log,
): Promise<void> {
  const data = Buffer.from(asJson(answer.data));
  const send = (name: string): Promise<unknown> =>
    outputs.invoke(name, { operation: "create", data, metadata: {} }, signal);
  try {
    if (answer.concurrency === Concurrency.PARALLEL) await Promise.all(answer.to.map(send));
    else for (const name of answer.to) await send(name);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    log.error(`the app's answer to binding ${from} was not passed on: ${text}`);
  }
}

/** Rewritten as the sidecar writes JSON; what is none becomes `null`. */
function asJson(data: Uint8Array): string {
  try {
    return goJson(unmarshalJson(Buffer.from(data).toString()));
  } catch {
    return "null";
  }
}
