/**
 * The plain-NATS form of a call: payload = body, NATS headers = HTTP headers, `Weft-Verb` and `Weft-Path` in,
 * `Weft-Status` out. Pleasant from `nats request` and any client without msgpack.
 */
import type { Msg, MsgHdrs } from "@nats-io/transport-node";
import { natsHeaders } from "./jetstream.ts";
import type { MeshRequest, MeshResponse } from "./types.ts";

const lineBreak = /[\r\n]/g;

/** Request headers of HTTP that carry no meaning over NATS. */
const skipped = new Set(["connection", "content-length", "host", "transfer-encoding"]);

export function plainRequest(request: MeshRequest): { payload: Uint8Array; headers: MsgHdrs } {
  const path = request.query === "" ? request.path : `${request.path}?${request.query}`;
  const pairs = ["Weft-Verb", request.verb, "Weft-Path", path];
  appendHeaders(pairs, request.headers);
  return { payload: request.body, headers: natsHeaders(pairs) };
}

/** A request that a plain program sent. Verb defaults to POST with a body and GET without, path to `/`. */
export function readPlainRequest(message: Msg): MeshRequest {
  const verb = message.headers?.get("Weft-Verb") || (message.data.length > 0 ? "POST" : "GET");
  const target = message.headers?.get("Weft-Path") || "/";
  const mark = target.indexOf("?");
  return {
    verb: verb.toUpperCase(),
    path: mark < 0 ? target : target.slice(0, mark),
    query: mark < 0 ? "" : target.slice(mark + 1),
    headers: readHeaders(message),
    body: message.data,
  };
}

export function plainResponse(response: MeshResponse): { payload: Uint8Array; headers: MsgHdrs } {
  const pairs = ["Weft-Status", String(response.status)];
  if (response.grpc !== undefined) pairs.push("Weft-Grpc-Status", String(response.grpc.code));
  appendHeaders(pairs, response.headers);
  return { payload: response.body, headers: natsHeaders(pairs) };
}

/** The sidecar could not get an answer from its app; `code` as in error frames. */
export function plainError(status: number, code: string, text: string): { payload: Uint8Array; headers: MsgHdrs } {
  const headers = natsHeaders(["Weft-Status", String(status), "Weft-Error", code]);
  return { payload: Buffer.from(text), headers };
}

/** Answer of a plain program; a missing or odd `Weft-Status` means 200. */
export function readPlainResponse(message: Msg): MeshResponse {
  const status = Number.parseInt(message.headers?.get("Weft-Status") || "200", 10);
  return {
    status: status >= 100 && status <= 599 ? status : 200,
    headers: readHeaders(message),
    body: message.data,
  };
}

function appendHeaders(pairs: string[], headers: readonly string[]): void {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (!skipped.has(headers[i]!.toLowerCase())) pairs.push(headers[i]!, headers[i + 1]!.replace(lineBreak, " "));
  }
}

function readHeaders(message: Msg): string[] {
  const flat: string[] = [];
  for (const [name, values] of message.headers ?? []) {
    if (name.startsWith("Weft-") || name.startsWith("Nats-")) continue;
    for (const value of values) flat.push(name, value);
  }
  return flat;
}
