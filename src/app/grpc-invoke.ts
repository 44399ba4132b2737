/**
 * Service invocation to a gRPC app: a MeshRequest becomes AppCallback.OnInvoke, its answer or status a MeshResponse.
 *
 * A gRPC caller (api/grpc-caller.ts) has its method, metadata and data type passed on as they are. For an HTTP caller
 * the method is the path, decoded and without its leading slash; its headers become lower-case metadata, permanent
 * ones with `dapr-` before them, and `content-type` also the content type of the message.
 */
import type { HTTPExtension_Verb } from "../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { collectBody, isMeshError, type MeshRequest, type MeshResponse } from "../../mesh/index.ts";
import { GrpcCode } from "../api/errors.ts";
import { dataTypePair, type GrpcCaller, readGrpcCaller, withoutMeshOnly } from "../api/grpc-caller.ts";
import { httpFromCode, metadataName } from "../api/status.ts";
import { percentDecode, receivedTooLarge } from "../lib/grpc-wire.ts";
import { GrpcStatusError } from "../api/grpc-status-error.ts";
import type { GrpcAppClient } from "./grpc.ts";
import { headerValue } from "./headers.ts";

const onInvoke = "/dapr.proto.runtime.v1.AppCallback/OnInvoke";
const emptyBody = new Uint8Array(0);

/**
 * Calls the app. Every status, also Unavailable of an app that is down, is an answer: `grpc` holds code, text, binary
 * details, trailers (wire pairs) and content type; `status` the mapped HTTP status; `body` the data; `headers` the
 * app's header metadata (wire pairs, lower case). Rejects with GrpcStatusError only when the signal is aborted.
 */
export async function invokeGrpcApp(
  client: GrpcAppClient,
  request: MeshRequest,
  signal: AbortSignal,
): Promise<MeshResponse> {
  const { common, proto } = await messages();
  const body = await wholeBody(request, client.maxMessageBytes);
  if (body instanceof GrpcStatusError) return failed(body);
  const caller = readGrpcCaller(request.headers) ?? httpCaller(request);
  const message = proto.toBinary(
    common.InvokeRequestSchema,
    proto.create(common.InvokeRequestSchema, {
      method: caller.method,
      contentType: caller.contentType,
      data: { typeUrl: caller.dataType, value: body },
      ...extensionOf(request, common.HTTPExtension_Verb),
    }),
  );
  if (message.length > client.maxMessageBytes) {
    const { code, message: text } = receivedTooLarge(message.length, client.maxMessageBytes);
    return failed(new GrpcStatusError(code, text));
  }
  try {
    const answer = await client.unary({ path: onInvoke, metadata: metadataOf(request), message }, signal);
    const { data, contentType } = proto.fromBinary(common.InvokeResponseSchema, answer.message);
    return {
      status: 200,
      headers: [...answer.headers, ...dataTypePair(data?.typeUrl ?? "")],
      body: data?.value ?? emptyBody,
      grpc: { code: GrpcCode.OK, message: "", trailers: answer.trailers, contentType },
    };
  } catch (error) {
    if (signal.aborted) throw error;
    if (error instanceof GrpcStatusError) return failed(replyTooLarge(error));
    const text = `the app's answer is no InvokeResponse: ${error instanceof Error ? error.message : String(error)}`;
    return failed(new GrpcStatusError(GrpcCode.Internal, text));
  }
}

/** A gRPC message is whole. What is above the limit is refused in the words of a receiver that cannot know its size. */
async function wholeBody({ body }: MeshRequest, maxBytes: number): Promise<Uint8Array | GrpcStatusError> {
  if (body instanceof Uint8Array) return body;
  try {
    return await collectBody(body, maxBytes);
  } catch (error) {
    if (!isMeshError(error, "too-large")) throw error;
    const { code, message } = receivedTooLarge(body.length ?? maxBytes + 1, maxBytes);
    return new GrpcStatusError(code, message);
  }
}

function failed(error: GrpcStatusError): MeshResponse {
  const { code, message, details, trailers } = error;
  const grpc = { code, message, trailers, ...(details === undefined ? {} : { details }) };
  return { status: httpFromCode(code), headers: [], body: emptyBody, grpc };
}

/** A caller is told about a large answer in the words of the sidecar that had to send it on. */
function replyTooLarge(error: GrpcStatusError): GrpcStatusError {
  const received = "grpc: received message larger than max";
  if (error.code !== GrpcCode.ResourceExhausted || !error.message.startsWith(received)) return error;
  const text = error.message.replace(received, "grpc: trying to send message larger than max");
  return new GrpcStatusError(error.code, text, error.details, error.trailers);
}

function httpCaller({ path, headers }: MeshRequest): GrpcCaller {
  return {
    method: percentDecode(path.startsWith("/") ? path.slice(1) : path),
    contentType: headerValue(headers, "content-type") ?? "",
    dataType: "",
  };
}

/** Metadata of the call. Of a gRPC caller nothing is renamed; names that the transport owns are dropped on sending. */
function metadataOf({ headers }: MeshRequest): string[] {
  const fromGrpc = readGrpcCaller(headers) !== undefined;
  const plain = withoutMeshOnly(headers);
  const pairs: string[] = [];
  for (let i = 0; i + 1 < plain.length; i += 2) {
    const name = plain[i]!.toLowerCase();
    pairs.push(fromGrpc ? name : metadataName(name), plain[i + 1]!);
  }
  return pairs;
}

/** A gRPC caller may leave the extension out; verb and query are then both empty. */
function extensionOf(request: MeshRequest, verbs: typeof HTTPExtension_Verb) {
  if (request.verb === "" && request.query === "") return {};
  const verb = verbs[request.verb as keyof typeof HTTPExtension_Verb] ?? verbs.NONE;
  return { httpExtension: { verb, querystring: request.query } };
}

async function messages() {
  const [common, proto] = await Promise.all([
    import("../../proto/gen/dapr/proto/common/v1/common_pb.ts"),
    import("@bufbuild/protobuf"),
  ]);
  return { common, proto };
}
