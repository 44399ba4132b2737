/**
 * WebSockets to the app (or to a server outside): a connection of its own for each, on which the handshake goes as the
 * client wrote it. After 101 it is a tunnel of bytes, and each side's end is passed on.
 */
import { type IncomingMessage, request as sendRequest } from "node:http";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { BodyQueue, type BodyStream, type MeshResponse } from "../../mesh/index.ts";
import { forwardResponseHeaders } from "./headers.ts";
import type { HttpAppOptions } from "./http.ts";
import { asError } from "../lib/thrown.ts";

/** The app's socket is paused above this, bytes. */
const highWaterBytes = 128 * 1024;
/** Largest body of an app that refuses the upgrade, bytes. */
const maxRefusalBytes = 1024 * 1024;
/** Longest time for dial and handshakes of TLS, ms. */
const connectTimeoutMs = 10_000;

/** A tunnel that is open. */
export type Tunnel = {
  /** Ends our side; the app's end follows. */
  end(): void;
};

export type TunnelOptions = Pick<
  HttpAppOptions,
  "scheme" | "host" | "port" | "maxHeaderBytes" | "connect" | "clock"
> & {
  readonly signal: AbortSignal;
  readonly onOpen: (tunnel: Tunnel) => void;
  /** Called once, when the connection to the app is closed. */
  readonly onClose: (tunnel: Tunnel) => void;
};

/**
 * Resolves with the app's answer: 101 and a body that is the app's side of the tunnel, or its refusal. Rejects with the
 * error of the network when there is none. `headers` are complete but for Host, Connection and Upgrade.
 */
export async function openTunnel(
  path: string,
  headers: readonly string[],
  body: BodyStream,
  options: TunnelOptions,
): Promise<MeshResponse> {
  const socket = await connectTo(options);
  const { signal, maxHeaderBytes } = options;
  const abort = (): void => void socket.destroy(asError(signal.reason));
  signal.addEventListener("abort", abort, { once: true });
  socket.once("close", () => signal.removeEventListener("abort", abort));
  if (signal.aborted) abort();
  return new Promise((resolve, reject) => {
    const request = sendRequest({
      createConnection: () => socket,
      method: "GET",
      path,
      headers: [...headers, "Host", authority(options), "Connection", "Upgrade", "Upgrade", "websocket"],
      maxHeaderSize: maxHeaderBytes,
    });
    request.once("error", reject);
    request.once("upgrade", (answer: IncomingMessage, _socket: Socket, head: Buffer) => {
      if (answer.statusCode !== 101)
        return reject(new Error(`the app upgraded with status ${answer.statusCode}`));
      const answered = tunnel(socket, head, body, options);
      resolve({ status: 101, headers: forwardResponseHeaders(answer.rawHeaders), body: answered });
    });
    request.once("response", (answer) => {
      body.cancel(new Error("the app refused the upgrade"));
      refusal(answer).then(resolve, reject);
    });
    request.end();
  });
}

function tunnel(socket: Socket, head: Buffer, body: BodyStream, options: TunnelOptions): BodyStream {
  const open: Tunnel = { end: () => void socket.end() };
  const onTaken = (): void => {
    if (queue.bufferedBytes < highWaterBytes / 2) socket.resume();
  };
  const queue = new BodyQueue({ onTaken, onCancel: (reason) => void socket.destroy(reason) });
  queue.push(head);
  socket.on("data", (chunk: Buffer) => {
    queue.push(chunk);
    if (queue.bufferedBytes >= highWaterBytes) socket.pause();
  });
  socket.once("end", () => queue.end());
  socket.on("error", (error) => queue.fail(error));
  socket.once("close", () => {
    queue.fail(new Error("the app closed the connection"));
    options.onClose(open);
  });
  options.onOpen(open);
  void pump(body, socket);
  return queue;
}

/** Writes as fast as the app reads; the client's end becomes ours. */
async function pump(body: BodyStream, socket: Socket): Promise<void> {
  try {
    for await (const piece of body) {
      if (socket.destroyed) return;
      if (!socket.write(piece)) await drained(socket);
    }
    socket.end();
  } catch (error) {
    socket.destroy(asError(error));
  }
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off("drain", done).off("close", done);
      resolve();
    };
    if (socket.destroyed) return resolve();
    socket.once("drain", done).once("close", done);
  });
}

async function refusal(answer: IncomingMessage): Promise<MeshResponse> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxRefusalBytes) throw new Error(`the app's refusal is above ${maxRefusalBytes} bytes`);
    chunks.push(chunk);
  }
  answer.socket.destroy();
  return {
    status: answer.statusCode ?? 500,
    headers: forwardResponseHeaders(answer.rawHeaders),
    body: Buffer.concat(chunks, size),
  };
}

function connectTo({ scheme, host, port, connect, clock }: TunnelOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (connect !== undefined) {
      const where = { hostname: host, port: String(port), protocol: `${scheme}:` };
      return connect(where, (error, socket) => (error === null ? resolve(socket) : reject(error)));
    }
    const tls = scheme === "https";
    const socket = tls
      ? connectTls({ host, port, rejectUnauthorized: false, ALPNProtocols: ["http/1.1"] })
      : connectTcp({ host, port });
    socket.setNoDelay(true).setKeepAlive(true, 60_000);
    const late = (): void => void socket.destroy(timeoutError());
    const timer = clock.setTimeout(late, connectTimeoutMs);
    socket.once("error", (error) => {
      timer.cancel();
      reject(error);
    });
    socket.once(tls ? "secureConnect" : "connect", () => {
      timer.cancel();
      resolve(socket);
    });
  });
}

function authority({ scheme, host, port }: TunnelOptions): string {
  const name = host.includes(":") ? `[${host}]` : host;
  return port === (scheme === "https" ? 443 : 80) ? name : `${name}:${port}`;
}

function timeoutError(): Error {
  const error: NodeJS.ErrnoException = new Error("i/o timeout");
  error.code = "ETIMEDOUT";
  return error;
}
