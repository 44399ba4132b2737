/** The routes of output bindings over HTTP: decode, call bindings.ts, encode. */
import { type HttpCall, type HttpReply, type HttpRoute, noContent } from "../../api/http.ts";
import { decodeJson, goJson } from "../../lib/go-json.ts";
import { jsonFields } from "../../lib/json-fields.ts";
import type { Outputs } from "./bindings.ts";
import { traceMetadata } from "../../telemetry/tracing/headers.ts";
import { metadataHeaders } from "../../lib/metadata-headers.ts";
import { malformedBody } from "./errors.ts";
import type { BindingRequest } from "./port.ts";

const json = jsonFields((message) => new Error(message));

/** Headers of the request that belong to its trace and go along. */
const traceNames = ["traceparent", "tracestate", "baggage"] as const;

export function bindingRoutes(outputs: Outputs): HttpRoute[] {
  return [
    {
      verbs: ["POST", "PUT"],
      path: "/v1.0/bindings/{name}",
      name: "InvokeBinding",
      group: "bindings",
      handle: (call) => invoke(outputs, call),
    },
  ];
}

async function invoke(outputs: Outputs, call: HttpCall): Promise<HttpReply> {
  const request = decode(await call.body(), call);
  const response = await outputs.invoke(call.params[0]!, request, call.signal);
  if (response === undefined) return noContent;
  const headers = { ...metadataHeaders(response.metadata), "Content-Type": "application/json" };
  return { status: 200, headers, body: response.data };
}

function decode(body: Buffer, call: HttpCall): BindingRequest {
  try {
    const fields = json.fields(decodeJson(body.toString()), "the body");
    const metadata = json.texts(fields["metadata"], "metadata");
    for (const name of traceNames) {
      const value = call.headers[name];
      const text = typeof value === "string" ? value : value?.[0];
      if (text !== undefined) metadata[name] = text;
    }
    if (call.span?.valid === true) Object.assign(metadata, traceMetadata(call.span));
    return {
      operation: json.text(fields["operation"], "operation"),
      data: Buffer.from(goJson(fields["data"] ?? null)),
      metadata,
    };
  } catch (cause) {
    throw malformedBody(cause);
  }
}
