/** Hands events of input bindings to an app that speaks HTTP: a probe by OPTIONS, then one POST an event. */
import { httpHeaders } from "../../app/callback-metadata.ts";
import type { AppChannel } from "../../app/channel.ts";
import { setTrace } from "../../telemetry/tracing/headers.ts";
import type { Span } from "../../telemetry/tracing/span.ts";
import { httpStatusText } from "../../telemetry/tracing/status.ts";
import type { Failure } from "../../resiliency/policy.ts";
import type { BindingApp } from "./input.ts";
import type { BindingMetadata } from "./port.ts";

/** Bytes of an app's refusal that are told to the component and the log. */
const shownBytes = 300;

/** The app did not take an event: what its HTTP status means to a policy. */
export class Refused extends Error {
  readonly failure: Failure;

  constructor(status: number, text: string) {
    super(text);
    this.name = "Refused";
    this.failure = { kind: "http", code: status };
  }
}

export function openHttpApp(app: AppChannel): BindingApp {
  return {
    async wants(_name, route, signal) {
      const headers = ["Content-Type", "application/json"];
      const request = { verb: "OPTIONS", path: pathOf(route), headers, body: undefined };
      const { status } = await app.http(request, signal);
      return (status >= 200 && status <= 299) || status === 405;
    },
    async deliver(_name, route, event, span, signal) {
      const headers = [...headersOf(event.metadata, span), "Content-Type", "application/json"];
      const request = { verb: "POST", path: pathOf(route), headers, body: event.data };
      const response = await app.http(request, signal);
      if (response.status >= 200 && response.status <= 299) return response.body;
      const { status, body } = response;
      span?.fail(httpStatusText(status));
      throw new Refused(status, `the app answered status ${status}: ${body.toString("utf8", 0, shownBytes)}`);
    },
  };
}

function headersOf(metadata: BindingMetadata, span: Span | undefined): string[] {
  const headers = httpHeaders(metadata);
  if (span !== undefined) setTrace(headers, span);
  return headers;
}

function pathOf(route: string): string {
  const path = route.startsWith("/") ? route : `/${route}`;
  return path.replace(/[^\x21-\x7e]/gu, (char) => encodeURIComponent(char.toWellFormed()));
}
