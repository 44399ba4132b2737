/** Replies on a connection of short requests, as the bytes that node:http would write, in as few writes as may be. */
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { BodyStream } from "../../../mesh/index.ts";
import type { HttpReply } from "../../api/http.ts";
import { isFieldValue, isToken } from "../../lib/http-field.ts";
import { writeWhole } from "../../lib/write-whole.ts";
import { type BodySink, isBodiless, isStream, writeBody } from "../http-reply.ts";

/** The sidecar frames its answers itself. */
const framingNames = new Set([
  "connection",
  "keep-alive",
  "content-length",
  "transfer-encoding",
  "trailer",
  "upgrade",
]);

/** What ends every head: `Date`, and whether there may be a next request. */
export type Ending = { readonly date: string; readonly connection: string };

/**
 * Writes a reply. The number of body bytes sent, once all is handed to the socket or the client is gone. Throws for
 * headers that cannot be written.
 */
export function sendShort(socket: Socket, reply: HttpReply, ending: Ending): number | Promise<number> {
  const { status, body } = reply;
  const bodiless = isBodiless(status, "GET");
  if (isStream(body)) {
    if (!bodiless) return sendStream(socket, headOf(reply, "Transfer-Encoding: chunked\r\n", ending), body);
    body.cancel(new Error("this answer has no body"));
  } else if (!bodiless && body !== undefined && body.length > 0) {
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    writeWhole(socket, headOf(reply, `Content-Length: ${bytes.length}\r\n`, ending), bytes);
    return bytes.length;
  }
  socket.write(headOf(reply, bodiless ? "" : "Content-Length: 0\r\n", ending), "latin1");
  return 0;
}

/** What is there of the body goes out in one packet with the head. */
function sendStream(socket: Socket, head: string, body: BodyStream): Promise<number> {
  socket.cork();
  socket.write(head, "latin1");
  const flushHead = (): void => {};
  const sent = writeBody(body, new ChunkedSink(socket), flushHead, () => socket.resetAndDestroy());
  socket.uncork();
  return sent;
}

function headOf({ status, headers, rawHeaders }: HttpReply, length: string, ending: Ending): string {
  let text = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "unknown"}\r\n`;
  let dated = false;
  const add = (name: string, value: string): void => {
    const lower = name.toLowerCase();
    if (framingNames.has(lower)) return;
    if (!isToken(name) || !isFieldValue(value))
      throw new TypeError(`the header ${JSON.stringify(name)} of an answer cannot be written`);
    dated ||= lower === "date";
    text += `${name}: ${value}\r\n`;
  };
  if (rawHeaders !== undefined)
    for (let i = 0; i + 1 < rawHeaders.length; i += 2) add(rawHeaders[i]!, rawHeaders[i + 1]!);
  for (const name in headers) {
    const value = headers[name]!;
    if (typeof value === "string") add(name, value);
    else for (const item of value) add(name, item);
  }
  return `${text}${length}${dated ? "" : ending.date}${ending.connection}\r\n`;
}

/** A body of unknown length, piece by piece. Its listeners leave the connection when it ends. */
class ChunkedSink implements BodySink {
  readonly #socket: Socket;
  readonly #onClose: (() => void)[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  get destroyed(): boolean {
    return this.#socket.destroyed;
  }

  write(piece: Uint8Array): boolean {
    if (piece.length === 0) return true;
    this.#socket.cork();
    this.#socket.write(`${piece.length.toString(16)}\r\n`, "latin1");
    this.#socket.write(piece);
    const ready = this.#socket.write("\r\n", "latin1");
    this.#socket.uncork();
    return ready;
  }

  end(): void {
    this.#socket.write("0\r\n\r\n", "latin1");
    for (const listener of this.#onClose) this.#socket.off("close", listener);
  }

  once(event: "close" | "drain", listener: () => void): void {
    if (event === "close") this.#onClose.push(listener);
    this.#socket.once(event, listener);
  }

  off(event: "close" | "drain", listener: () => void): void {
    this.#socket.off(event, listener);
  }
}
