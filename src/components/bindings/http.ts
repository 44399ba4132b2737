/**
 * Calls an HTTP server outside. The operation is the verb (`create` is POST), request metadata name path and headers,
 * and the answer's status and headers come back as response metadata.
 */
import { canonicalHeader } from "../../lib/canonical-header.ts";
import { isTruthy } from "../../lib/truthy.ts";
import { readFile } from "node:fs/promises";
import type { Agent } from "undici";
import {
  type Binding,
  BindingFailure,
  type BindingMetadata,
  type BindingRequest,
  type BindingResponse,
} from "../../blocks/bindings/port.ts";
import { parseQuantityBytes } from "../../lib/quantity.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { createReach } from "../connect/reach.ts";

export const type = "bindings.http";
export const versions = ["v1"];
export const capabilities = ["OUTPUT_BINDING"];
export const metadataSchema = {
  url: { kind: "string", required: true, description: "Base URL; request metadata `path` is appended" },
  MTLSRootCA: { kind: "string", description: "Certificates to trust: PEM text or a file" },
  MTLSClientCert: { kind: "string", description: "Certificate to show to the server: PEM text or a file" },
  MTLSClientKey: { kind: "string", secret: true, description: "Its private key: PEM text or a file" },
  MTLSRenegotiation: {
    kind: "string",
    oneOf: ["RenegotiateNever", "RenegotiateOnceAsClient", "RenegotiateFreelyAsClient"],
    description: "TLS renegotiation; Node decides by itself",
  },
  securityToken: { kind: "string", secret: true, description: "Sent with every request" },
  securityTokenHeader: { kind: "string", description: "Header in which securityToken is sent" },
  errorIfNot2XX: { kind: "boolean", default: "true", description: "Answers outside 2xx are failures" },
  responseTimeout: {
    kind: "duration",
    description: "Longest time to the end of the answer; none unless given",
  },
  maxResponseBodySize: {
    kind: "string",
    default: "100Mi",
    description: "Largest answer taken, e.g. 10Mi; 0 for any that fits 1Gi",
  },
} as const satisfies MetadataSchema;

type Settings = ComponentContext<typeof metadataSchema>["metadata"];

const verbs: Readonly<Record<string, string>> = {
  create: "POST",
  get: "GET",
  head: "HEAD",
  post: "POST",
  put: "PUT",
  patch: "PATCH",
  delete: "DELETE",
  options: "OPTIONS",
  trace: "TRACE",
};
const withBody = new Set(["POST", "PUT", "PATCH", "DELETE"]);
const jsonType = "application/json; charset=utf-8";
/** Limit where the user wants none: what a message between processes can reasonably be, bytes. */
const hardLimitBytes = 1024 ** 3;
/** As Go's client, which Dapr has, follows them. */
const maxRedirections = 10;

export async function open(context: ComponentContext<typeof metadataSchema>): Promise<Binding> {
  const { metadata, clock } = context;
  const base = readUrl(metadata.url);
  const reach = createReach(`http server at ${new URL(base).host}`, context);
  const limit = parseQuantityBytes(metadata.maxResponseBodySize);
  const maxBytes = limit > 0 ? Math.min(limit, hardLimitBytes) : hardLimitBytes;
  const { Agent, interceptors, request: send } = await import("undici");
  const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0, connect: await tlsOptions(metadata) });
  const { securityTokenHeader } = metadata;
  const dispatcher = agent.compose(
    interceptors.redirect({
      maxRedirections,
      stripHeadersOnCrossOriginRedirect: securityTokenHeader === undefined ? [] : [securityTokenHeader],
    }),
  );

  const invoke = async (request: BindingRequest, signal: AbortSignal): Promise<BindingResponse> => {
    const method = verbs[request.operation]!;
    const expiry = new AbortController();
    const timer = clock.setTimeout(
      () =>
        expiry.abort(new Error(`no complete answer within ${metadata.responseTimeout} ms (responseTimeout)`)),
      metadata.responseTimeout ?? 2 ** 31 - 1,
    );
    try {
      const answering = send(urlOf(base, request.metadata["path"]), {
        dispatcher,
        method: method as "GET",
        headers: headersOf(request.metadata, method, metadata),
        body: withBody.has(method) ? Buffer.from(request.data) : null,
        signal: AbortSignal.any([signal, expiry.signal]),
      });
      const answer = await reach.watch(answering);
      const data = await wholeBody(answer.body, maxBytes);
      return respond(answer, data, request.metadata, metadata.errorIfNot2XX);
    } finally {
      timer.cancel();
    }
  };
  return {
    operations: Object.keys(verbs),
    invoke,
    awaySinceMs: () => reach.awaySinceMs(),
    close() {
      reach.close();
      return agent.destroy();
    },
  };
}

function readUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new Error(`metadata field "url": "${text}" is no http:// or https:// URL`);
  }
  return text;
}

function urlOf(base: string, path: string | undefined): string {
  if (path === undefined || path === "") return base;
  const root = base.replace(/\/+$/, "");
  const url = `${root}/${path.replace(/^\/+/, "")}`;
  // As it will be sent: `..` is resolved, in all the ways to write it.
  if (!new URL(url).pathname.startsWith(new URL(`${root}/`).pathname))
    throw new Error('request metadata "path" leads out of the url of the binding');
  return url;
}

type Headers = Record<string, string>;

/** Metadata whose names begin with a capital are headers; trace and baggage go along. */
function headersOf(sent: BindingMetadata, method: string, settings: Settings): Headers {
  const headers: Headers = { Accept: jsonType };
  if (withBody.has(method) && method !== "DELETE") headers["Content-Type"] = jsonType;
  for (const [name, value] of Object.entries(sent)) {
    if (!/^[A-Z]/.test(name)) continue;
    for (const known of Object.keys(headers))
      if (known.toLowerCase() === name.toLowerCase()) delete headers[known];
    headers[name] = value;
  }
  for (const name of ["traceparent", "tracestate", "baggage"]) {
    const value = sent[name];
    if (value !== undefined && value !== "") headers[name] = value;
  }
  const { securityToken, securityTokenHeader } = settings;
  if (securityToken !== undefined && securityTokenHeader !== undefined)
    headers[securityTokenHeader] = securityToken;
  return headers;
}

async function wholeBody(body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) throw new Error(`the answer is above ${maxBytes} bytes (maxResponseBodySize)`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

type Answer = {
  readonly statusCode: number;
  readonly statusText: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
};

function respond(answer: Answer, data: Buffer, sent: BindingMetadata, strict: boolean): BindingResponse {
  const { statusCode, statusText } = answer;
  const metadata: Record<string, string> = {
    statusCode: String(statusCode),
    status: `${statusCode} ${statusText}`.trim(),
  };
  for (const [name, value] of Object.entries(answer.headers)) {
    // It says how the answer travelled to this process.
    if (value !== undefined && name !== "transfer-encoding")
      metadata[canonicalHeader(name)] = Array.isArray(value) ? value.join(", ") : value;
  }
  const wanted = sent["errorIfNot2XX"];
  const refuse = wanted === undefined ? strict : isTruthy(wanted);
  if (refuse && (statusCode < 200 || statusCode > 299)) {
    throw new BindingFailure(`received status code ${statusCode}`, metadata);
  }
  return { data, metadata };
}

async function tlsOptions(settings: Settings): Promise<NonNullable<Agent.Options["connect"]>> {
  const { MTLSRootCA, MTLSClientCert, MTLSClientKey } = settings;
  if ((MTLSClientCert === undefined) !== (MTLSClientKey === undefined)) {
    throw new Error('metadata fields "MTLSClientCert" and "MTLSClientKey" go together: give both');
  }
  const [ca, cert, key] = await Promise.all([MTLSRootCA, MTLSClientCert, MTLSClientKey].map(pem));
  return { ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert, key: key! }) };
}

async function pem(text: string | undefined): Promise<string | undefined> {
  if (text === undefined || text.includes("-----BEGIN")) return text;
  return readFile(text, "utf8");
}
