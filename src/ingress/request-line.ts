/**
 * Request lines that node's HTTP/1.1 parser refuses and Go's does not: verbs that it does not know, and paths with
 * bytes above 127, as curl sends them. The connection goes on under another parser, which sees a verb that it knows and
 * that no route has (invocation sends such verbs on as POST), or the bytes in percent form.
 */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";

/** Known to node, and in no route of ours. */
const standIn = Buffer.from("PROPFIND");
/** Takeovers of one connection, one inside the other; a client that goes on gets a refusal. */
const maxDepth = 16;

/** A verb is a token; the bytes of a request line tell no more than where it ends. */
const verb = /^[!#$%&'*+.^_`|~\w-]{1,32} /;

/** What node's parser says of such a line. `rawPacket` is what it stumbled over. */
export type ClientError = NodeJS.ErrnoException & { readonly rawPacket?: Buffer };

/**
 * The connection as the next parser shall see it; undefined when it cannot be saved, as when the packet does not begin
 * with the request.
 */
export function mended(socket: Duplex, { code, rawPacket }: ClientError): Duplex | undefined {
  const depth = socket instanceof MendedSocket ? socket.depth + 1 : 1;
  if (rawPacket === undefined || depth > maxDepth) return undefined;
  const mend =
    code === "HPE_INVALID_METHOD" ? withKnownVerb : code === "HPE_INVALID_URL" ? escaped : undefined;
  const first = mend?.(rawPacket);
  return first === undefined ? undefined : new MendedSocket(socket, first, depth);
}

function withKnownVerb(packet: Buffer): Buffer | undefined {
  const found = verb.exec(packet.toString("latin1", 0, 64));
  return found === null ? undefined : Buffer.concat([standIn, packet.subarray(found[0].length - 1)]);
}

const above127 = /[\u0080-\u00ff]/g;

function escaped(packet: Buffer): Buffer | undefined {
  const end = packet.indexOf("\r\n");
  const line = packet.toString("latin1", 0, Math.max(0, end));
  if (!/^[A-Z]+ \//.test(line) || line.search(above127) < 0) return undefined;
  const percent = line.replace(above127, (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase()}`);
  return Buffer.concat([Buffer.from(percent, "latin1"), packet.subarray(end)]);
}

class MendedSocket extends Duplex {
  readonly depth: number;
  readonly #socket: Duplex;

  constructor(socket: Duplex, first: Buffer, depth: number) {
    super();
    this.#socket = socket;
    this.depth = depth;
    // The first parser reads no more. Its other listeners stay: they free it when the connection closes.
    socket.removeAllListeners("data").removeAllListeners("end");
    // Nor does its time for the next request count, which has come.
    this.setTimeout(0);
    this.push(first);
    socket.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) socket.pause();
    });
    socket.once("end", () => this.push(null));
    socket.once("close", () => this.destroy());
    socket.on("error", () => this.destroy());
  }

  /** Idle connections end by the timer of the real socket, whose first parser still listens for it. */
  readonly setTimeout = (timeoutMs: number): this => {
    (this.#socket as Partial<Socket>).setTimeout?.(timeoutMs);
    return this;
  };

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
}
