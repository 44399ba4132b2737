/**
 * The HTTP port: sockets, the shared steps in written order, and the one place that turns a reply or a thrown value
 * into bytes. Steps of a request: clean path -> token -> route -> block -> reply -> metrics -> API log.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { BodyStream, Clock } from "../../mesh/index.ts";
import { httpErrorBody, toApiError } from "../api/errors.ts";
import type { HttpCall, HttpReply, HttpRoute } from "../api/http.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { NodeHttpCall } from "./http-call.ts";
import { listenOn, type ListenTarget } from "./listen.ts";
import { BadEscape, cleanPath, Router } from "./router.ts";

/** Time for a client to send its header, ms (Dapr's). */
const headerTimeoutMs = 10_000;
/** Idle keep-alive connections are kept this long, ms. */
const keepAliveMs = 120_000;
/** A client that still sends its body after the answer may go on this long before it is cut off, ms. */
const lingerMs = 2_000;
/** Slack over the read buffer that Go's server grants, bytes. */
const headerSlackBytes = 4_096;

export type HttpServerOptions = {
  readonly routes: readonly HttpRoute[];
  /** Takes every request that no route takes (service invocation). */
  readonly fallback: (call: HttpCall) => Promise<HttpReply>;
  readonly maxBodyBytes: number;
  readonly readBufferBytes: number;
  /** DAPR_API_TOKEN; undefined = open. */
  readonly apiToken: string | undefined;
  readonly apiLogging: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
};

export type HttpServer = {
  /** Resolves with the port (0 for a socket file). Rejects when the address is taken. */
  listen(target: ListenTarget): Promise<number>;
  /** Stops accepting, waits for requests in flight up to `graceMs`, then closes the rest. */
  close(graceMs: number): Promise<void>;
};

/** Paths open without token. */
const openPaths = new Set(["/v1.0/healthz", "/v1.0/healthz/outbound"]);

export function createHttpServer(options: HttpServerOptions): HttpServer {
  const ingress = new HttpIngress(options);
  const servers: Server[] = [];
  const settings = {
    maxHeaderSize: options.readBufferBytes + headerSlackBytes,
    headersTimeout: headerTimeoutMs,
    requestTimeout: 0,
    keepAliveTimeout: keepAliveMs,
    joinDuplicateHeaders: true,
  };
  return {
    async listen(target) {
      const server = createServer(settings, (request, response) => ingress.handle(request, response, false));
      server.on("checkContinue", (request, response) => ingress.handle(request, response, true));
      server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
        if (!socket.writable) return void socket.destroy();
        const line =
          error.code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
        socket.end(
          `HTTP/1.1 ${line}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${line}`,
        );
      });
      const port = await listenOn(server, target);
      servers.push(server);
      return port;
    },
    async close(graceMs) {
      const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
      for (const server of servers) server.closeIdleConnections();
      const limit = options.clock.setTimeout(() => {
        for (const server of servers) server.closeAllConnections();
      }, graceMs);
      await Promise.all(closed);
      limit.cancel();
    },
  };
}

class HttpIngress {
  readonly #options: HttpServerOptions;
  readonly #router: Router;
  readonly #count;
  readonly #latency;

  constructor(options: HttpServerOptions) {
    this.#options = options;
    this.#router = new Router(options.routes);
    const labels = ["method", "path", "status"];
    this.#count = options.metrics.count(
      "http_server_request_count",
      "HTTP requests started by the server.",
      labels,
    );
    this.#latency = options.metrics.latency(
      "http_server_latency",
      "End-to-end latency of HTTP requests, ms.",
      labels,
    );
  }

  /** `expectsContinue`: the client sends its body only when told to. */
  handle(request: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void {
    const startMs = this.#options.clock.monotonicMs();
    const url = request.url ?? "/";
    const mark = url.indexOf("?");
    const rawPath = mark < 0 ? url : url.slice(0, mark);
    const query = mark < 0 ? "" : url.slice(mark + 1);
    const path = cleanPath(rawPath);
    const { maxBodyBytes } = this.#options;
    const call = new NodeHttpCall(request, response, path, rawPath, query, maxBodyBytes, expectsContinue);
    this.#answer(call, response, startMs).catch((error: unknown) => {
      this.#options.log.error(`HTTP answer failed: ${error instanceof Error ? error.stack : String(error)}`);
      response.destroy();
    });
  }

  async #answer(call: NodeHttpCall, response: ServerResponse, startMs: number): Promise<void> {
    let name = "Invoke";
    let label = call.path;
    let reply: HttpReply;
    try {
      if (!this.#authorized(call)) reply = unauthorized;
      else {
        const match = this.#router.find(call.verb, call.path);
        if (match === undefined) reply = await this.#options.fallback(call);
        else {
          name = match.route.name;
          label = metricPath(match.route, match.params, call.path);
          call.params = match.params;
          reply = await match.route.handle(call);
        }
      }
    } catch (error) {
      reply = this.#failure(error, call);
    }
    const status = String(reply.status);
    await send(reply, response, call.verb, call.bodyRefused ? this.#lastAnswer(call, response) : undefined);
    if (call.bodyOpen) this.#linger(call, response);
    const latencyMs = this.#options.clock.monotonicMs() - startMs;
    this.#count(call.verb, label, status);
    this.#latency(Math.trunc(latencyMs), call.verb, label, status);
    if (this.#options.apiLogging) this.#logCall(call, name, reply.status, latencyMs);
  }

  /** The client gets the answer while it is still sending, and the time to read it; only then the connection closes. */
  #lastAnswer(call: NodeHttpCall, response: ServerResponse): Promise<void> {
    response.setHeader("Connection", "close");
    call.discardBody();
    return new Promise((resolve) => {
      const limit = this.#options.clock.setTimeout(resolve, lingerMs);
      call.onBodyEnd(() => {
        limit.cancel();
        resolve();
      });
    });
  }

  /** Without an end of the request there is no next one: the rest of its body passes by, for a while. */
  #linger(call: NodeHttpCall, response: ServerResponse): void {
    call.discardBody();
    const { socket } = response;
    if (socket === null || socket.destroyed) return;
    const limit = this.#options.clock.setTimeout(() => {
      if (call.bodyOpen) socket.destroy();
    }, lingerMs);
    socket.once("close", () => limit.cancel());
  }

  #authorized(call: NodeHttpCall): boolean {
    const { apiToken } = this.#options;
    if (apiToken === undefined) return true;
    return call.headers["dapr-api-token"] === apiToken || (call.verb === "GET" && openPaths.has(call.path));
  }

  #failure(thrown: unknown, call: NodeHttpCall): HttpReply {
    if (thrown instanceof BadEscape) return badEscape;
    const error = toApiError(thrown);
    if (error.code === "ERROR") this.#options.log.error(`${call.verb} ${call.path}: ${textOf(thrown)}`);
    else if (error.cause !== undefined) this.#options.log.debug(`${error.code}: ${textOf(error.cause)}`);
    return {
      status: error.httpStatus,
      headers: error.httpHeaders === undefined ? jsonHeaders : { ...jsonHeaders, ...error.httpHeaders },
      body: httpErrorBody(error),
    };
  }

  #logCall(call: NodeHttpCall, name: string, status: number, latencyMs: number): void {
    const agent = call.headers["user-agent"];
    this.#options.log.scope("dapr.runtime.http-info").info("HTTP API Called", {
      method: `${call.verb} ${call.path}`,
      code: status,
      duration: Math.trunc(latencyMs),
      endpoint: name,
      ...(agent === undefined ? {} : { useragent: agent }),
    });
  }
}

const jsonHeaders = Object.freeze({ "Content-Type": "application/json" });
const textHeaders = Object.freeze({
  "Content-Type": "text/plain; charset=utf-8",
  "X-Content-Type-Options": "nosniff",
});
const unauthorized: HttpReply = Object.freeze({
  status: 401,
  headers: textHeaders,
  body: "invalid api token\n",
});
const badEscape: HttpReply = Object.freeze({ status: 400, headers: textHeaders, body: "400 Bad Request" });

/**
 * Writes a reply; resolves when everything is handed to the socket or the client is gone. With `last`, the connection
 * closes when that resolves.
 */
async function send(
  reply: HttpReply,
  response: ServerResponse,
  verb: string,
  last: Promise<void> | undefined,
): Promise<void> {
  if (response.destroyed) return;
  const { body } = reply;
  const headers: string[] = reply.rawHeaders === undefined ? [] : [...reply.rawHeaders];
  for (const name in reply.headers) {
    const value = reply.headers[name]!;
    if (typeof value === "string") headers.push(name, value);
    else for (const item of value) headers.push(name, item);
  }
  if (typeof body === "object" && !(body instanceof Uint8Array)) {
    return sendStream(reply.status, headers, body, response, verb);
  }
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  const bodiless = reply.status === 204 || reply.status === 304;
  if (!bodiless) headers.push("Content-Length", String(bytes?.length ?? 0));
  response.writeHead(reply.status, headers);
  const empty = bytes === undefined || bytes.length === 0 || bodiless || verb === "HEAD";
  if (last !== undefined && !empty) {
    response.write(bytes);
    await last;
    response.end();
  } else if (empty) response.end();
  else response.end(bytes);
}

/** First bytes that go out in one packet with the head, at most. */
const firstBytes = 64 * 1024;

/** Writes piece by piece as fast as the client reads. A body that fails resets the connection: it is not whole. */
async function sendStream(
  status: number,
  headers: string[],
  body: BodyStream,
  response: ServerResponse,
  verb: string,
): Promise<void> {
  response.writeHead(status, headers);
  if (verb === "HEAD" || status === 204 || status === 304) {
    body.cancel(new Error("this answer has no body"));
    return void response.end();
  }
  response.once("close", () => body.cancel(new Error("the client went away")));
  const first = body.takeReady(firstBytes);
  if (first.length > 0) response.write(first);
  else response.flushHeaders();
  try {
    for await (const piece of body) {
      if (!response.write(piece)) await drained(response);
    }
    response.end();
  } catch {
    response.socket?.resetAndDestroy();
    response.destroy();
  }
}

/** Resolves when the client has read, or is gone. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed) return resolve();
    const done = (): void => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    response.once("drain", done);
    response.once("close", done);
  });
}

/** Label of a route: stores keep their name but not their keys; the rest keeps its path. */
function metricPath(route: HttpRoute, params: readonly string[], path: string): string {
  const brace = route.path.indexOf("{");
  if (brace < 0) return path;
  return route.group === "state" || route.group === "secrets" ? route.path.slice(0, brace) + params[0] : path;
}

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
