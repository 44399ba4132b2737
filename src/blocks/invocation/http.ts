/** Service invocation over HTTP: request -> target and mesh request -> the app's answer, passed through. */
import type { MeshRequest, MeshResponse } from "../../../mesh/index.ts";
import type { HttpCall, HttpReply } from "../../api/http.ts";
import { goJson } from "../../lib/go-json.ts";
import { forwardRequestHeaders, headerValue } from "../../app/headers.ts";
import { invalidRequest } from "./errors.ts";
import type { Invocation } from "./invocation.ts";
import { methodPath, readTarget } from "./target.ts";

const knownVerbs = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]);

/** Takes every request that no other route takes. */
export async function invokeOverHttp(invocation: Invocation, call: HttpCall, ownNamespace: string): Promise<HttpReply> {
  const { target, method } = readTarget(call, ownNamespace);
  call.endpoint = `InvokeService/${target.id}`;
  if (call.verb === "CONNECT") throw invalidRequest("invalid HTTP verb");
  const request: MeshRequest = {
    verb: knownVerbs.has(call.verb) ? call.verb : "POST",
    path: methodPath(method),
    query: call.query,
    headers: forwardRequestHeaders(call.rawHeaders, noHeaders),
    body: await call.body(),
  };
  const response = await invocation.invoke(target, request, call.signal);
  return response.grpc === undefined ? httpAppReply(response) : grpcAppReply(response, response.grpc);
}

const noHeaders: readonly string[] = [];

function httpAppReply(response: MeshResponse): HttpReply {
  // Node's HTTP server cannot write an informational status as a final one.
  const status = response.status >= 200 && response.status <= 999 ? response.status : 500;
  const { body, headers } = response;
  if (body.length === 0 || headerValue(headers, "content-type") !== undefined) return { status, rawHeaders: headers, body };
  const type = status < 400 ? sniff(body) : "application/json";
  return { status, rawHeaders: [...headers, "Content-Type", type], body };
}

function grpcAppReply(response: MeshResponse, outcome: NonNullable<MeshResponse["grpc"]>): HttpReply {
  if (outcome.code === 0) {
    const type = outcome.contentType;
    const rawHeaders = type === undefined || type === "" ? response.headers : [...response.headers, "Content-Type", type];
    return { status: 200, rawHeaders, body: response.body };
  }
  const body = `{"code":${outcome.code},"message":${goJson(outcome.message)}}`;
  return { status: response.status, rawHeaders: [...response.headers, "Content-Type", "text/plain; charset=utf-8"], body };
}

/** Bytes looked at to guess a missing content type. */
const sniffBytes = 512;

function sniff(body: Uint8Array): string {
  for (const byte of body.subarray(0, sniffBytes)) {
    const binary = byte < 0x09 || (byte > 0x0d && byte < 0x1b && byte !== 0x1b) || (byte > 0x1b && byte < 0x20);
    if (binary) return "application/octet-stream";
  }
  return "text/plain; charset=utf-8";
}
