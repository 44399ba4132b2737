/**
 * The way of one HTTP request, whatever its connection: the shared steps in their one order, then the route, then
 * metrics and API log. The chain is made when the steps are set; a request allocates nothing for it.
 */
import type { Clock } from "../../mesh/index.ts";
import { httpErrorBody, toApiError } from "../api/errors.ts";
import type { HttpCall, HttpReply, HttpRoute } from "../api/http.ts";
import type { ApiLoggingSettings } from "../config/kinds/configuration.ts";
import { stackOf } from "../lib/thrown.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { isApiToken } from "./api-token.ts";
import { createCors, isPreflight } from "./cors.ts";
import type { IncomingCall } from "./http-call.ts";
import { createApiLog } from "./http-log.ts";
import { createHttpRecord } from "./http-record.ts";
import type { SendReply } from "./http-reply.ts";
import { BadEscape, Router } from "./router.ts";

export type Handler = (call: IncomingCall) => Promise<HttpReply> | HttpReply;

/** Wraps the rest of the way. Called when the steps are set. */
export type HttpStep = (next: Handler) => Handler;

export type HttpSteps = {
  readonly routes: readonly HttpRoute[];
  /** Takes every request that no route takes. */
  readonly fallback: (call: HttpCall) => Promise<HttpReply> | HttpReply;
  /** DAPR_API_TOKEN; undefined = open. */
  readonly apiToken: string | undefined;
  /** --allowed-origins; undefined = no CORS. */
  readonly allowedOrigins?: readonly string[] | undefined;
  readonly apiLogging: ApiLoggingSettings;
  /** Around everything below it, for spans. */
  readonly tracing?: HttpStep | undefined;
  /** `httpPipeline` of the Configuration. */
  readonly middleware?: HttpStep | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
};

/** Paths open without token, for GET. */
const openPaths = new Set(["/v1.0/healthz", "/v1.0/healthz/outbound"]);

/**
 * The order of all requests. Limits come first, but are those of the sockets (http-sockets.ts) and of the body
 * (http-call.ts); metrics surround everything and are recorded in `HttpIngress` once the answer is sent.
 */
function stepsInOrder(steps: HttpSteps): HttpStep[] {
  return [
    escapeStep,
    steps.tracing ?? through,
    steps.allowedOrigins === undefined ? through : corsStep(steps.allowedOrigins),
    steps.apiToken === undefined ? through : tokenStep(steps.apiToken),
    steps.middleware ?? through,
    loggedStep,
  ];
}

/** One per port. */
export class HttpIngress {
  #way: Way;

  constructor(steps: HttpSteps) {
    this.#way = new Way(steps);
  }

  /** For requests from here on; those under way go on as they began. */
  set(steps: HttpSteps): void {
    this.#way = new Way(steps);
  }

  /** Answers one request. Rejects only when the answer could not be written; then the connection is of no more use. */
  answer(call: IncomingCall, send: SendReply): Promise<void> {
    return this.#way.go(call, send);
  }
}

/** The steps, made ready. */
class Way {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #metrics: Metrics;
  readonly #handle: Handler;
  readonly #writeLog: ReturnType<typeof createApiLog>;
  readonly #record: ReturnType<typeof createHttpRecord>;

  constructor(steps: HttpSteps) {
    this.#clock = steps.clock;
    this.#log = steps.log;
    this.#metrics = steps.metrics;
    const route: Handler = routeStep(new Router(steps.routes), steps);
    this.#handle = stepsInOrder(steps).reduceRight((next, step) => step(next), route);
    this.#writeLog = createApiLog(steps.apiLogging, steps.log);
    this.#record = createHttpRecord(steps.metrics);
  }

  async go(call: IncomingCall, send: SendReply): Promise<void> {
    const startMs = this.#clock.monotonicMs();
    let reply: HttpReply;
    try {
      reply = await this.#handle(call);
    } catch (error) {
      reply = failure(error, call, this.#log, this.#metrics);
    }
    const sizeBytes = await send(reply, call.verb);
    const latencyMs = this.#clock.monotonicMs() - startMs;
    this.#record(call, reply.status, latencyMs, sizeBytes);
    if (this.#writeLog !== undefined && call.logged) {
      const { endpoint = "Invoke", group } = call;
      this.#writeLog({ call, endpoint, group, status: reply.status, latencyMs, sizeBytes });
    }
  }
}

const through: HttpStep = (next) => next;

const brokenEscape = /%(?![0-9A-Fa-f]{2})/;

/** A path that cannot be decoded means nothing to anyone. */
const escapeStep: HttpStep = (next) => (call) => (brokenEscape.test(call.rawPath) ? badEscape : next(call));

function corsStep(allowed: readonly string[]): HttpStep {
  const cors = createCors(allowed);
  return (next) => async (call) => {
    if (isPreflight(call)) return cors.preflight(call);
    const reply = await next(call);
    return { ...reply, headers: { ...reply.headers, ...cors.headers(call) } };
  };
}

function tokenStep(token: string): HttpStep {
  const wanted = Buffer.from(token);
  return (next) => (call) => {
    const given = call.headers["dapr-api-token"];
    const known = typeof given === "string" && isApiToken(given, wanted);
    return known || (call.verb === "GET" && openPaths.has(call.path)) ? next(call) : unauthorized;
  };
}

/** What comes as far as this is in the API log, whatever becomes of it. */
const loggedStep: HttpStep = (next) => (call) => {
  call.logged = true;
  return next(call);
};

function routeStep(router: Router, { fallback, log, metrics }: HttpSteps): Handler {
  return async (call) => {
    try {
      const match = router.find(call.verb, call.path);
      if (match === undefined) return await fallback(call);
      call.endpoint = match.route.name;
      call.group = match.route.group;
      call.params = match.params;
      return await match.route.handle(call);
    } catch (error) {
      return failure(error, call, log, metrics);
    }
  };
}

function failure(thrown: unknown, call: HttpCall, log: Log, metrics: Metrics): HttpReply {
  if (thrown instanceof BadEscape) return badEscape;
  const error = toApiError(thrown);
  metrics.errorCode(error.code);
  if (error.code === "ERROR") log.error(`${call.verb} ${call.path}: ${stackOf(thrown)}`);
  else if (error.cause !== undefined) log.debug(`${error.code}: ${stackOf(error.cause)}`);
  return {
    status: error.httpStatus,
    headers: error.httpHeaders === undefined ? jsonHeaders : { ...jsonHeaders, ...error.httpHeaders },
    body: httpErrorBody(error),
  };
}

const jsonHeaders = Object.freeze({ "Content-Type": "application/json" });

/** Header lines of refusals in plain text. */
export const textHeaders = Object.freeze({
  "Content-Type": "text/plain; charset=utf-8",
  "X-Content-Type-Options": "nosniff",
});
const unauthorized: HttpReply = Object.freeze({
  status: 401,
  headers: textHeaders,
  body: "invalid api token\n",
});
const badEscape: HttpReply = Object.freeze({ status: 400, headers: textHeaders, body: "400 Bad Request" });
