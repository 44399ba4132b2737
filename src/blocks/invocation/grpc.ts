/** `InvokeService`: message -> mesh request -> the app's answer as response, metadata and status. */
import { collectBody, isMeshError, type MeshRequest, type MeshResponse } from "../../../mesh/index.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { HTTPExtension_Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { GrpcCode, grpcStatusText } from "../../api/errors.ts";
import { type GrpcCall, type GrpcMethod, unary } from "../../api/grpc.ts";
import { grpcErrorOfHttp, metadataName } from "../../api/status.ts";
import { grpcCallerHeaders, readDataType, withoutMeshOnly } from "../../api/grpc-caller.ts";
import { headerValue } from "../../app/headers.ts";
import { decodeValues, receivedTooLarge } from "../../lib/grpc-wire.ts";
import { setTrace } from "../../telemetry/tracing/headers.ts";
import { grpcAppStatus, invokeFailed } from "./errors.ts";
import type { Invocation } from "./invocation.ts";
import { methodPath, normalizeMethod } from "./target.ts";
import { nameSpan } from "./trace.ts";

/** `maxBytes`: largest data that goes into an answer. */
export function invocationMethods(invocation: Invocation, maxBytes: number): GrpcMethod[] {
  return [
    unary(Dapr.method.invokeService, async (request, call) => {
      if (request.id === "") throw invokeFailed("", "app id is empty");
      const message = request.message;
      const method = normalizeMethod(request.id, message?.method ?? "");
      const headers = invocation.withoutOwnToken(
        grpcCallerHeaders(ownMetadata(call), {
          // SDK servers find their handlers by the exact text, so a leading slash is there when the caller wrote it.
          method: message?.method.startsWith("/") ? `/${method}` : method,
          contentType: message?.contentType ?? "",
          dataType: message?.data?.typeUrl ?? "",
        }),
      );
      if (call.span !== undefined) {
        nameSpan(call.span, request.id, method);
        setTrace(headers, call.span);
      }
      const meshRequest: MeshRequest = {
        verb: verbName(message?.httpExtension?.verb),
        path: methodPath(request.id, method),
        query: message?.httpExtension?.querystring ?? "",
        headers,
        body: message?.data?.value ?? new Uint8Array(0),
      };
      const { signal } = call;
      const invoke = { signal, protocol: "grpc", repeatable: true } as const;
      const answer = await invocation.invoke(request.id, meshRequest, invoke);
      const response = await wholeAnswer(answer, request.id, maxBytes);
      return response.grpc === undefined
        ? httpAnswer(response, call)
        : grpcAnswer(response, response.grpc, call);
    }),
  ];
}

type Whole = MeshResponse & { readonly body: Uint8Array };

async function wholeAnswer(response: MeshResponse, id: string, maxBytes: number): Promise<Whole> {
  if (response.body instanceof Uint8Array) return response as Whole;
  const { length } = response.body;
  try {
    return { ...response, body: await collectBody(response.body, maxBytes) };
  } catch (error) {
    if (isMeshError(error, "too-large")) {
      const { code, message } = receivedTooLarge(length ?? maxBytes + 1, maxBytes);
      throw grpcAppStatus(code, message, undefined);
    }
    const text = error instanceof Error ? error.message : String(error);
    throw invokeFailed(id, grpcStatusText(GrpcCode.Internal, text), error);
  }
}

/** No extension at all is the empty text: a gRPC app needs none, an HTTP app's sidecar refuses it. */
function verbName(verb: HTTPExtension_Verb | undefined): string {
  if (verb === undefined) return "";
  return Object.entries(HTTPExtension_Verb).find(([, value]) => value === verb)?.[0] ?? "NONE";
}

/** Names by which a callee's app knows its caller; only the mesh may say them. */
const identity = new Set(["dapr-caller-app-id", "dapr-caller-namespace", "dapr-callee-app-id"]);

/** The authority gets its later name here already: no header of NATS may begin with a colon. */
function ownMetadata(call: GrpcCall): Map<string, readonly string[]> {
  const own = [...call.metadata].filter(([name]) => !identity.has(name));
  return new Map(own.map(([name, values]) => [name === ":authority" ? "dapr-authority" : name, values]));
}

type Answer = { data: { value: Uint8Array; typeUrl?: string }; contentType: string };

function httpAnswer(response: Whole, call: GrpcCall): Answer {
  for (let i = 0; i + 1 < response.headers.length; i += 2) {
    call.setHeader(metadataName(response.headers[i]!), response.headers[i + 1]!);
  }
  call.setHeader("dapr-http-status", String(response.status));
  if (response.status < 200 || response.status > 299) {
    throw grpcErrorOfHttp(response.status, response.body);
  }
  return { data: { value: response.body }, contentType: headerValue(response.headers, "content-type") ?? "" };
}

function grpcAnswer(response: Whole, outcome: NonNullable<MeshResponse["grpc"]>, call: GrpcCall): Answer {
  passOn(withoutMeshOnly(response.headers), (name, value) => call.setHeader(name, value));
  passOn(outcome.trailers ?? [], (name, value) => call.setTrailer(name, value));
  if (call.span !== undefined) call.setTrailer("traceparent", call.span.traceparent);
  if (outcome.code !== 0) throw grpcAppStatus(outcome.code, outcome.message, outcome.details);
  const typeUrl = readDataType(response.headers);
  return { data: { typeUrl, value: response.body }, contentType: outcome.contentType ?? "" };
}

/** Wire pairs of the app's metadata, decoded, so that the answer encodes them once. */
function passOn(pairs: readonly string[], set: (name: string, value: string) => void): void {
  for (let i = 0; i + 1 < pairs.length; i += 2) {
    for (const value of decodeValues(pairs[i]!, pairs[i + 1]!)) set(pairs[i]!, value);
  }
}
