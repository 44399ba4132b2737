/**
 * The plain-NATS form of a call: payload = body, NATS headers = HTTP headers, `Weft-Verb` and `Weft-Path` in,
 * `Weft-Status` out. Pleasant from `nats request` and any client without msgpack.
 */
import type { Msg } from "@nats-io/transport-node";
import { codeOfPeer, MeshError } from "./errors.ts";
import {
  type EncodedHeaders,
  encodeHeaders,
  headerPairs,
  headerText,
  headerValue,
  isHeaderName,
} from "./headers.ts";
import type { MeshRequest, MeshResponse } from "./types.ts";

/** The plain form has whole bodies only. */
type Whole<T> = T & { readonly body: Uint8Array };

export type PlainMessage = { readonly payload: Uint8Array; readonly headers: EncodedHeaders };

const lineBreak = /[\r\n]/g;

/** HTTP headers that carry no meaning over NATS. */
const skipped = new Set(["connection", "content-length", "host", "transfer-encoding"]);
/** Headers that mean something to Weft or to NATS; an app's header of such a name must not pass for one. */
const reserved = /^(?:weft|nats)-/i;

export function plainRequest(request: Whole<MeshRequest>): PlainMessage {
  const path = request.query === "" ? request.path : `${request.path}?${request.query}`;
  const pairs = ["Weft-Verb", request.verb, "Weft-Path", path];
  appendHeaders(pairs, request.headers);
  return { payload: request.body, headers: encodeHeaders(pairs) };
}

/** A request that a plain program sent. Verb defaults to POST with a body and GET without, path to `/`. */
export function readPlainRequest(message: Msg): MeshRequest {
  const text = headerText(message);
  const verb = headerValue(text, "Weft-Verb") || (message.data.length > 0 ? "POST" : "GET");
  const target = headerValue(text, "Weft-Path");
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  return {
    verb: verb.toUpperCase(),
    path: path.startsWith("/") ? path : `/${path}`,
    query: mark < 0 ? "" : target.slice(mark + 1),
    headers: readHeaders(text),
    body: message.data,
  };
}

export function plainResponse(response: Whole<MeshResponse>): PlainMessage {
  const pairs = ["Weft-Status", String(response.status)];
  if (response.grpc !== undefined) pairs.push("Weft-Grpc-Status", String(response.grpc.code));
  appendHeaders(pairs, response.headers);
  return { payload: response.body, headers: encodeHeaders(pairs) };
}

/** The sidecar could not get an answer from its app; `code` as in error frames. */
export function plainError(status: number, code: string, text: string): PlainMessage {
  const headers = encodeHeaders(["Weft-Status", String(status), "Weft-Error", code]);
  return { payload: Buffer.from(text), headers };
}

/** Answer of a plain program; a missing or odd `Weft-Status` means 200. Throws what `Weft-Error` says. */
export function readPlainResponse(message: Msg): MeshResponse {
  const text = headerText(message);
  const error = headerValue(text, "Weft-Error");
  if (error !== "") throw new MeshError(codeOfPeer(error), Buffer.from(message.data).toString("utf8"));
  const status = Number.parseInt(headerValue(text, "Weft-Status") || "200", 10);
  return {
    status: status >= 100 && status <= 599 ? status : 200,
    headers: readHeaders(text),
    body: message.data,
  };
}

function appendHeaders(pairs: string[], headers: readonly string[]): void {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!;
    if (isOfOneHop(name) || !isHeaderName(name)) continue;
    pairs.push(name, headers[i + 1]!.replace(lineBreak, " "));
  }
}

function readHeaders(text: string): string[] {
  const flat: string[] = [];
  if (text === "") return flat;
  for (const [name, value] of headerPairs(text)) if (!isOfOneHop(name)) flat.push(name, value);
  return flat;
}

/** Left out both ways: a length that a peer claims must never frame a body of ours. */
function isOfOneHop(name: string): boolean {
  return skipped.has(name.toLowerCase()) || reserved.test(name);
}
