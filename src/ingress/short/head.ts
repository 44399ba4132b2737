/**
 * Reads the head of an HTTP/1.1 request that is short and plain: there at once, with a body of stated length or none,
 * and without anything that changes the connection. Whatever else comes is node's to judge, what is wrong included, so
 * this accepts less than node's parser does, and never more.
 */
import type { IncomingHttpHeaders } from "node:http";
import { isFieldValue, isToken } from "../../lib/http-field.ts";
import { headersByName } from "../http-call.ts";

/** Longer heads are left to node, bytes. */
const maxHeadBytes = 8_192;

export type ShortHead = {
  readonly verb: string;
  readonly target: string;
  readonly fields: HeadFields;
  /** With the empty line. */
  readonly sizeBytes: number;
};

/** HEAD is not among them: what its answer says of a body is an affair of its own. */
const requestLine = /^(GET|POST|PUT|DELETE|PATCH|OPTIONS) (\/[\x21\x22\x24-\x7e]*) HTTP\/1\.1$/;
const shortNumber = /^\d{1,9}$/;
const outerSpace = /^[ \t]+|[ \t]+$/g;

/** The header lines. A client sends the same ones again and again, so they are read once. */
export class HeadFields {
  readonly #text: string;
  readonly raw: readonly string[];
  readonly bodyBytes: number;
  #named: IncomingHttpHeaders | undefined;

  constructor(text: string, raw: readonly string[], bodyBytes: number) {
    this.#text = text;
    this.raw = raw;
    this.bodyBytes = bodyBytes;
  }

  isOf(text: string): boolean {
    return this.#text === text;
  }

  get named(): IncomingHttpHeaders {
    return (this.#named ??= headersByName(this.raw));
  }
}

/**
 * Undefined: not for us. `last` are the fields of the request before on this connection; a body above `maxBodyBytes`
 * is not short.
 */
export function readShortHead(
  chunk: Buffer,
  limits: { readonly maxHeaderBytes: number; readonly maxBodyBytes: number },
  last: HeadFields | undefined,
): ShortHead | undefined {
  const text = chunk.toString("latin1", 0, Math.min(chunk.length, maxHeadBytes));
  const end = text.indexOf("\r\n\r\n");
  const lineEnd = text.indexOf("\r\n");
  if (end < 0 || end > limits.maxHeaderBytes || lineEnd === end) return undefined;
  const line = requestLine.exec(text.slice(0, lineEnd));
  if (line === null) return undefined;
  const lines = text.slice(lineEnd + 2, end);
  const fields = last?.isOf(lines) === true ? last : readFields(lines);
  if (fields === undefined || fields.bodyBytes > limits.maxBodyBytes) return undefined;
  return { verb: line[1]!, target: line[2]!, fields, sizeBytes: end + 4 };
}

function readFields(text: string): HeadFields | undefined {
  const raw: string[] = [];
  let hosts = 0;
  let length: string | undefined;
  for (const line of text.split("\r\n")) {
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(0, colon));
    const value = line.slice(colon + 1).replace(outerSpace, "");
    if (!isToken(name) || !isFieldValue(value)) return undefined;
    switch (name.toLowerCase()) {
      case "host":
        hosts++;
        break;
      case "content-length":
        if (length !== undefined || !shortNumber.test(value)) return undefined;
        length = value;
        break;
      case "connection":
        if (value.toLowerCase() !== "keep-alive") return undefined;
        break;
      case "transfer-encoding":
      case "expect":
      case "upgrade":
      case "proxy-connection":
      case "set-cookie":
        return undefined;
    }
    raw.push(name, value);
  }
  return hosts === 1 ? new HeadFields(text, raw, Number(length ?? 0)) : undefined;
}
