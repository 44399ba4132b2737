/**
 * The connections of one HTTP port: HTTP/1.1 and, on the same port, HTTP/2 without TLS, told apart by the first bytes
 * of a connection or asked for by `Upgrade: h2c`. Limits of headers and times stand here.
 */
import { createServer, type IncomingMessage, type Server, ServerResponse } from "node:http";
import {
  createServer as createHttp2Server,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Clock } from "../../mesh/index.ts";
import type { Log } from "../telemetry/log.ts";
import { isH2cUpgrade, upgradeToH2c } from "./h2c-upgrade.ts";
import { NodeHttpCall } from "./node-call.ts";
import { sendHttp1, sendHttp2 } from "./http-reply.ts";
import type { HttpIngress } from "./http-steps.ts";
import { Http2Call } from "./http2-call.ts";
import { closeBehind, linger } from "./linger.ts";
import { listenOn, type ListenTarget } from "./listen.ts";
import { type ClientError, mended } from "./request-line.ts";
import { ShortConnections } from "./short/connection.ts";
import { isWebSocketUpgrade, WebSocketCall } from "./websocket.ts";

/** Time for a client to send its header, ms (Dapr's). */
const headerTimeoutMs = 10_000;
/** How often node looks for clients above that time, ms. */
const checkEveryMs = 2_000;
/** Idle keep-alive connections are kept this long, ms. */
const keepAliveMs = 120_000;
/** How often connections that got idle during the stop are closed, ms. */
const closeIdleEveryMs = 50;
/** Slack over the read buffer that Go's server grants, bytes. */
const headerSlackBytes = 4_096;
/** Above this node itself resets an HTTP/2 request; between it and the limit the client gets its 431. */
const maxHttp2HeaderBytes = 1024 * 1024;
/** Requests at once on one HTTP/2 connection; clients queue further ones themselves. */
const maxStreams = 1_000;
/** Memory that the streams of one HTTP/2 connection may queue before new ones are refused, MB. */
const maxSessionMb = 128;

export type HttpSocketsOptions = {
  readonly ingress: HttpIngress;
  readonly maxBodyBytes: number;
  readonly readBufferBytes: number;
  /** HTTP/2 without TLS. */
  readonly h2c: boolean;
  readonly clock: Clock;
  readonly log: Log;
};

/** node's own listener: gives a connection to a new parser. */
type ToParser = (this: Server, socket: Duplex) => void;

export class HttpSockets {
  readonly #options: HttpSocketsOptions;
  readonly #maxHeaderBytes: number;
  readonly #servers: Server[] = [];
  /** Where every connection begins, one for each server. */
  readonly #short: ShortConnections[] = [];
  readonly #sessions = new Set<ServerHttp2Session>();
  /** Connections that have not said yet what they speak. */
  readonly #undecided = new Set<Socket>();
  readonly #webSockets = new Set<Duplex>();
  /** Connections that go on under another parser (request-line.ts). */
  readonly #takenOver = new WeakSet<Duplex>();
  readonly #http2: Http2Server | undefined;
  #closing = false;

  constructor(options: HttpSocketsOptions) {
    this.#options = options;
    this.#maxHeaderBytes = options.readBufferBytes + headerSlackBytes;
    this.#http2 = options.h2c ? this.#createHttp2() : undefined;
  }

  /** Resolves with the port (0 for a socket file). Rejects when the address is taken. */
  async listen(target: ListenTarget): Promise<number> {
    const server = this.#createHttp1();
    const port = await listenOn(server, target);
    this.#servers.push(server);
    return port;
  }

  /** Stops accepting, waits for requests in flight up to `graceMs`, then closes the rest. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    const closed = this.#servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    const closeIdle = (): void => this.#servers.forEach((server) => server.closeIdleConnections());
    closeIdle();
    for (const short of this.#short) short.close();
    // A connection whose answer was on its way gets idle later, and would be kept for its next request.
    const idle = this.#options.clock.setInterval(closeIdle, closeIdleEveryMs);
    for (const session of this.#sessions) session.close();
    for (const socket of this.#undecided) socket.destroy();
    for (const socket of this.#webSockets) socket.end();
    const limit = this.#options.clock.setTimeout(() => {
      for (const server of this.#servers) server.closeAllConnections();
      for (const short of this.#short) short.destroy();
      for (const session of this.#sessions) session.destroy();
      for (const socket of this.#webSockets) socket.destroy();
    }, graceMs);
    await Promise.all(closed);
    limit.cancel();
    idle.cancel();
  }

  #createHttp1(): Server {
    const server = createServer({
      maxHeaderSize: this.#maxHeaderBytes,
      headersTimeout: headerTimeoutMs,
      requestTimeout: 0,
      connectionsCheckingInterval: checkEveryMs,
      keepAliveTimeout: keepAliveMs,
      joinDuplicateHeaders: true,
      shouldUpgradeCallback: (request) => this.#asksForH2c(request) || isWebSocketUpgrade(request),
    });
    // The size limit bounds their number; node's own limit of 1,000 would be another.
    server.maxHeadersCount = 0;
    const answer = (request: IncomingMessage, response: ServerResponse): void =>
      this.#answerHttp1(request, response);
    server.on("request", answer);
    // The client is told to go on when the body is asked for (http-call.ts).
    server.on("checkContinue", answer);
    server.on("connect", (request: IncomingMessage, socket: Duplex) => this.#answerConnect(request, socket));
    server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      if (this.#asksForH2c(request)) upgradeToH2c(this.#http2!, request, socket, head);
      else this.#answerWebSocket(request, socket, head);
    });
    const [toHttp1] = server.listeners("connection") as ToParser[];
    server.on("clientError", (error: ClientError, socket: Duplex) =>
      this.#onBadRequest(error, socket, (next) => toHttp1!.call(server, next)),
    );
    const http2 = this.#http2;
    const short = this.#createShort((socket) => {
      if (http2 === undefined) toHttp1!.call(server, socket);
      else this.#sniff(server, http2, toHttp1!, socket);
    });
    this.#short.push(short);
    server.removeAllListeners("connection");
    server.on("connection", (socket: Socket) => short.take(socket));
    return server;
  }

  #createShort(leave: (socket: Socket) => void): ShortConnections {
    const { ingress, maxBodyBytes, clock, log } = this.#options;
    return new ShortConnections({
      answer: (call, send) => ingress.answer(call, send),
      leave,
      maxHeaderBytes: this.#maxHeaderBytes,
      maxBodyBytes,
      firstBytesMs: headerTimeoutMs,
      keepAliveMs,
      clock,
      log,
    });
  }

  /** What Go's parser takes is no bad request. */
  #onBadRequest(error: ClientError, socket: Duplex, parse: (socket: Duplex) => void): void {
    // The parser that was left behind may still complain, e.g. about its time.
    if (this.#takenOver.has(socket)) return;
    const next = mended(socket, error);
    if (next === undefined) return refuse(error, socket, this.#options.clock);
    this.#takenOver.add(socket);
    parse(next);
  }

  #asksForH2c(request: IncomingMessage): boolean {
    return this.#http2 !== undefined && isH2cUpgrade(request);
  }

  /** A tunnel has no end of its own, so a stop ends it (`close`). */
  #answerWebSocket(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#webSockets.add(socket);
    socket.once("close", () => this.#webSockets.delete(socket));
    const call = new WebSocketCall(request, socket, head, this.#options.maxBodyBytes);
    this.#options.ingress
      .answer(call, (reply) => call.send(reply))
      .catch((error: unknown) => {
        this.#failed(error);
        socket.destroy();
      });
  }

  #answerHttp1(request: IncomingMessage, response: ServerResponse): void {
    const call = new NodeHttpCall(request, response, request.url ?? "/", this.#options.maxBodyBytes);
    const answered = this.#options.ingress.answer(call, (reply, verb) => {
      if ((this.#closing || call.bodyRefused) && !response.headersSent) response.shouldKeepAlive = false;
      linger(call, response, this.#options.clock);
      return sendHttp1(response, reply, verb);
    });
    answered.catch((error: unknown) => {
      this.#failed(error);
      response.destroy();
    });
  }

  /** node gives no response for CONNECT; it is answered like any other request. */
  #answerConnect(request: IncomingMessage, socket: Duplex): void {
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    socket.on("error", () => {});
    response.assignSocket(socket as Socket);
    response.once("finish", () => closeBehind("", socket, this.#options.clock));
    this.#answerHttp1(request, response);
  }

  /** Hands a connection to the server of the protocol that its first bytes show. */
  #sniff(server: Server, http2: Http2Server, toHttp1: ToParser, socket: Socket): void {
    this.#undecided.add(socket);
    firstBytes(socket, (isHttp2) => {
      this.#undecided.delete(socket);
      if (isHttp2) http2.emit("connection", socket);
      else toHttp1.call(server, socket);
    });
    socket.once("close", () => this.#undecided.delete(socket));
  }

  #createHttp2(): Http2Server {
    const server = createHttp2Server({
      maxSessionMemory: maxSessionMb,
      strictSingleValueFields: false,
      settings: { maxConcurrentStreams: maxStreams, maxHeaderListSize: maxHttp2HeaderBytes },
    } as Parameters<typeof createHttp2Server>[0] & { strictSingleValueFields: boolean });
    server.on("session", (session) => {
      this.#sessions.add(session);
      session.once("close", () => this.#sessions.delete(session));
      // A client that is gone may have said no more than this; HTTP/2 has no use for half a connection.
      session.socket.once("end", () => session.destroy());
    });
    server.on("sessionError", (error) =>
      this.#options.log.debug(`HTTP/2 connection ended: ${error.message}`),
    );
    const answer = (request: Http2ServerRequest, response: Http2ServerResponse): void =>
      this.#answerHttp2(request, response);
    server.on("request", answer);
    server.on("checkContinue", answer);
    return server;
  }

  #answerHttp2(request: Http2ServerRequest, response: Http2ServerResponse): void {
    const { stream } = request;
    stream.on("error", () => {});
    if (headerBytes(request.rawHeaders) > this.#maxHeaderBytes) {
      return stream.respond({ ":status": 431 }, { endStream: true });
    }
    const call = new Http2Call(request, response, request.url || "/", this.#options.maxBodyBytes);
    const answered = this.#options.ingress.answer(call, async (reply, verb) => {
      const sizeBytes = await sendHttp2(stream, reply, verb);
      // An unread body would keep the stream, and so the connection, for ever.
      if (!stream.readableEnded) stream.resume();
      return sizeBytes;
    });
    answered.catch((error: unknown) => {
      this.#failed(error);
      stream.destroy();
    });
  }

  #failed(error: unknown): void {
    this.#options.log.error(`HTTP answer failed: ${error instanceof Error ? error.stack : String(error)}`);
  }
}

const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** Reads until the bytes tell the protocol, puts them back and says which it is. Silent clients are cut off in time. */
function firstBytes(socket: Socket, decided: (isHttp2: boolean) => void): void {
  let seen: Buffer = Buffer.alloc(0);
  const drop = (): void => void socket.destroy();
  const take = (chunk: Buffer): void => {
    seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
    const length = Math.min(seen.length, preface.length);
    const isHttp2 = seen.compare(preface, 0, length, 0, length) === 0;
    if (isHttp2 && length < preface.length) return;
    socket.off("data", take).off("error", drop).off("timeout", drop).off("end", drop);
    socket.setTimeout(0);
    socket.pause();
    socket.unshift(seen);
    decided(isHttp2);
    if (!isHttp2) socket.resume();
  };
  socket.on("data", take).on("error", drop).on("timeout", drop).on("end", drop);
  socket.setTimeout(headerTimeoutMs);
}

/** Answers what is no HTTP, or too much of it, and ends the connection. */
function refuse(error: ClientError, socket: Duplex, clock: Clock): void {
  if (!socket.writable) return void socket.destroy();
  const unknownVerb = error.code === "HPE_INVALID_METHOD" && /^[\w-]+ /.test(String(error.rawPacket));
  const line = unknownVerb ? "501 Not Implemented" : (refusals[error.code ?? ""] ?? "400 Bad Request");
  const head = `HTTP/1.1 ${line}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close`;
  closeBehind(`${head}\r\n\r\n${line}`, socket, clock);
}

/** By node's error code. */
const refusals: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: "431 Request Header Fields Too Large",
  ERR_HTTP_REQUEST_TIMEOUT: "408 Request Timeout",
};

function headerBytes(raw: readonly string[]): number {
  let size = 0;
  for (const item of raw) size += item.length + 2;
  return size;
}
