/** HTTP/2 on the level of its frames, for what no library lets one send or see. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";

export const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
export const FrameType = { data: 0, headers: 1, rst: 3, settings: 4, continuation: 9 } as const;
export const endStream = 1;
export const endHeaders = 4;
const headBytes = 9;

export type Http2Frame = {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
};

export function http2Frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(headBytes);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

export const settings = http2Frame(FrameType.settings, 0, 0, Buffer.alloc(0));

/** RST_STREAM with the code CANCEL. */
export const reset = (stream: number): Buffer =>
  http2Frame(FrameType.rst, 0, stream, Buffer.from([0, 0, 0, 8]));

/** HPACK literals without indexing; names and values below 127 bytes. */
export function headerBlock(pairs: readonly string[]): Buffer {
  const parts: Buffer[] = [];
  for (let i = 0; i < pairs.length; i += 2) {
    const [name, value] = [Buffer.from(pairs[i]!), Buffer.from(pairs[i + 1]!)];
    parts.push(Buffer.from([0, name.length]), name, Buffer.from([value.length]), value);
  }
  return Buffer.concat(parts);
}

/** Header block of a gRPC call. */
export function callHeaders(path: string, more: readonly string[] = []): Buffer {
  const pseudo = [":method", "POST", ":scheme", "http", ":authority", "x", ":path", path];
  return headerBlock([...pseudo, "content-type", "application/grpc", "te", "trailers", ...more]);
}

export async function dial(port: number): Promise<Socket> {
  const socket = connect({ host: "127.0.0.1", port, noDelay: true });
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

/** Cuts what one side of a connection says into frames; `skipBytes` come before the first. */
export class FrameSplit {
  #held: Buffer = Buffer.alloc(0);
  #skipBytes: number;

  constructor(skipBytes: number) {
    this.#skipBytes = skipBytes;
  }

  push(chunk: Buffer): Http2Frame[] {
    const skipped = chunk.subarray(0, this.#skipBytes).length;
    this.#skipBytes -= skipped;
    let bytes = Buffer.concat([this.#held, chunk.subarray(skipped)]);
    const frames: Http2Frame[] = [];
    while (bytes.length >= headBytes && bytes.length >= headBytes + bytes.readUIntBE(0, 3)) {
      const end = headBytes + bytes.readUIntBE(0, 3);
      const payload = bytes.subarray(headBytes, end);
      frames.push({ type: bytes[3]!, flags: bytes[4]!, stream: bytes.readUInt32BE(5), payload });
      bytes = bytes.subarray(end);
    }
    this.#held = bytes;
    return frames;
  }
}
