/** Service invocation over HTTP: request -> target and mesh request -> the app's answer, passed through. */
import type { BodyStream, MeshRequest, MeshResponse } from "../../../mesh/index.ts";
import type { HttpCall, HttpReply } from "../../api/http.ts";
import { readDataType, withoutMeshOnly } from "../../api/grpc-caller.ts";
import { upgradeName } from "../../api/upgrade.ts";
import { forwardRequestHeaders, forwardResponseHeaders, headerValue } from "../../app/headers.ts";
import { sniffContentType } from "../../lib/content-type.ts";
import { setTrace } from "../../telemetry/tracing/headers.ts";
import { invalidArgument, invokeFailed } from "./errors.ts";
import type { Invocation } from "./invocation.ts";
import { methodPath, readTarget } from "./target.ts";
import { nameSpan } from "./trace.ts";

const knownVerbs = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]);

/** Takes every request that no other route takes. */
export async function invokeOverHttp(invocation: Invocation, call: HttpCall): Promise<HttpReply> {
  const { id, method } = readTarget(call);
  call.endpoint = `InvokeService/${id}`;
  if (call.verb === "CONNECT") throw invokeFailed(id, invalidArgument("invalid HTTP verb"));
  const headers = invocation.withoutOwnToken(forwardRequestHeaders(call.rawHeaders, noHeaders));
  if (call.upgrade !== undefined) headers.push(upgradeName, call.upgrade);
  const body = await call.content();
  if (call.span !== undefined) {
    nameSpan(call.span, id, method);
    setTrace(headers, call.span);
  }
  const request: MeshRequest = {
    verb: knownVerbs.has(call.verb) ? call.verb : "POST",
    path: methodPath(id, method),
    query: call.query,
    headers,
    body,
  };
  const repeatable = body.length === 0 || call.headers["content-length"] !== undefined;
  const { signal } = call;
  const response = await invocation.invoke(id, request, { signal, protocol: "http", repeatable });
  // Only a client that asked for a tunnel may be told that it begins.
  const tunnel = call.upgrade !== undefined && response.status === 101;
  if (tunnel) return { status: 101, rawHeaders: response.headers, body: response.body };
  if (response.status < 200 || response.status > 399) invocation.countRefusal();
  return response.grpc === undefined ? httpAppReply(response) : grpcAppReply(response, response.grpc);
}

const noHeaders: readonly string[] = [];

async function httpAppReply(response: MeshResponse): Promise<HttpReply> {
  // An informational status cannot be a final one, and node cannot write one of more than three digits.
  const status = response.status >= 200 && response.status <= 999 ? response.status : 500;
  const { body } = response;
  // Any NATS program may have answered: what frames a body must be ours.
  const headers = forwardResponseHeaders(response.headers);
  const type =
    headerValue(headers, "content-type") === undefined ? await missingType(status, response) : undefined;
  return { status, rawHeaders: type === undefined ? headers : [...headers, "Content-Type", type], body };
}

/** Errors are taken for JSON; of other answers Go's server looks at the first bytes, unless they are compressed. */
async function missingType(status: number, { body, headers }: MeshResponse): Promise<string | undefined> {
  if (status >= 400) return "application/json";
  const encoded = (headerValue(headers, "content-encoding") ?? "") !== "";
  if (encoded) return undefined;
  const first = body instanceof Uint8Array ? body : await firstPiece(body);
  return first.length === 0 ? undefined : sniffContentType(first);
}

/** The data of a gRPC app, or its status as proto-JSON under the HTTP status that it maps to. */
async function grpcAppReply(
  response: MeshResponse,
  outcome: NonNullable<MeshResponse["grpc"]>,
): Promise<HttpReply> {
  const headers = forwardResponseHeaders(withoutMeshOnly(response.headers));
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
