/**
 * Messages of a gRPC stream: the five-byte prefix (compressed flag, length), cut out of chunks of any size.
 * Nothing here knows sockets; the server (ingress) and the client (app) share it.
 */
import { constants } from "node:buffer";
import { gunzip } from "node:zlib";

const prefixBytes = 5;
/** So many tiny chunks in a row are joined, so that a message sent byte by byte costs bytes and not objects. */
const joinChunks = 1024;
const tinyChunkBytes = 256;

/** Codes that broken framing ends in (google.rpc.Code). */
const resourceExhausted = 8;
const internal = 13;

/** Broken or too large wire data. `code` is the gRPC status code it ends the call with. */
export class GrpcWireError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.name = "GrpcWireError";
    this.code = code;
  }
}

export type GrpcFrame = { readonly compressed: boolean; readonly bytes: Buffer };

/** Cuts chunks into messages. Holds at most one message and one chunk as long as `next` is called after each push. */
export class FrameReader {
  readonly #maxMessageBytes: number;
  #chunks: Buffer[] = [];
  #bufferedBytes = 0;
  /** Trailing tiny chunks since the last join. */
  #tinyChunks = 0;
  #compressed = false;
  /** Length of the message that is coming; -1 while its prefix is not complete. */
  #lengthBytes = -1;

  constructor(maxMessageBytes: number) {
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Takes ownership of the chunk; messages may be views into it. */
  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#bufferedBytes += chunk.length;
    this.#tinyChunks = chunk.length <= tinyChunkBytes ? this.#tinyChunks + 1 : 0;
    if (this.#tinyChunks >= joinChunks) {
      const tail = this.#chunks.splice(this.#chunks.length - this.#tinyChunks, this.#tinyChunks);
      this.#chunks.push(Buffer.concat(tail));
      this.#tinyChunks = 0;
    }
  }

  /** The next whole message; undefined until more is pushed. Throws GrpcWireError for a bad or too large one. */
  next(): GrpcFrame | undefined {
    if (this.#lengthBytes < 0) {
      if (this.#bufferedBytes < prefixBytes) return undefined;
      const prefix = this.#take(prefixBytes);
      const flag = prefix[0]!;
      if (flag > 1) throw new GrpcWireError(internal, `grpc: received unexpected payload format ${flag}`);
      const lengthBytes = prefix.readUInt32BE(1);
      if (lengthBytes > this.#maxMessageBytes) throw receivedTooLarge(lengthBytes, this.#maxMessageBytes);
      this.#compressed = flag === 1;
      this.#lengthBytes = lengthBytes;
    }
    if (this.#bufferedBytes < this.#lengthBytes) return undefined;
    const bytes = this.#take(this.#lengthBytes);
    this.#lengthBytes = -1;
    return { compressed: this.#compressed, bytes };
  }

  /** Whether a message has begun that is not complete. */
  get partial(): boolean {
    return this.#lengthBytes >= 0 || this.#bufferedBytes > 0;
  }

  #take(bytes: number): Buffer {
    this.#bufferedBytes -= bytes;
    const first = this.#chunks[0];
    if (first === undefined) return Buffer.alloc(0);
    if (first.length >= bytes) {
      if (first.length === bytes) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(bytes);
      this.#tinyChunks = Math.min(this.#tinyChunks, this.#chunks.length);
      return first.subarray(0, bytes);
    }
    return this.#gather(bytes);
  }

  #gather(bytes: number): Buffer {
    const target = Buffer.allocUnsafe(bytes);
    let filled = 0;
    let used = 0;
    while (filled < bytes) {
      const chunk = this.#chunks[used]!;
      const copied = chunk.copy(target, filled, 0, bytes - filled);
      filled += copied;
      if (copied === chunk.length) used++;
      else this.#chunks[used] = chunk.subarray(copied);
    }
    this.#chunks.splice(0, used);
    this.#tinyChunks = Math.min(this.#tinyChunks, this.#chunks.length);
    return target;
  }
}

/** One uncompressed message with its prefix. */
export function encodeFrame(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(prefixBytes + message.length);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, prefixBytes);
  return frame;
}

/** ResourceExhausted for a message whose prefix announces too much. */
export function receivedTooLarge(bytes: number, maxBytes: number): GrpcWireError {
  return new GrpcWireError(
    resourceExhausted,
    `grpc: received message larger than max (${bytes} vs. ${maxBytes})`,
  );
}

/** ResourceExhausted for a message that we may not send. */
export function sentTooLarge(bytes: number, maxBytes: number): GrpcWireError {
  return new GrpcWireError(
    resourceExhausted,
    `grpc: trying to send message larger than max (${bytes} vs. ${maxBytes})`,
  );
}

/**
 * The message inside a frame. `encoding` is the peer's grpc-encoding. Rejects with GrpcWireError when the flag has no
 * encoding to it, the data is damaged, or it grows above `maxBytes`.
 */
export async function openFrame(
  frame: GrpcFrame,
  encoding: string | undefined,
  maxBytes: number,
): Promise<Uint8Array> {
  if (!frame.compressed) return frame.bytes;
  if (encoding !== "gzip") {
    throw new GrpcWireError(internal, "grpc: compressed flag set with identity or empty encoding");
  }
  return new Promise((resolve, reject) => {
    // No limit (`--max-body-size=0`) is Infinity, which zlib refuses.
    const maxOutputLength = Math.min(Math.max(1, maxBytes), constants.MAX_LENGTH);
    gunzip(frame.bytes, { maxOutputLength }, (error, bytes) => {
      if (error === null) resolve(bytes);
      else if ((error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") {
        const text = `grpc: received message after decompression larger than max ${maxBytes}`;
        reject(new GrpcWireError(resourceExhausted, text));
      } else
        reject(
          new GrpcWireError(internal, `grpc: failed to decompress the received message: ${error.message}`),
        );
    });
  });
}

/** Whether we can read a peer's messages under this grpc-encoding. */
export function knownEncoding(encoding: string | undefined): boolean {
  return encoding === undefined || encoding === "" || encoding === "identity" || encoding === "gzip";
}
