/**
 * A client that asks to go on in WebSocket. The request takes the way of every request; what the client sends behind it
 * is the body, and a reply with status 101 makes the connection a tunnel. The bytes are not looked at.
 */
import { type IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { BodyQueue } from "../../mesh/index.ts";
import type { HttpReply } from "../api/http.ts";
import { NodeHttpCall } from "./node-call.ts";
import { sendHttp1, writeBody } from "./http-reply.ts";

/** The client's socket is paused above this, bytes. */
const highWaterBytes = 128 * 1024;

export function isWebSocketUpgrade({ method, headers }: IncomingMessage): boolean {
  return method === "GET" && headers.upgrade?.toLowerCase() === "websocket";
}

export class WebSocketCall extends NodeHttpCall {
  readonly upgrade = "websocket";
  readonly #socket: Duplex;
  readonly #head: Buffer;
  readonly #response: ServerResponse;

  /** `head` are bytes that came behind the request. */
  constructor(request: IncomingMessage, socket: Duplex, head: Buffer, maxBodyBytes: number) {
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    socket.on("error", () => {});
    response.assignSocket(socket as Socket);
    super(request, response, request.url ?? "/", maxBodyBytes);
    this.#socket = socket;
    this.#head = head;
    this.#response = response;
  }

  /** Everything that the client sends, until it ends its side. */
  override content(): Promise<BodyQueue> {
    const socket = this.#socket;
    const onTaken = (): void => {
      if (queue.bufferedBytes < highWaterBytes / 2) socket.resume();
    };
    const queue = new BodyQueue({ onTaken, onCancel: () => socket.resume() });
    queue.push(this.#head);
    socket.on("data", (chunk: Buffer) => {
      queue.push(chunk);
      if (queue.bufferedBytes >= highWaterBytes && queue.failure === undefined) socket.pause();
    });
    socket.once("end", () => queue.end());
    socket.once("close", () => queue.fail(new Error("the client went away")));
    return Promise.resolve(queue);
  }

  /** Resolves with the bytes sent to the client once the tunnel is over, or the refusal is written. */
  async send(reply: HttpReply): Promise<number> {
    const { body } = reply;
    if (reply.status !== 101 || typeof body !== "object" || body instanceof Uint8Array) {
      this.#response.once("finish", () => this.#socket.end());
      const sizeBytes = await sendHttp1(this.#response, reply, this.verb);
      this.#socket.resume();
      return sizeBytes;
    }
    const socket = this.#socket;
    const lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket"];
    const raw = reply.rawHeaders ?? [];
    for (let i = 0; i + 1 < raw.length; i += 2) lines.push(`${raw[i]}: ${raw[i + 1]}`);
    socket.write(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
    return writeBody(
      body,
      socket,
      () => {},
      () => socket.destroy(),
    );
  }
}
