/**
 * Messages of NATS subjects for the app, and the app's messages to them: for programs that know nothing of Dapr and
 * CloudEvents. Core NATS unless `jetstream` is set: then a message counts as sent when a stream has stored it, and the
 * app gets each at least once from a durable consumer. The sidecar creates the consumer, but not the stream.
 *
 * Operations:
 *
 * - `create` publishes the data. With JetStream the answer has `stream`, `sequence` and `duplicate` as metadata.
 * - `request` publishes the data and waits for the first answer, whose headers come back as metadata.
 *
 * Request metadata: `subject`, instead of the component's; `header.<name>`, one header of the message each; `timeout`
 * of a `request`; `jetstream` (`true`, `false`) instead of the component's; `messageId`, by which a stream drops what
 * it has already. The trace of the call goes along in `traceparent`, `tracestate` and `baggage`.
 *
 * The app gets the message's headers as metadata, `subject`, `reply` where somebody waits for an answer, and from
 * JetStream `stream`, `sequence`, `deliveries` and `timestamp` (Unix ms). What the app answers goes to who asked; when
 * it fails, that one gets an empty message with the header `Nats-Service-Error-Code: 500`.
 *
 * Without `natsURL` the binding uses the sidecar's connection to NATS. There the subjects of the mesh and of the server
 * (first part `weft`, or beginning with `$` or `_`) are refused, and so are patterns that begin with a wildcard.
 */
import type { MsgHdrs } from "@nats-io/transport-node";
import type {
  Binding,
  BindingHandler,
  BindingReading,
  BindingRequest,
  BindingResponse,
} from "../../blocks/bindings/port.ts";
import { parseDurationList, parseDurationOrSeconds } from "../../lib/duration.ts";
import { isTruthy } from "../../lib/truthy.ts";
import { type ComponentContext, MetadataError, type MetadataSchema } from "../component.ts";
import { withDeadline } from "../connect/deadline.ts";
import { readAckSubject, readJetStream } from "../connect/jetstream-reader.ts";
import { isNoResponders, type JetStream, openJetStream } from "../connect/jetstream.ts";
import {
  checkSize,
  connectNats,
  meshAwaySinceMs,
  meshLink,
  natsLoginFields,
  type NatsLink,
  type NatsMessage,
  subjectFault,
} from "../connect/nats.ts";
import { readSubject } from "../connect/nats-subscribe.ts";

export const type = "bindings.nats";
export const versions = ["v1"];
export const capabilities = ["INPUT_BINDING", "OUTPUT_BINDING"];
export const metadataSchema = {
  subject: { kind: "string", description: "Output: subject of messages that name none." },
  subscribeSubject: { kind: "string", description: "Input: subject to read, with `*` and `>` as wildcards." },
  queueGroup: {
    kind: "string",
    description: "Input without JetStream: instances of one group share the messages. Default: the app id.",
  },
  everyInstance: {
    kind: "boolean",
    default: "false",
    description: "Input without JetStream: no group, every instance gets each message.",
  },
  jetstream: {
    kind: "boolean",
    default: "false",
    description: "Messages are kept in a stream, which must exist.",
  },
  stream: {
    kind: "string",
    description: "Input with JetStream: the stream; looked up by the subject when not given.",
  },
  durable: {
    kind: "string",
    description:
      "Input with JetStream: the consumer, created when absent. Default: app id and component name.",
  },
  deliverPolicy: {
    kind: "string",
    default: "all",
    oneOf: ["all", "last", "new"],
    description: "Input with JetStream: where a new consumer begins.",
  },
  ackWait: {
    kind: "duration",
    default: "30s",
    description:
      "Input with JetStream: when the messages of a sidecar that vanished go to another one. Handlers may run longer.",
  },
  backOff: {
    kind: "string",
    default: "100ms,500ms,2s,10s",
    description:
      "Input with JetStream: waits before the 2nd, 3rd, … delivery of what failed; the last one repeats.",
  },
  maxDeliver: {
    kind: "integer",
    default: "-1",
    min: -1,
    description: "Input with JetStream: deliveries after which a message is given up, -1 = never.",
  },
  concurrency: {
    kind: "integer",
    default: "32",
    min: 1,
    max: 10_000,
    description: "Input: messages handled at once.",
  },
  timeout: { kind: "duration", default: "10s", description: "Output: longest wait for an answer." },
  natsURL: {
    kind: "string",
    description: "A server of its own, several by comma. Default: the sidecar's NATS.",
  },
  name: {
    kind: "string",
    description: "With natsURL: name of the client. Default: app id and component name.",
  },
  ...natsLoginFields,
  token: {
    kind: "string",
    secret: true,
    description: "With natsURL, instead of `jwt`: token of the server.",
  },
  domain: { kind: "string", description: "Domain of JetStream." },
} as const satisfies MetadataSchema;

type Context = ComponentContext<typeof metadataSchema>;

const connectTimeoutMs = 5_000;
/** Timers hold some 24 days. */
const maxTimeoutMs = 24 * 3_600_000;
const minAckWaitMs = 1_000;
const nanosPerMs = 1e6;

/** With `natsURL` it rejects when the server cannot be reached; the sidecar's NATS it waits for later. */
export async function open(context: Context): Promise<Binding> {
  const { metadata, mesh, clock, log, appId, name } = context;
  const { natsURL: url, jwt, seedKey, token } = metadata;
  const waits = readBackOff(metadata.backOff);
  if (!isTimeout(metadata.timeout))
    throw new MetadataError(
      "timeout",
      'metadata field "timeout": use a time above 0 and up to 24h, e.g. 10s',
    );
  if (metadata.ackWait < minAckWaitMs)
    throw new MetadataError("ackWait", 'metadata field "ackWait": use 1s or more');
  const reserved = url === undefined ? mesh.identity.root : undefined;
  for (const field of ["subject", "subscribeSubject"] as const) {
    const fault = faultOf(metadata[field], field === "subscribeSubject", reserved);
    if (fault !== undefined) throw new MetadataError(field, `metadata field "${field}": ${fault}`);
  }
  const { headers } = await import("@nats-io/transport-node");
  const login = {
    jwt,
    seedKey,
    token,
    name: metadata.name ?? `${appId}/${name}`,
    timeoutMs: connectTimeoutMs,
  };
  const own = url === undefined ? undefined : await connectNats({ ...login, url, clock, log });
  const link = own === undefined ? () => meshLink(mesh, clock, connectTimeoutMs) : async () => own;
  const parts: Parts = { context, link, reserved, waits, headers };
  const { subscribeSubject } = metadata;
  return {
    operations: ["create", "request"],
    invoke: (request, signal) => invoke(parts, request, signal),
    ...(subscribeSubject !== undefined && { read: (handler) => read(parts, subscribeSubject, handler) }),
    awaySinceMs: () => (own === undefined ? meshAwaySinceMs(mesh) : own.awaySinceMs()),
    close: async () => own?.close(),
  };
}

type Parts = {
  readonly context: Context;
  readonly link: () => Promise<NatsLink>;
  /** First part of the subjects that are not to be used; undefined: all may. */
  readonly reserved: string | undefined;
  /** By the number of deliveries, ms. */
  readonly waits: readonly number[];
  readonly headers: () => MsgHdrs;
};

async function invoke(
  parts: Parts,
  { operation, data, metadata: asked }: BindingRequest,
  signal: AbortSignal,
): Promise<BindingResponse | undefined> {
  const { context, reserved } = parts;
  const { metadata, clock } = context;
  const subject = asked["subject"] || metadata.subject;
  if (subject === undefined)
    throw new Error("request metadata subject is required: the component names none");
  const fault = faultOf(subject, false, reserved);
  if (fault !== undefined) throw new Error(`request metadata subject: ${fault}`);
  const timeoutMs = timeoutOf(asked["timeout"]) ?? metadata.timeout;
  const link = await parts.link();
  const sent = headersOf(asked, parts.headers);
  if (operation === "request") return request(link, subject, data, sent, timeoutMs);
  const stored = asked["jetstream"] === undefined ? metadata.jetstream : isTruthy(asked["jetstream"]);
  if (stored) return store(jetStream(link, context), subject, data, sent, signal);
  await link.ready(connectTimeoutMs, signal);
  checkSize(link, data);
  link.client.publish(subject, data, sent === undefined ? {} : { headers: sent });
  await withDeadline(link.client.flush(), "nats", connectTimeoutMs, clock, signal);
  return undefined;
}

async function request(
  link: NatsLink,
  subject: string,
  data: Uint8Array,
  headers: MsgHdrs | undefined,
  timeout: number,
): Promise<BindingResponse> {
  await link.ready(connectTimeoutMs);
  checkSize(link, data);
  try {
    const answer = await link.client.request(
      subject,
      data,
      headers === undefined ? { timeout } : { timeout, headers },
    );
    return { data: answer.data, metadata: headersAsMetadata(answer) };
  } catch (error) {
    if (isNoResponders(error))
      throw new Error(`nats: nobody answers on subject ${subject}`, { cause: error });
    if (error instanceof Error && error.name === "TimeoutError")
      throw new Error(`nats: no answer from ${subject} within ${timeout} ms`, { cause: error });
    throw error;
  }
}

async function store(
  js: JetStream,
  subject: string,
  data: Uint8Array,
  headers: MsgHdrs | undefined,
  signal: AbortSignal,
): Promise<BindingResponse> {
  const { stream, seq, duplicate = false } = await js.publish(subject, data, headers, signal);
  const metadata = { stream, sequence: String(seq), duplicate: String(duplicate) };
  return { data: new Uint8Array(), metadata };
}

function jetStream(link: NatsLink, { metadata: { domain }, clock }: Context): JetStream {
  return openJetStream(link, clock, domain === undefined ? "$JS.API" : `$JS.${domain}.API`, connectTimeoutMs);
}

async function read(parts: Parts, subject: string, handler: BindingHandler): Promise<BindingReading> {
  const { metadata, clock, log, appId, name } = parts.context;
  const link = await parts.link();
  const { concurrency, queueGroup, everyInstance } = metadata;
  const shared = { concurrency, clock, log };
  if (!metadata.jetstream) {
    const group = everyInstance ? undefined : (queueGroup ?? appId);
    const take = (message: NatsMessage, signal: AbortSignal): Promise<Uint8Array> =>
      handler({ data: message.data, metadata: describe(message) }, signal);
    return readSubject({ link, subject, group, ...shared, handler: take });
  }
  const durable = metadata.durable ?? `${appId}-${name}`.replace(/[^\w-]/g, "_");
  const settings = {
    ack_policy: "explicit",
    deliver_policy: metadata.deliverPolicy,
    ack_wait: metadata.ackWait * nanosPerMs,
    max_deliver: metadata.maxDeliver,
  };
  return readJetStream({
    js: jetStream(link, parts.context),
    wish: { stream: metadata.stream, subject, durable, group: undefined, mode: "pull", settings },
    ...shared,
    retryMs: (deliveries) => parts.waits[Math.min(deliveries, parts.waits.length) - 1] ?? 0,
    handler: async (message, signal) => {
      const { stream, sequence, deliveries, timestampMs } = readAckSubject(message.reply ?? "");
      const place = { stream, sequence, deliveries, timestamp: timestampMs };
      const texts = Object.entries(place).map(([key, value]) => [key, String(value)]);
      const { reply: _, ...rest } = describe(message);
      await handler({ data: message.data, metadata: { ...rest, ...Object.fromEntries(texts) } }, signal);
    },
  });
}

function describe(message: NatsMessage): Record<string, string> {
  const { subject, reply = "" } = message;
  return { ...headersAsMetadata(message), subject, ...(reply === "" ? {} : { reply }) };
}

function headersAsMetadata({ headers }: NatsMessage): Record<string, string> {
  return Object.fromEntries(
    headers?.keys().map((name) => [name, headers.values(name).join(",")]) ?? [],
  ) as Record<string, string>;
}

const headerPrefix = "header.";

/** Undefined without any: headers cost bytes. Throws Error for a header that NATS cannot carry. */
function headersOf(asked: BindingRequest["metadata"], make: () => MsgHdrs): MsgHdrs | undefined {
  let headers: MsgHdrs | undefined;
  const set = (name: string, value: string): void => {
    if (!/^[!-9;-~]+$/.test(name) || /[\r\n\0]/.test(value))
      throw new Error(
        `request metadata ${headerPrefix}${name}: a header has neither blanks in its name nor line breaks`,
      );
    (headers ??= make()).set(name, value);
  };
  for (const name of ["traceparent", "tracestate", "baggage"]) if (asked[name]) set(name, asked[name]);
  for (const [name, value] of Object.entries(asked))
    if (name.startsWith(headerPrefix)) set(name.slice(headerPrefix.length), value);
  if (asked["messageId"]) set("Nats-Msg-Id", asked["messageId"]);
  return headers;
}

function timeoutOf(text: string | undefined): number | undefined {
  if (text === undefined || text === "") return undefined;
  const fault = new Error(
    `request metadata timeout "${text}" is no time above 0 and up to 24h; write e.g. 5s`,
  );
  let timeoutMs: number;
  try {
    timeoutMs = parseDurationOrSeconds(text);
  } catch {
    throw fault;
  }
  if (!isTimeout(timeoutMs)) throw fault;
  return timeoutMs;
}

function isTimeout(timeMs: number): boolean {
  return timeMs > 0 && timeMs <= maxTimeoutMs;
}

function readBackOff(text: string): number[] {
  try {
    return parseDurationList(text);
  } catch (cause) {
    const fix = "is no list of durations; write e.g. 100ms,2s,10s";
    throw new MetadataError("backOff", `metadata field "backOff": "${text}" ${fix}`, cause);
  }
}

/** Why a subject cannot be used; undefined when it can. */
function faultOf(
  subject: string | undefined,
  wildcards: boolean,
  root: string | undefined,
): string | undefined {
  if (subject === undefined) return undefined;
  const tokens = subject.split(".");
  const wild = (token: string): boolean => token === "*" || token === ">";
  const [first = ""] = tokens;
  const fault = subjectFault(subject);
  if (fault !== undefined) return fault;
  if (!wildcards && tokens.some(wild)) return `"${subject}" has a wildcard; name one subject`;
  if (root === undefined || !(first === root || /^[$_]/.test(first) || wild(first))) return undefined;
  return `"${subject}" may be a subject of the mesh or the server; give natsURL to use it on a connection of its own`;
}
