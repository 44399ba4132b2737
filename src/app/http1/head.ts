/**
 * The head of a request to an HTTP/1.1 app, and what may not be sent: names, values and paths that would read as
 * something else on the wire. Refusals have undici's words, because clients have been shown them.
 */
import { isFieldValue, isToken } from "../../lib/http-field.ts";

export type Outgoing = {
  readonly verb: string;
  /** Encoded; query included. */
  readonly path: string;
  /** Flat name, value list. */
  readonly headers: readonly string[];
};

export type Head = {
  /** Request line and headers, without those that frame the body and without the empty line. */
  readonly text: string;
  /** Of a `Content-Length` among the headers. */
  readonly length: number | undefined;
  /** The verb promises a body, so that its absence is told by a length of 0. */
  readonly wantsBody: boolean;
  /** The connection serves no further request. */
  readonly last: boolean;
};

const badPath = /[^\x21-\xff]/;
const wantBody = new Set(["POST", "PUT", "PATCH", "QUERY", "PROPFIND", "PROPPATCH"]);

/** `host` is sent when the headers name none. Throws Error for what cannot be sent. */
export function requestHead({ verb, path, headers }: Outgoing, host: string): Head {
  if (path[0] !== "/" && !/^https?:\/\//.test(path))
    throw new Error("path must be an absolute URL or start with a slash");
  if (badPath.test(path)) throw new Error("invalid request path");
  if (!isToken(verb)) throw new Error("invalid request method");
  if (verb === "CONNECT") throw new Error("invalid onRequestUpgrade method");
  let lines = "";
  let given: string | undefined;
  let length: number | undefined;
  // Some servers send a body after HEAD: it must not be read as the next answer.
  let last = verb === "HEAD";
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!;
    const value = headers[i + 1]!;
    if (!isToken(name)) throw new Error("invalid header key");
    if (!isFieldValue(value)) throw new Error(`invalid ${name} header`);
    switch (ownHeader(name)) {
      case "":
        lines += `${name}: ${value}\r\n`;
        break;
      case "host":
        if (given !== undefined) throw new Error("duplicate host header");
        given = value;
        break;
      case "content-length":
        if (length !== undefined) throw new Error("duplicate content-length header");
        if (!/^\d+$/.test(value)) throw new Error("invalid content-length header");
        length = Number(value);
        break;
      case "connection":
        if (saysClose(value)) last = true;
        break;
      case "expect":
        throw new Error("expect header not supported");
      default:
        throw new Error(`invalid ${name.toLowerCase()} header`);
    }
  }
  const connection = last ? "close" : "keep-alive";
  const text = `${verb} ${path} HTTP/1.1\r\nhost: ${given ?? host}\r\nconnection: ${connection}\r\n${lines}`;
  return { text, length, wantsBody: wantBody.has(verb), last };
}

/** The name in lower case of a header that belongs to this connection; empty for all others. */
function ownHeader(name: string): string {
  switch (name.length) {
    case 4:
    case 6:
    case 7:
    case 10:
    case 14:
    case 17: {
      const lower = name.toLowerCase();
      return ownHeaders.has(lower) ? lower : "";
    }
    default:
      return "";
  }
}

const ownHeaders = new Set([
  "host",
  "expect",
  "upgrade",
  "connection",
  "keep-alive",
  "content-length",
  "transfer-encoding",
]);

function saysClose(connection: string): boolean {
  let close = false;
  for (const option of connection.toLowerCase().split(",")) {
    const name = option.trim();
    if (!isToken(name)) throw new Error("invalid connection header");
    if (name === "close") close = true;
  }
  return close;
}
