/** `InvokeService`: message -> mesh request -> the app's answer as response, metadata and status. */
import type { MeshRequest, MeshResponse } from "../../../mesh/index.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { HTTPExtension_Verb, type InvokeRequest } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { type GrpcCall, type GrpcMethod, unary } from "../../api/grpc.ts";
import { grpcErrorOfHttp, metadataName } from "../../api/status.ts";
import { forwardRequestHeaders, headerValue } from "../../app/headers.ts";
import { emptyAppId, grpcAppStatus } from "./errors.ts";
import type { Invocation } from "./invocation.ts";
import { methodPath, normalizeMethod, parseAppId } from "./target.ts";

export function invocationMethods(invocation: Invocation, ownNamespace: string): GrpcMethod[] {
  return [
    unary(Dapr.method.invokeService, async (request, call) => {
      if (request.id === "") throw emptyAppId();
      const target = parseAppId(request.id, ownNamespace);
      const message = request.message;
      const meshRequest: MeshRequest = {
        verb: verbName(message?.httpExtension?.verb),
        path: methodPath(normalizeMethod(message?.method ?? "")),
        query: message?.httpExtension?.querystring ?? "",
        headers: forwardRequestHeaders(metadataHeaders(call), contentTypeOf(message)),
        body: message?.data?.value ?? new Uint8Array(0),
      };
      const response = await invocation.invoke(target, meshRequest, call.signal);
      return response.grpc === undefined ? httpAnswer(response, call) : grpcAnswer(response, response.grpc, call);
    }),
  ];
}

/** No extension at all is the empty text: a gRPC app needs none, an HTTP app's sidecar refuses it. */
function verbName(verb: HTTPExtension_Verb | undefined): string {
  if (verb === undefined) return "";
  return Object.entries(HTTPExtension_Verb).find(([, value]) => value === verb)?.[0] ?? "NONE";
}

/** Metadata as HTTP headers; the content type comes from the message alone. */
function metadataHeaders(call: GrpcCall): string[] {
  const headers: string[] = [];
  for (const [name, values] of call.metadata) {
    if (name === "content-type" || name === "user-agent") continue;
    for (const value of values) headers.push(name, value);
  }
  return headers;
}

function contentTypeOf(message: InvokeRequest | undefined): string[] {
  const type = message?.contentType ?? "";
  if (type !== "") return ["Content-Type", type];
  return (message?.data?.typeUrl ?? "") === "" ? [] : ["Content-Type", "application/x-protobuf"];
}

function httpAnswer(response: MeshResponse, call: GrpcCall): { data: { value: Uint8Array }; contentType: string } {
  for (let i = 0; i + 1 < response.headers.length; i += 2) {
    call.setHeader(metadataName(response.headers[i]!), response.headers[i + 1]!);
  }
  call.setHeader("dapr-http-status", String(response.status));
  if (response.status < 200 || response.status > 299) {
    throw grpcErrorOfHttp(response.status, response.body);
  }
  return { data: { value: response.body }, contentType: headerValue(response.headers, "content-type") ?? "" };
}

function grpcAnswer(
  response: MeshResponse,
  outcome: NonNullable<MeshResponse["grpc"]>,
  call: GrpcCall,
): { data: { value: Uint8Array }; contentType: string } {
  for (let i = 0; i + 1 < response.headers.length; i += 2) call.setHeader(response.headers[i]!, response.headers[i + 1]!);
  const trailers = outcome.trailers ?? [];
  for (let i = 0; i + 1 < trailers.length; i += 2) call.setTrailer(trailers[i]!, trailers[i + 1]!);
  if (outcome.code !== 0) throw grpcAppStatus(outcome.code, outcome.message, outcome.details);
  return { data: { value: response.body }, contentType: outcome.contentType ?? "" };
}
