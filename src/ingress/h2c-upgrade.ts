/**
 * `Upgrade: h2c` (RFC 7540, 3.2): the request that asks is answered as stream 1 of the HTTP/2 connection that follows.
 * node:http2 can only begin with a preface, so the request is put into the client's bytes, as a HEADERS frame behind
 * the client's first SETTINGS.
 */
import type { IncomingMessage } from "node:http";
import type { Http2Server } from "node:http2";
import { Duplex } from "node:stream";

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
const prefaceBytes = 24;
const frameHeadBytes = 9;
/** Payload of one frame until settings say otherwise, bytes. */
const maxFrameBytes = 16_384;

/** True for requests that may go on over HTTP/2. One with a body is answered over HTTP/1.1, as the RFC allows. */
export function isH2cUpgrade({ headers }: IncomingMessage): boolean {
  const bare = headers["content-length"] === undefined && headers["transfer-encoding"] === undefined;
  return headers.upgrade?.toLowerCase() === "h2c" && headers["http2-settings"] !== undefined && bare;
}

/** Switches the connection over. `head` are bytes that came behind the request. */
export function upgradeToH2c(
  http2: Http2Server,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): void {
  socket.on("error", () => socket.destroy());
  const frame = headersFrame(request);
  if (frame === undefined) {
    const line = "431 Request Header Fields Too Large";
    return void socket.end(`HTTP/1.1 ${line}\r\nConnection: close\r\n\r\n`);
  }
  socket.write(switching);
  http2.emit("connection", new UpgradedSocket(socket, head, frame));
}

/** The client's bytes with one frame added; the other way nothing changes. */
class UpgradedSocket extends Duplex {
  readonly #socket: Duplex;
  #frame: Buffer | undefined;
  /** Bytes before the place of the frame; empty once it is in. */
  #waiting: Buffer;

  constructor(socket: Duplex, head: Buffer, frame: Buffer) {
    super();
    this.#socket = socket;
    this.#frame = frame;
    this.#waiting = Buffer.alloc(0);
    if (head.length > 0) this.#take(head);
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.once("end", () => this.push(null));
    socket.once("close", () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(_error: Error | null, done: () => void): void {
    this.#socket.destroy();
    done();
  }

  #take(chunk: Buffer): void {
    if (this.#frame === undefined) return this.#pass(chunk);
    this.#waiting = Buffer.concat([this.#waiting, chunk]);
    const bytes = this.#waiting;
    if (bytes.length < prefaceBytes + frameHeadBytes) return;
    const settings = bytes.readUIntBE(prefaceBytes, 3);
    if (settings > maxFrameBytes) return void this.destroy();
    const place = prefaceBytes + frameHeadBytes + settings;
    if (bytes.length < place) return;
    const frame = this.#frame;
    this.#frame = undefined;
    this.#waiting = Buffer.alloc(0);
    this.#pass(Buffer.concat([bytes.subarray(0, place), frame, bytes.subarray(place)]));
  }

  #pass(chunk: Buffer): void {
    if (!this.push(chunk)) this.#socket.pause();
  }
}

/** Headers of the HTTP/1.1 hop. */
const notForwarded = new Set([
  "connection",
  "upgrade",
  "http2-settings",
  "host",
  "keep-alive",
  "proxy-connection",
  "te",
]);

/** HEADERS of stream 1 with END_STREAM; undefined when they do not fit one frame. */
export function headersFrame(request: IncomingMessage): Buffer | undefined {
  const block: Buffer[] = [];
  const add = (name: string, value: string): void => void block.push(literal(name, value));
  add(":method", request.method ?? "GET");
  add(":scheme", "http");
  add(":path", request.url ?? "/");
  add(":authority", request.headers.host ?? "");
  const raw = request.rawHeaders;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    if (!notForwarded.has(name)) add(name, raw[i + 1]!);
  }
  const payload = Buffer.concat(block);
  if (payload.length > maxFrameBytes) return undefined;
  const head = Buffer.alloc(frameHeadBytes);
  head.writeUIntBE(payload.length, 0, 3);
  // Type HEADERS, flags END_STREAM and END_HEADERS, stream 1.
  head.writeUInt8(1, 3);
  head.writeUInt8(0x05, 4);
  head.writeUInt32BE(1, 5);
  return Buffer.concat([head, payload]);
}

/** A header field in HPACK that leaves the client's table alone: literal, not indexed, not compressed. */
function literal(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0]), text(name), text(value)]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, "latin1");
  return Buffer.concat([hpackLength(bytes.length), bytes]);
}

/** An HPACK integer behind a 7-bit prefix whose first bit is 0. */
export function hpackLength(length: number): Buffer {
  if (length < 127) return Buffer.from([length]);
  const parts = [127];
  let rest = length - 127;
  for (; rest >= 128; rest = Math.floor(rest / 128)) parts.push((rest % 128) + 128);
  parts.push(rest);
  return Buffer.from(parts);
}
