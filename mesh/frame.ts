/**
 * The framed form of calls: 6 fixed bytes, a msgpack head, the raw body.
 * byte 0 = version, byte 1 = kind, bytes 2-5 = head length (uint32, big endian). Normative: README.md, "Frames".
 */
import { Packr } from "msgpackr";
import { MeshError } from "./errors.ts";
import type { GrpcOutcome, MeshRequest, MeshResponse } from "./types.ts";

export const frameVersion = 1;
const prefixBytes = 6;
/** Longest head, bytes: headers of one call. */
const maxHeadBytes = 512 * 1024;

export const FrameKind = Object.freeze({
  request: 1,
  response: 2,
  error: 3,
  progress: 4,
  cancel: 5,
  accept: 6,
  chunk: 7,
  end: 8,
  credit: 9,
  probe: 10,
} as const);
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

/** The body part of a frame is the beginning of a body whose rest follows in chunks. */
type StreamHead = {
  stream?: true;
  /** Bytes of the whole body, when known. */
  length?: number;
};

/** Head of a request. `timeoutMs` is what is left of the caller's deadline; absent = none. */
type RequestHead = StreamHead & {
  verb: string;
  path: string;
  query?: string;
  headers?: string[];
  timeoutMs?: number;
};

/** `to`: where the caller's frames of this call go; only with `stream`. */
type ResponseHead = StreamHead & { status: number; headers?: string[]; grpc?: GrpcOutcome; to?: string };

/** What a frame says about the rest of its body. */
export type Following = { readonly length: number | undefined };

/** A request or response whose body part is at hand: whole, or the beginning of a stream. */
type WithBytes<T> = Omit<T, "body"> & { readonly body: Uint8Array };

/** Why the serving side could not answer. `code` is one of MeshErrorCode. */
export type ErrorHead = { code: string; message: string };

const packr = new Packr({ useRecords: false, variableMapSize: true });
const noBody = new Uint8Array(0);

export type Frame = {
  readonly kind: number;
  readonly head: Record<string, unknown>;
  readonly body: Uint8Array;
};

/** A body from this size on travels beside its head, bytes: smaller ones are copied faster than written apart. */
const apartBytes = 16 * 1024;

function encode(kind: FrameKind, head: unknown, body: Uint8Array): Buffer {
  const packed = packr.pack(head);
  const frame = Buffer.allocUnsafe(prefixBytes + packed.length + body.length);
  frame[0] = frameVersion;
  frame[1] = kind;
  frame.writeUInt32BE(packed.length, 2);
  frame.set(packed, prefixBytes);
  frame.set(body, prefixBytes + packed.length);
  return frame;
}

/** Splits a frame; `body` is a view. Throws MeshError `protocol` for anything but a frame of this version. */
export function decodeFrame(bytes: Uint8Array): Frame {
  if (bytes.length < prefixBytes)
    throw new MeshError("protocol", `frame of ${bytes.length} bytes is shorter than its prefix`);
  if (bytes[0] !== frameVersion) {
    throw new MeshError("protocol", `frame version ${bytes[0]} is unknown; this side speaks ${frameVersion}`);
  }
  const headBytes = bytes[2]! * 2 ** 24 + (bytes[3]! << 16) + (bytes[4]! << 8) + bytes[5]!;
  if (headBytes > maxHeadBytes || prefixBytes + headBytes > bytes.length) {
    throw new MeshError("protocol", `frame head of ${headBytes} bytes does not fit in ${bytes.length}`);
  }
  let head: unknown;
  try {
    head = packr.unpack(bytes.subarray(prefixBytes, prefixBytes + headBytes));
  } catch (cause) {
    throw new MeshError("protocol", "frame head is not msgpack", { cause });
  }
  if (!isMap(head)) throw new MeshError("protocol", "frame head is not a map");
  return { kind: bytes[1]!, head, body: bytes.subarray(prefixBytes + headBytes) };
}

function isMap(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)
  );
}

/** With `rest`, the body of the frame is only the beginning. */
export function encodeRequest(request: WithBytes<MeshRequest>, timeoutMs: number, rest?: Following): Buffer {
  const head: RequestHead = { verb: request.verb, path: request.path };
  if (request.query !== "") head.query = request.query;
  if (request.headers.length > 0) head.headers = request.headers as string[];
  if (timeoutMs > 0) head.timeoutMs = timeoutMs;
  if (rest !== undefined) addStream(head, rest);
  return encode(FrameKind.request, head, request.body);
}

function addStream(head: StreamHead, rest: Following): void {
  head.stream = true;
  if (rest.length !== undefined) head.length = rest.length;
}

/** What follows the body part of a request or response in chunks; undefined when it is whole. */
export function readFollowing(frame: Frame): Following | undefined {
  const { stream, length } = frame.head;
  if (stream !== true) return undefined;
  return { length: isCount(length) ? length : undefined };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

export function readRequest(frame: Frame): { request: WithBytes<MeshRequest>; timeoutMs: number } {
  const { verb, path, query, headers, timeoutMs } = frame.head;
  if (typeof verb !== "string" || typeof path !== "string") {
    throw new MeshError("protocol", "request head needs the strings verb and path");
  }
  const request = {
    verb,
    path,
    query: typeof query === "string" ? query : "",
    headers: readHeaders(headers),
    body: frame.body,
  };
  return { request, timeoutMs: typeof timeoutMs === "number" && timeoutMs > 0 ? timeoutMs : 0 };
}

/** With `rest`, the body of the frame is only the beginning, and the caller answers on `rest.to`. */
export function encodeResponse(
  response: WithBytes<MeshResponse>,
  rest?: Following & { readonly to: string },
): Buffer {
  const head: ResponseHead = { status: response.status };
  if (response.headers.length > 0) head.headers = response.headers as string[];
  if (response.grpc !== undefined) head.grpc = response.grpc;
  if (rest !== undefined) {
    addStream(head, rest);
    head.to = rest.to;
  }
  return encode(FrameKind.response, head, response.body);
}

export function readResponse(frame: Frame): WithBytes<MeshResponse> {
  const { status, headers, grpc } = frame.head;
  if (typeof status !== "number" || !Number.isInteger(status)) {
    throw new MeshError("protocol", "response head needs the whole number status");
  }
  const response = { status, headers: readHeaders(headers), body: frame.body };
  return grpc === undefined ? response : { ...response, grpc: readOutcome(grpc) };
}

/** Picks what is known, so that nothing unknown reaches a gRPC library. */
function readOutcome(grpc: unknown): GrpcOutcome {
  if (!isMap(grpc)) throw new MeshError("protocol", "grpc outcome is not a map");
  const { code, message, details, trailers, contentType } = grpc;
  if (!Number.isInteger(code) || typeof message !== "string") {
    throw new MeshError("protocol", "grpc outcome needs the number code and the text message");
  }
  if (details !== undefined && details !== null && !(details instanceof Uint8Array)) {
    throw new MeshError("protocol", "details of a grpc outcome must be bytes");
  }
  return {
    code: code as number,
    message,
    ...(details instanceof Uint8Array ? { details } : {}),
    ...(trailers === undefined || trailers === null ? {} : { trailers: readHeaders(trailers) }),
    ...(typeof contentType === "string" ? { contentType } : {}),
  };
}

/** Header lists arrive from any program: an odd or non-text list is refused here, not in the app's HTTP client. */
function readHeaders(headers: unknown): string[] {
  if (headers === undefined || headers === null) return [];
  const valid =
    Array.isArray(headers) && headers.length % 2 === 0 && headers.every((item) => typeof item === "string");
  if (!valid) throw new MeshError("protocol", "headers must be a flat list of name, value strings");
  return headers;
}

export function encodeError(code: string, message: string): Buffer {
  const head: ErrorHead = { code, message };
  return encode(FrameKind.error, head, noBody);
}

export function readError(frame: Frame): ErrorHead {
  const { code, message } = frame.head;
  return {
    code: typeof code === "string" ? code : "peer",
    message: typeof message === "string" ? message : "",
  };
}

/**
 * The call is alive. Resets the peer's liveness limit. `n` is the number of the next chunk, from a side that sends
 * some: it shows the loss of the last ones. `to`: a subject of the serving instance, for this caller.
 */
export function encodeProgress(n?: number, to?: string): Buffer {
  const head: { n?: number; to?: string } = {};
  if (n !== undefined) head.n = n;
  if (to !== undefined) head.to = to;
  return encode(FrameKind.progress, head, noBody);
}

/** Asks all instances of an app which of these calls, named by their reply subjects, they have. */
export function encodeProbe(ids: readonly string[]): Buffer {
  return encode(FrameKind.probe, { ids }, noBody);
}

/** Reply subjects in a probe. */
export function readIds(frame: Frame): string[] {
  const { ids } = frame.head;
  return Array.isArray(ids) ? ids.filter((id): id is string => typeof id === "string") : [];
}

/** The request has arrived; its chunks go to the subject `to`. */
export function encodeAccept(to: string): Buffer {
  return encode(FrameKind.accept, { to }, noBody);
}

/** Part `n` (from 0) of a body. */
export function encodeChunk(n: number, body: Uint8Array): Buffer {
  return encode(FrameKind.chunk, { n }, body);
}

/** The same as one or two pieces that follow each other in the message: a large body is not copied. */
export function chunkPieces(n: number, body: Uint8Array): [Uint8Array, Uint8Array?] {
  return body.length < apartBytes
    ? [encode(FrameKind.chunk, { n }, body)]
    : [encode(FrameKind.chunk, { n }, noBody), body];
}

/** The body is complete with the chunks before `n`. */
export function encodeEnd(n: number, trailers: readonly string[]): Buffer {
  return encode(FrameKind.end, trailers.length === 0 ? { n } : { n, trailers }, noBody);
}

/** The receiver takes `total` bytes of chunks, counted from the beginning of the stream. */
export function encodeCredit(total: number): Buffer {
  return encode(FrameKind.credit, { total }, noBody);
}

/** Number in the head of a chunk, end, credit or progress frame. Throws MeshError `protocol` when it is none. */
export function readCount(frame: Frame, name: "n" | "total"): number {
  const value = frame.head[name];
  if (isCount(value)) return value;
  throw new MeshError("protocol", `frame kind ${frame.kind} needs the whole number ${name}`);
}

export function readTrailers(frame: Frame): string[] {
  return readHeaders(frame.head["trailers"]);
}

/** The instance subject in an accept or a streamed response; undefined when there is none. */
export function readTo(frame: Frame): string | undefined {
  const { to } = frame.head;
  return typeof to === "string" ? to : undefined;
}

/** `id` is the reply subject of the call that is given up. */
export function encodeCancel(id: string): Buffer {
  return encode(FrameKind.cancel, { id }, noBody);
}
