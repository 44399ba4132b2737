/** Turns replies into bytes: on an HTTP/1.1 response or on an HTTP/2 stream. */
import type { ServerResponse } from "node:http";
import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { Readable, type Writable } from "node:stream";
import type { HttpReply } from "../api/http.ts";

/** Where a reply goes. Resolves with the body bytes sent, once all is handed to the socket or the client is gone. */
export type SendReply = (reply: HttpReply, verb: string) => Promise<number>;

/** Answers over HTTP/1.1. */
export async function sendHttp1(response: ServerResponse, reply: HttpReply, verb: string): Promise<number> {
  if (response.destroyed) return 0;
  const headers = flatHeaders(reply);
  const { body } = reply;
  if (body instanceof Readable) {
    response.writeHead(reply.status, headers);
    return isBodiless(reply.status, verb) ? discard(body, response) : pipeBody(body, response);
  }
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  const size = bytes?.length ?? 0;
  if (hasLength(reply.status, verb, size)) headers.push("Content-Length", String(size));
  response.writeHead(reply.status, headers);
  if (size === 0 || isBodiless(reply.status, verb)) {
    response.end();
    return 0;
  }
  response.end(bytes);
  return size;
}

/** Answers over HTTP/2. */
export async function sendHttp2(stream: ServerHttp2Stream, reply: HttpReply, verb: string): Promise<number> {
  if (stream.destroyed || stream.closed) return 0;
  const { body, status } = reply;
  const headers = http2Headers(reply);
  if (body instanceof Readable) {
    stream.respond(headers);
    return isBodiless(status, verb) ? discard(body, stream) : pipeBody(body, stream);
  }
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  const size = bytes?.length ?? 0;
  if (hasLength(status, verb, size)) headers["content-length"] = String(size);
  const bodiless = size === 0 || isBodiless(status, verb);
  stream.respond(headers, { endStream: bodiless });
  if (bodiless) return 0;
  stream.end(bytes);
  return size;
}

/** An answer to HEAD is about a body that is not here, so its length is unknown rather than 0. */
function hasLength(status: number, verb: string, size: number): boolean {
  return status !== 204 && status !== 304 && (size > 0 || verb !== "HEAD");
}

function isBodiless(status: number, verb: string): boolean {
  return verb === "HEAD" || status === 204 || status === 304;
}

/** Header lines of a reply as a flat list of names and values. */
function flatHeaders(reply: HttpReply): string[] {
  const headers: string[] = reply.rawHeaders === undefined ? [] : [...reply.rawHeaders];
  for (const name in reply.headers) {
    const value = reply.headers[name]!;
    if (typeof value === "string") headers.push(name, value);
    else for (const item of value) headers.push(name, item);
  }
  return headers;
}

/** HTTP/2 forbids these: framing is its own. */
const connectionHeaders = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);

function http2Headers(reply: HttpReply): OutgoingHttpHeaders {
  const flat = flatHeaders(reply);
  const headers: OutgoingHttpHeaders = { ":status": reply.status };
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const name = flat[i]!.toLowerCase();
    if (connectionHeaders.has(name)) continue;
    const before = headers[name];
    if (before === undefined) headers[name] = flat[i + 1]!;
    else headers[name] = Array.isArray(before) ? [...before, flat[i + 1]!] : [String(before), flat[i + 1]!];
  }
  return headers;
}

function pipeBody(body: Readable, out: Writable): Promise<number> {
  return new Promise((resolve) => {
    let size = 0;
    body.on("data", (chunk: Buffer | string) => (size += Buffer.byteLength(chunk)));
    body.once("error", () => out.destroy());
    out.once("close", () => {
      body.destroy();
      resolve(size);
    });
    body.pipe(out);
  });
}

/** The answer to a HEAD: the body is made nowhere. */
function discard(body: Readable, out: Writable): Promise<number> {
  body.once("error", () => {});
  body.destroy();
  out.end();
  return Promise.resolve(0);
}
