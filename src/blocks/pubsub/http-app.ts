/**
 * Delivers events to an app that speaks HTTP, and reads from its response what became of them.
 */
import { asError } from "../../lib/thrown.ts";
import { posix } from "node:path";
import type { AppChannel, AppHttpResponse } from "../../app/channel.ts";
import { httpStatusText } from "../../telemetry/tracing/status.ts";
import { dropAsked, dropRefused, retry, success } from "./answer.ts";
import type { Answer, Deliver } from "./answer.ts";
import { httpHeaders } from "../../app/callback-metadata.ts";
import { cloudEventsType } from "./envelope.ts";
import type { AppEvent } from "./event.ts";

export function deliverToHttpApp(app: AppChannel): Deliver {
  // As many entries as the subscriptions have rules.
  const targets = new Map<string, string>();
  return async (event, path, signal) => {
    let target = targets.get(path);
    if (target === undefined) targets.set(path, (target = targetOf(path)));
    const request = { verb: "POST", path: target, headers: headersOf(event), body: event.body };
    let response: AppHttpResponse;
    try {
      response = await app.http(request, signal);
    } catch (error) {
      return retry(asError(error));
    }
    if (response.status >= 400) event.span?.fail(httpStatusText(response.status));
    return readResponse(response);
  };
}

function headersOf(event: AppEvent): string[] {
  const headers = httpHeaders(event.metadata);
  headers.push("Content-Type", cloudEventsType);
  if (event.span !== undefined) headers.push("traceparent", event.span.traceparent);
  return headers;
}

/** A route as request target: leading slash, no `.`, `..` or doubled slashes, nothing that cannot stand there. */
export function targetOf(route: string): string {
  const at = route.search(/[?#]/);
  const path = at === -1 ? route : route.slice(0, at);
  const query = at === -1 || route[at] === "#" ? "" : route.slice(at).replace(/#.*$/, "");
  const cleaned = posix.normalize(`/${path}`).replace(/(?!^)\/$/, "");
  return `${cleaned}${query}`.replace(/[^\x21-\x7e]/gu, (char) => encodeURIComponent(char.toWellFormed()));
}

/** 2xx says success unless its JSON object names another status; 404 says that nobody wants the event. */
export function readResponse(response: AppHttpResponse): Answer {
  if (response.status === 404) return dropRefused;
  if (response.status < 200 || response.status > 299) {
    const { status, body } = response;
    return retry(`the app answered status ${status}: ${body.toString("utf8", 0, 300)}`, {
      kind: "http",
      code: status,
    });
  }
  const status = statusOf(response.body);
  if (status === "" || status === "SUCCESS") return success;
  if (status === "DROP") return dropAsked;
  if (status === "RETRY") return retry("the app asked for RETRY");
  return retry(`the app answered the unknown status ${JSON.stringify(status)}: use SUCCESS, RETRY or DROP`);
}

/** The `status` of a JSON object in the body; empty when there is none. */
function statusOf(body: Buffer): string {
  if (body.length === 0) return "";
  try {
    const status = member(JSON.parse(body.toString()), "status");
    return typeof status === "string" ? status : "";
  } catch {
    return "";
  }
}

/** Member of a JSON object in any case; undefined when there is none. */
export function member(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  const key = Object.keys(value).findLast((candidate) => candidate.toLowerCase() === name);
  return key === undefined ? undefined : (value as Record<string, unknown>)[key];
}
