/** Service invocation over HTTP: request -> target and mesh request -> the app's answer, passed through. */
import type { BodyStream, MeshRequest, MeshResponse } from "../../../mesh/index.ts";
import type { HttpCall, HttpReply } from "../../api/http.ts";
import { readDataType, withoutMeshOnly } from "../../api/grpc-caller.ts";
import { forwardRequestHeaders, headerValue } from "../../app/headers.ts";
import { invalidRequest } from "./errors.ts";
import type { Invocation } from "./invocation.ts";
import { methodPath, readTarget } from "./target.ts";

const knownVerbs = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]);

/** Takes every request that no other route takes. */
export async function invokeOverHttp(
  invocation: Invocation,
  call: HttpCall,
  ownNamespace: string,
): Promise<HttpReply> {
  const { target, method } = readTarget(call, ownNamespace);
  if (call.verb === "CONNECT") throw invalidRequest("invalid HTTP verb");
  const request: MeshRequest = {
    verb: knownVerbs.has(call.verb) ? call.verb : "POST",
    path: methodPath(method),
    query: call.query,
    headers: forwardRequestHeaders(call.rawHeaders, noHeaders),
    body: await call.content(),
  };
  const response = await invocation.invoke(target, request, call.signal);
  return response.grpc === undefined ? httpAppReply(response) : grpcAppReply(response, response.grpc);
}

const noHeaders: readonly string[] = [];

async function httpAppReply(response: MeshResponse): Promise<HttpReply> {
  // Node's HTTP server cannot write an informational status as a final one.
  const status = response.status >= 200 && response.status <= 999 ? response.status : 500;
  const { body, headers } = response;
  const whole = body instanceof Uint8Array;
  if ((whole && body.length === 0) || headerValue(headers, "content-type") !== undefined)
    return { status, rawHeaders: headers, body };
  const type = status >= 400 ? "application/json" : sniff(whole ? body : await firstPiece(body));
  return { status, rawHeaders: [...headers, "Content-Type", type], body };
}

/** The data of a gRPC app, or its status as proto-JSON under the HTTP status that it maps to. */
async function grpcAppReply(
  response: MeshResponse,
  outcome: NonNullable<MeshResponse["grpc"]>,
): Promise<HttpReply> {
  const headers = withoutMeshOnly(response.headers);
  if (outcome.code !== 0) {
    const { statusJson } = await import("../../api/status-proto.ts");
    const body = await statusJson(outcome.code, outcome.message, outcome.details);
    return {
      status: response.status,
      rawHeaders: [...headers, "Content-Type", "text/plain; charset=utf-8"],
      body,
    };
  }
  const type = readDataType(response.headers) === "" ? outcome.contentType : "application/x-protobuf";
  const rawHeaders = type === undefined || type === "" ? headers : [...headers, "Content-Type", type];
  return { status: 200, rawHeaders, body: response.body };
}

/** The beginning of a body, which stays in it; empty when the body fails, as its reader will see. */
async function firstPiece(body: BodyStream): Promise<Uint8Array> {
  try {
    const { value, done } = await body[Symbol.asyncIterator]().next();
    if (done === true) return new Uint8Array(0);
    body.putBack(value);
    return value;
  } catch {
    return new Uint8Array(0);
  }
}

/** Bytes looked at to guess a missing content type. */
const sniffBytes = 512;

function sniff(body: Uint8Array): string {
  for (const byte of body.subarray(0, sniffBytes)) {
    const binary =
      byte < 0x09 || (byte > 0x0d && byte < 0x1b && byte !== 0x1b) || (byte > 0x1b && byte < 0x20);
    if (binary) return "application/octet-stream";
  }
  return "text/plain; charset=utf-8";
}
