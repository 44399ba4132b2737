/** The tracing step of the HTTP API: a span around each request, its context in the answer, baggage checked. */
import type { HttpReply } from "../api/http.ts";
import { baggageFault } from "../telemetry/tracing/baggage.ts";
import type { Span } from "../telemetry/tracing/span.ts";
import { httpStatusText } from "../telemetry/tracing/status.ts";
import type { Tracer } from "../telemetry/tracing/tracer.ts";
import type { IncomingCall } from "./http-call.ts";
import { type HttpStep, textHeaders } from "./http-steps.ts";

/** Longest `tracestate` of an answer. */
const maxStateLength = 512;

/** For `HttpSteps.tracing`. Health checks have no span. */
export function tracingStep(tracer: Tracer): HttpStep {
  return (next) => async (call) => {
    if (call.path.includes("/healthz")) return next(call);
    const { headers } = call;
    const baggage = headers["baggage"] as string | undefined;
    if (baggage !== undefined) {
      const fault = baggageFault(baggage);
      if (fault !== undefined) return badBaggage(fault);
    }
    const { traceparent, tracestate } = headers as Record<string, string | undefined>;
    const span = tracer.start(call.path, "client", traceparent, tracestate);
    call.span = span;
    let reply: HttpReply;
    try {
      reply = await next(call);
    } catch (error) {
      span.fail(String(error));
      span.end();
      throw error;
    }
    if (span.recording) describe(span, call, reply.status);
    span.end();
    return withTrace(reply, span, baggage);
  };
}

function badBaggage(fault: string): HttpReply {
  return { status: 400, headers: textHeaders, body: `invalid baggage header: ${fault}\n` };
}

/** What the handler said about its own trace stays. */
function withTrace(reply: HttpReply, span: Span, baggage: string | undefined): HttpReply {
  const raw = reply.rawHeaders;
  const said = raw !== undefined && hasTraceparent(raw);
  if (said && baggage === undefined) return reply;
  const rawHeaders = raw === undefined ? [] : raw.slice();
  if (!said) {
    rawHeaders.push("traceparent", span.traceparent);
    const { tracestate } = span;
    if (tracestate !== "" && tracestate.length <= maxStateLength) rawHeaders.push("tracestate", tracestate);
  }
  if (baggage !== undefined) rawHeaders.push("baggage", baggage);
  return { ...reply, rawHeaders };
}

function hasTraceparent(raw: readonly string[]): boolean {
  for (let i = 0; i < raw.length; i += 2)
    if (raw[i]!.length === 11 && raw[i]!.toLowerCase() === "traceparent") return true;
  return false;
}

/** Attributes of a request as Dapr names them. */
function describe(span: Span, call: IncomingCall, status: number): void {
  const api = `${call.verb} ${call.path}`;
  span.set("dapr.protocol", "http");
  span.set("dapr.api", api);
  span.set("dapr.status_code", String(status));
  span.set("http.request.method", call.verb);
  span.set("url.full", call.query === "" ? call.rawPath : `${call.rawPath}?${call.query}`);
  // The address of the client stands there with Dapr, whatever the name says.
  span.set("server.address", call.remoteAddress);
  span.set("server.port", String(call.remotePort));
  setCallerHeaders(span, call.rawHeaders);
  describeGroup(span, call, api);
  if (status >= 400) span.fail(httpStatusText(status));
}

/** Headers that apps wrote for their traces. The token of the API is not one. */
function setCallerHeaders(span: Span, raw: readonly string[]): void {
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!;
    if (name.charCodeAt(4) !== 45) continue;
    const lower = name.toLowerCase();
    if (lower.startsWith("dapr-") && lower !== "dapr-api-token") span.set(lower, raw[i + 1]!);
  }
}

/** Invocation describes itself: only it knows the target. */
function describeGroup(span: Span, call: IncomingCall, api: string): void {
  const { group, params } = call;
  switch (group) {
    case "state":
    case "secrets":
    case "bindings":
      return setDatabase(span, group, params[0] ?? "", api);
    case "publish":
      return span.set("messaging.system", "pubsub");
    case "actors":
      return describeActor(span, call, api);
  }
}

export function setDatabase(span: Span, system: string, name: string, statement: string): void {
  span.set("db.system", system);
  span.set("db.connection_string", system);
  span.set("db.name", name);
  span.set("db.statement", statement);
}

const actorPath = /^\/v1\.0\/actors\/([^/]+)\/([^/]+)\/(method|state)(?:\/(.*))?$/;

function describeActor(span: Span, call: IncomingCall, api: string): void {
  const match = actorPath.exec(call.path);
  if (match === null) return;
  const [, type = "", id = "", kind, method = ""] = match;
  span.set("dapr.actor", `${type}.${id}`);
  if (kind === "state") return setDatabase(span, "state", "actor", api);
  span.name = `CallActor/${type}/${method}`;
  span.set("rpc.service", "ServiceInvocation");
  span.set("net.peer.name", `${type}.${id}`);
}
