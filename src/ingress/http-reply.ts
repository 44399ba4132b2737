/** Turns replies into bytes: on an HTTP/1.1 response or on an HTTP/2 stream. */
import type { ServerResponse } from "node:http";
import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Writable } from "node:stream";
import type { BodyStream } from "../../mesh/index.ts";
import type { HttpReply } from "../api/http.ts";

/** Where a reply goes. Resolves with the body bytes sent, once all is handed to the socket or the client is gone. */
export type SendReply = (reply: HttpReply, verb: string) => Promise<number>;

/** Answers over HTTP/1.1. */
export async function sendHttp1(response: ServerResponse, reply: HttpReply, verb: string): Promise<number> {
  if (response.destroyed) return 0;
  const headers = flatHeaders(reply);
  const { body } = reply;
  if (isStream(body)) {
    response.writeHead(reply.status, headers);
    if (isBodiless(reply.status, verb)) return discard(body, response);
    const flushHead = (): void => response.flushHeaders();
    return writeBody(body, response, flushHead, () => {
      response.socket?.resetAndDestroy();
      response.destroy();
    });
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
  if (isStream(body)) {
    stream.respond(headers);
    if (isBodiless(status, verb)) return discard(body, stream);
    // Not `close`: that tells the client first that the answer is complete.
    const reset = (): void => void stream.destroy(new Error("the answer broke off"));
    return writeBody(body, stream, () => {}, reset);
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

export function isStream(body: HttpReply["body"]): body is BodyStream {
  return typeof body === "object" && !(body instanceof Uint8Array);
}

/** An answer to HEAD is about a body that is not here, so its length is unknown rather than 0. */
function hasLength(status: number, verb: string, size: number): boolean {
  return status !== 204 && status !== 304 && (size > 0 || verb !== "HEAD");
}

export function isBodiless(status: number, verb: string): boolean {
  return verb === "HEAD" || status === 204 || status === 304;
}

/** Header lines of a reply as a flat list of names and values. */
export function flatHeaders(reply: HttpReply): string[] {
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

/** Where the pieces of a body go: a Writable, or what looks like one. */
export type BodySink = {
  readonly destroyed: boolean;
  /** False: wait for `drain` before the next one. */
  write(piece: Uint8Array): boolean;
  end(): void;
  once(event: "close" | "drain", listener: () => void): void;
  off(event: "close" | "drain", listener: () => void): void;
};

/** First bytes that go out in one packet with the head, at most. */
const firstBytes = 64 * 1024;

/**
 * Writes piece by piece as fast as the client reads. A body that fails resets the connection: it is not whole, and must
 * not look so.
 */
export async function writeBody(
  body: BodyStream,
  out: BodySink,
  flushHead: () => void,
  reset: () => void,
): Promise<number> {
  let size = 0;
  const write = (piece: Uint8Array): boolean => {
    size += piece.length;
    return out.write(piece);
  };
  out.once("close", () => body.cancel(new Error("the client went away")));
  const first = body.takeReady(firstBytes);
  if (first.length > 0) write(first);
  else flushHead();
  try {
    for await (const piece of body) if (!write(piece)) await drained(out);
    out.end();
  } catch {
    reset();
  }
  return size;
}

/** Resolves when the client has read, or is gone. */
function drained(out: BodySink): Promise<void> {
  return new Promise((resolve) => {
    if (out.destroyed) return resolve();
    const done = (): void => {
      out.off("drain", done);
      out.off("close", done);
      resolve();
    };
    out.once("drain", done);
    out.once("close", done);
  });
}

/** The answer to a HEAD: the body is made nowhere. */
function discard(body: BodyStream, out: Writable): Promise<number> {
  body.cancel(new Error("this answer has no body"));
  out.end();
  return Promise.resolve(0);
}
