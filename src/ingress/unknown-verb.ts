/**
 * Requests with a verb that node's HTTP/1.1 parser does not know and therefore refuses. Their connection goes on under
 * another parser, which sees a verb that it knows and that no route has; invocation sends such verbs on as POST.
 */
import { Duplex } from "node:stream";

/** Known to node, and in no route of ours. */
const standIn = Buffer.from("PROPFIND");
/** Takeovers of one connection, one inside the other; a client that goes on gets a refusal. */
const maxDepth = 16;

/** A verb is a token; the bytes of a request line tell no more than where it ends. */
const verb = /^[!#$%&'*+.^_`|~\w-]{1,32} /;

/**
 * The connection as the next parser shall see it; undefined when it cannot be saved. `packet` is what the first parser
 * stumbled over: it must begin with the request.
 */
export function withKnownVerb(socket: Duplex, packet: Buffer | undefined): Duplex | undefined {
  const found = verb.exec(packet?.toString("latin1", 0, 64) ?? "");
  const depth = socket instanceof RenamedSocket ? socket.depth + 1 : 1;
  if (found === null || depth > maxDepth) return undefined;
  const rest = packet!.subarray(found[0].length - 1);
  return new RenamedSocket(socket, Buffer.concat([standIn, rest]), depth);
}

class RenamedSocket extends Duplex {
  readonly depth: number;
  readonly #socket: Duplex;

  constructor(socket: Duplex, first: Buffer, depth: number) {
    super();
    this.#socket = socket;
    this.depth = depth;
    // The first parser reads no more. Its other listeners stay: they free it when the connection closes.
    socket.removeAllListeners("data").removeAllListeners("end");
    this.push(first);
    socket.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) socket.pause();
    });
    socket.once("end", () => this.push(null));
    socket.once("close", () => this.destroy());
    socket.on("error", () => this.destroy());
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
}
