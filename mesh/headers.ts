/**
 * NATS headers as text: written by concatenation, read by search. The client's own header class costs five times as
 * much, and every read, guarded write and event carries headers.
 */
import type { Msg } from "@nats-io/transport-node";
import { MeshError } from "./errors.ts";

/** Headers ready to be sent; the client asks a header object for nothing but this. */
export type EncodedHeaders = { encode(): Uint8Array };

const firstLine = "NATS/1.0";
const validName = /^[!-9;-~]+$/;
const lineBreak = /[\r\n]/;

/** True for a name that NATS can carry. */
export function isHeaderName(name: string): boolean {
  return validName.test(name);
}

/** A flat name, value list as headers. Throws MeshError `protocol` for names and values that NATS cannot carry. */
export function encodeHeaders(pairs: readonly string[]): EncodedHeaders {
  let text = `${firstLine}\r\n`;
  for (let i = 0; i + 1 < pairs.length; i += 2) {
    const name = pairs[i]!;
    const value = pairs[i + 1]!;
    if (!isHeaderName(name)) throw new MeshError("protocol", `"${name}" cannot be the name of a NATS header`);
    if (lineBreak.test(value)) {
      throw new MeshError(
        "protocol",
        `the value of header ${name} has a line break; encode it, e.g. in percent form`,
      );
    }
    text += `${name}: ${value}\r\n`;
  }
  const bytes = Buffer.from(`${text}\r\n`);
  return { encode: () => bytes };
}

/** How the client (3.4) holds a message; headers.test.ts fails when a newer one holds it differently. */
type Inside = { readonly _rdata?: Uint8Array; readonly _msg?: { readonly hdr: number } };

/** All headers of a message as text, empty when it has none. Read it with the functions below. */
export function headerText(message: Msg): string {
  const { _rdata: bytes, _msg: about } = message as unknown as Inside;
  if (bytes === undefined || about === undefined) return rebuild(message);
  if (about.hdr <= 0) return "";
  const buffer = bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return buffer.toString("utf8", 0, about.hdr);
}

/** Slow way for a client that keeps its bytes to itself. */
function rebuild(message: Msg): string {
  const { headers } = message;
  if (headers === undefined) return "";
  let text = headers.code === 0 ? `${firstLine}\r\n` : `${firstLine} ${headers.status}\r\n`;
  for (const [name, values] of headers) for (const value of values) text += `${name}: ${value}\r\n`;
  return `${text}\r\n`;
}

/** The NATS status (404, 408, 503, ...); 0 for a message that carries data. */
export function statusOf(text: string): number {
  if (text.charCodeAt(firstLine.length) !== 0x20) return 0;
  const code = Number.parseInt(text.slice(firstLine.length + 1, firstLine.length + 5), 10);
  return code > 0 ? code : 0;
}

/** Words after the status. */
export function statusWords(text: string): string {
  return text.slice(firstLine.length + 5, text.indexOf("\r\n")).trim();
}

/** First value of a header by its exact name; empty when it is absent. */
export function headerValue(text: string, name: string): string {
  const at = text.indexOf(`\r\n${name}:`);
  if (at < 0) return "";
  const start = at + name.length + 3;
  return text.slice(start, text.indexOf("\r\n", start)).trim();
}

/** All names and values in the order of the message; a repeated name appears as often. */
export function headerPairs(text: string): [string, string][] {
  const pairs: [string, string][] = [];
  for (const line of text.split("\r\n").slice(1)) {
    const colon = line.indexOf(":");
    if (colon > 0) pairs.push([line.slice(0, colon), line.slice(colon + 1).trim()]);
  }
  return pairs;
}
