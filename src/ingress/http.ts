/**
 * The HTTP port: sockets, the shared steps in written order, and the one place that turns a reply or a thrown value
 * into bytes. Steps of a request: clean path -> token -> route -> block -> reply -> metrics -> API log.
 */
import { createServer, type IncomingMessage, type Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import type { Clock } from "../../mesh/index.ts";
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
      const server = createServer(settings, (request, response) => ingress.handle(request, response));
      server.on("checkContinue", (request, response) => {
        response.writeContinue();
        ingress.handle(request, response);
      });
      // Node hands CONNECT over as a bare socket; here it is a request like any other, and refused as one.
      server.on("connect", (request, socket) => {
        const response = new ServerResponse(request);
        response.shouldKeepAlive = false;
        response.assignSocket(socket as Socket);
        response.once("finish", () => socket.end());
        ingress.handle(request, response);
      });
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

  handle(request: IncomingMessage, response: ServerResponse): void {
    const startMs = this.#options.clock.monotonicMs();
    const url = pathOf(request.url ?? "/");
    const mark = url.indexOf("?");
    const rawPath = mark < 0 ? url : url.slice(0, mark);
    const query = mark < 0 ? "" : url.slice(mark + 1);
    const path = cleanPath(rawPath);
    const call = new NodeHttpCall(request, response, path, rawPath, query, this.#options.maxBodyBytes);
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
      if (brokenEscape.test(call.rawPath)) reply = badEscape;
      else if (!this.#authorized(call)) reply = unauthorized;
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
    await send(reply, response, call.verb);
    const latencyMs = this.#options.clock.monotonicMs() - startMs;
    this.#count(call.verb, label, status);
    this.#latency(Math.trunc(latencyMs), call.verb, label, status);
    if (this.#options.apiLogging) this.#logCall(call, name, reply.status, latencyMs);
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

const brokenEscape = /%(?![0-9A-Fa-f]{2})/;

/** Path and query of a request target; proxies' clients send a whole URL, CONNECT an authority. */
function pathOf(target: string): string {
  if (target.startsWith("/")) return target;
  const path = /^[a-z][a-z0-9+.-]*:\/\/[^/?]*(.*)$/is.exec(target)?.[1];
  if (path === undefined) return "/";
  return path.startsWith("/") ? path : `/${path}`;
}

/** Writes a reply; resolves when everything is handed to the socket or the client is gone. */
async function send(reply: HttpReply, response: ServerResponse, verb: string): Promise<void> {
  if (response.destroyed) return;
  const { body } = reply;
  const headers: string[] = reply.rawHeaders === undefined ? [] : [...reply.rawHeaders];
  for (const name in reply.headers) {
    const value = reply.headers[name]!;
    if (typeof value === "string") headers.push(name, value);
    else for (const item of value) headers.push(name, item);
  }
  if (body instanceof Readable) {
    response.writeHead(reply.status, headers);
    return pipeBody(body, response);
  }
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  const bodiless = reply.status === 204 || reply.status === 304;
  const length = bytes?.length ?? 0;
  // An answer to HEAD is about a body that is not here, so its length is unknown rather than 0.
  if (!bodiless && (length > 0 || verb !== "HEAD")) headers.push("Content-Length", String(length));
  response.writeHead(reply.status, headers);
  if (bytes === undefined || bytes.length === 0 || bodiless || verb === "HEAD") response.end();
  else response.end(bytes);
}

function pipeBody(body: Readable, response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    body.once("error", () => response.destroy());
    response.once("close", () => {
      body.destroy();
      resolve();
    });
    body.pipe(response);
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
