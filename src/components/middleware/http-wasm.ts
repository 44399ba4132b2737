/**
 * The host side of the http-wasm handler ABI: what a guest may ask of the request that it handles, and of its answer.
 * Texts travel through the guest's memory; 64-bit results hold two numbers.
 */
import { getHeader, headerValues, withHeader, withoutHeader } from "../../lib/flat-headers.ts";
import type { WasmFunctions, WasmMemory } from "../../lib/web-assembly.ts";
import type { MiddlewareRequest } from "../../middleware/port.ts";

/** One request in a guest. The answer's part is filled by the guest, or by the next handler. */
export type Exchange = {
  readonly request: MiddlewareRequest;
  /** The whole body; empty for guests that read none. */
  readonly requestBody: Uint8Array;
  status: number;
  headers: readonly string[];
  /** The answer's body, as far as the guest may see it. */
  body: Uint8Array;
  /** How far the guest has read: of the request's body, of the answer's. */
  read: [number, number];
  /** What the guest has written in place of these bodies. */
  written: [Uint8Array[] | undefined, Uint8Array[] | undefined];
  features: number;
};

export type HostContext = {
  readonly memory: () => WasmMemory;
  /** The exchange that is in the guest now; undefined at its start. */
  readonly current: () => Exchange | undefined;
  readonly config: Uint8Array;
  /** Features that hold for all requests. */
  features: number;
  readonly log: (level: number, text: string) => void;
  readonly logs: (level: number) => boolean;
};

export const features = { bufferRequest: 1, bufferResponse: 2 };
const known = features.bufferRequest | features.bufferResponse;
/** Kinds of headers; those of trailers have none here. */
const kinds = { request: 0, response: 1 };

/** A guest asked for what cannot be. It ends the call. */
class GuestFault extends Error {}

/** The functions of module `http_handler`. */
export function hostFunctions(host: HostContext): WasmFunctions {
  const exchange = (): Exchange => {
    const current = host.current();
    if (current === undefined) throw new GuestFault("the guest asks for a request outside of one");
    return current;
  };
  const bytesAt = (start: number, length: number): Uint8Array =>
    new Uint8Array(host.memory().buffer, start >>> 0, length >>> 0);
  const textAt = (start: number, length: number): string =>
    Buffer.from(bytesAt(start, length)).toString("utf8");
  /** Writes what fits; the guest comes back with a larger buffer when it does not. */
  const put = (bytes: Uint8Array, start: number, limit: number): number => {
    if (bytes.length <= limit >>> 0) bytesAt(start, bytes.length).set(bytes);
    return bytes.length;
  };
  const putText = (text: string, start: number, limit: number): number =>
    put(Buffer.from(text), start, limit);
  const putList = (texts: readonly string[], start: number, limit: number): bigint => {
    const bytes = Buffer.from(texts.map((text) => `${text}\0`).join(""));
    return (BigInt(texts.length) << 32n) | BigInt(put(bytes, start, limit));
  };
  return {
    ...aboutHost(host, { textAt, put }),
    ...aboutRequest(exchange, { textAt, putText }),
    ...aboutHeaders(exchange, { textAt, putList }),
    ...aboutBodies(exchange, bytesAt),
  };
}

type Memory = {
  readonly textAt: (start: number, length: number) => string;
  readonly put: (bytes: Uint8Array, start: number, limit: number) => number;
  readonly putText: (text: string, start: number, limit: number) => number;
  readonly putList: (texts: readonly string[], start: number, limit: number) => bigint;
};

function aboutHost(host: HostContext, { textAt, put }: Pick<Memory, "textAt" | "put">): WasmFunctions {
  return {
    enable_features: (wanted: number): number => {
      const holder = host.current() ?? host;
      holder.features |= wanted & known;
      return holder.features;
    },
    get_config: (start: number, limit: number): number => put(host.config, start, limit),
    log_enabled: (level: number): number => (host.logs(level) ? 1 : 0),
    log: (level: number, start: number, length: number): void => host.log(level, textAt(start, length)),
  };
}

function aboutRequest(
  exchange: () => Exchange,
  { textAt, putText }: Pick<Memory, "textAt" | "putText">,
): WasmFunctions {
  return {
    get_method: (start: number, limit: number): number => putText(exchange().request.verb, start, limit),
    set_method: (start: number, length: number): void => {
      if (length === 0) throw new GuestFault("the guest sets an empty method");
      exchange().request.verb = textAt(start, length);
    },
    get_uri: (start: number, limit: number): number => {
      const { path, query } = exchange().request;
      return putText(query === "" ? path : `${path}?${query}`, start, limit);
    },
    set_uri: (start: number, length: number): void => {
      const uri = textAt(start, length);
      const mark = uri.indexOf("?");
      const path = mark < 0 ? uri : uri.slice(0, mark);
      const { request } = exchange();
      request.path = path.startsWith("/") ? path : `/${path}`;
      request.query = mark < 0 ? "" : uri.slice(mark + 1);
    },
    get_protocol_version: (start: number, limit: number): number =>
      putText(exchange().request.protocol, start, limit),
    get_source_addr: (start: number, limit: number): number =>
      putText(exchange().request.remoteAddress, start, limit),
    get_status_code: (): number => exchange().status,
    set_status_code: (status: number): void => {
      exchange().status = status;
    },
  };
}

function aboutHeaders(
  exchange: () => Exchange,
  { textAt, putList }: Pick<Memory, "textAt" | "putList">,
): WasmFunctions {
  const headersOf = (kind: number): readonly string[] => {
    if (kind === kinds.request) return exchange().request.headers;
    return kind === kinds.response ? exchange().headers : [];
  };
  const change = (kind: number, to: (headers: readonly string[]) => readonly string[]): void => {
    const { request } = exchange();
    if (kind === kinds.request) request.headers = to(request.headers);
    else if (kind === kinds.response) exchange().headers = to(exchange().headers);
    else throw new GuestFault("trailers are not supported");
  };
  const nameAt = (start: number, length: number): string => {
    if (length === 0) throw new GuestFault("the guest gives an empty header name");
    return textAt(start, length);
  };
  return {
    get_header_names: (kind: number, start: number, limit: number): bigint => {
      const names = headersOf(kind).filter((_, i) => i % 2 === 0);
      return putList([...new Set(names.map((name) => name.toLowerCase()))], start, limit);
    },
    get_header_values: (
      kind: number,
      name: number,
      nameLength: number,
      start: number,
      limit: number,
    ): bigint => putList(headerValues(headersOf(kind), nameAt(name, nameLength)), start, limit),
    set_header_value: (kind: number, name: number, nameLength: number, value: number, length: number): void =>
      change(kind, (headers) => withHeader(headers, nameAt(name, nameLength), textAt(value, length))),
    add_header_value: (kind: number, name: number, nameLength: number, value: number, length: number): void =>
      change(kind, (headers) => [...headers, nameAt(name, nameLength), textAt(value, length)]),
    remove_header: (kind: number, name: number, nameLength: number): void =>
      change(kind, (headers) => withoutHeader(headers, nameAt(name, nameLength))),
  };
}

function aboutBodies(
  exchange: () => Exchange,
  bytesAt: (start: number, length: number) => Uint8Array,
): WasmFunctions {
  const indexOf = (kind: number): 0 | 1 => {
    if (kind !== kinds.request && kind !== kinds.response) throw new GuestFault(`no body of kind ${kind}`);
    return kind as 0 | 1;
  };
  return {
    read_body: (kind: number, start: number, limit: number): bigint => {
      const current = exchange();
      const index = indexOf(kind);
      const body = index === kinds.request ? current.requestBody : current.body;
      const from = current.read[index];
      const piece = body.subarray(from, from + (limit >>> 0));
      bytesAt(start, piece.length).set(piece);
      current.read[index] = from + piece.length;
      const isEnd = current.read[index] === body.length;
      return ((isEnd ? 1n : 0n) << 32n) | BigInt(piece.length);
    },
    /** The first write replaces the body, later ones add to it. */
    write_body: (kind: number, start: number, length: number): void => {
      (exchange().written[indexOf(kind)] ??= []).push(bytesAt(start, length).slice());
    },
  };
}

/** Content types that a guest has not set are plain text. */
export function typedHeaders(headers: readonly string[]): readonly string[] {
  return getHeader(headers, "content-type") === undefined
    ? [...headers, "Content-Type", "text/plain; charset=utf-8"]
    : headers;
}
