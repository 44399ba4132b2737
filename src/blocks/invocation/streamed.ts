/** What service invocation has to know of bodies that are streams: limits, server-sent events. */
import { BodyQueue, failedBody, type MeshRequest, type MeshResponse } from "../../../mesh/index.ts";
import { GrpcCode, grpcStatusText } from "../../api/errors.ts";
import { BodyTooLarge } from "../../api/http.ts";
import { headerValue } from "../../app/headers.ts";
import { invokeFailed } from "./errors.ts";
import type { AppTarget } from "./target.ts";

/** Set when the body is above the size limit of this sidecar. */
export function refusal(body: MeshRequest["body"]): BodyTooLarge | undefined {
  return body instanceof BodyQueue && body.failure instanceof BodyTooLarge ? body.failure : undefined;
}

/** The callee's sidecar says why the app got nothing, in the words of a Go program whose body was cut at the limit. */
export function asSentOn(body: MeshRequest["body"]): MeshRequest["body"] {
  const refused = refusal(body);
  if (refused === undefined || body.length === undefined) return body;
  const cut = `http: ContentLength=${body.length} with Body length ${refused.limitBytes}`;
  return failedBody(
    new Error(`net/http: HTTP/1.x transport connection broken: ${cut}`, { cause: refused }),
    body.length,
  );
}

const eventStreamType = "text/event-stream";
/** `Connection: keep-alive` is node's to say, as the client wishes. */
const eventStreamHeaders = ["Content-Type", eventStreamType, "Cache-Control", "no-cache"];
const replacedByEventStream = new Set(["content-type", "cache-control", "connection"]);

/** Another app's answer to a client that asks for server-sent events is one, or an error. */
export function eventStream(target: AppTarget, request: MeshRequest, response: MeshResponse): MeshResponse {
  if (headerValue(request.headers, "accept") !== eventStreamType || response.grpc !== undefined)
    return response;
  if (response.status < 200 || response.status > 299) {
    if (!(response.body instanceof Uint8Array)) response.body.cancel(new Error("this answer is not used"));
    const reason = "error invoking app channel: no response received from stream";
    throw invokeFailed(target.id, grpcStatusText(GrpcCode.Internal, reason));
  }
  const headers = [...eventStreamHeaders];
  for (let i = 0; i + 1 < response.headers.length; i += 2) {
    const name = response.headers[i]!;
    if (!replacedByEventStream.has(name.toLowerCase())) headers.push(name, response.headers[i + 1]!);
  }
  return { ...response, headers };
}
