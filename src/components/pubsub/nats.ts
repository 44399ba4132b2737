/**
 * Topics on a JetStream stream, one per namespace and component name, so every app that loads the component under the
 * same name shares them. Events are stored by the NATS binding of CloudEvents:
 *
 * - an envelope: payload = its JSON, header `Content-Type: application/cloudevents+json` (structured mode);
 * - a raw publish: payload = the bytes, header `Weft-Raw: 1`;
 * - publish metadata: one header `Weft-Meta-<name>` each; name and value are percent-encoded, because NATS headers hold
 *   neither line breaks nor arbitrary names;
 * - `Nats-Msg-Id`: tells a repeated publish of one event, so that the retry of a lost answer is stored once.
 *
 * What plain NATS programs publish is read as well: structured mode, binary mode (`ce-…` headers), and messages that
 * know nothing of CloudEvents (see `fromPlainMessage`).
 */
import { createHash, randomUUID } from "node:crypto";
import type {
  Mesh,
  TopicMessage,
  TopicPublishOptions,
  TopicStart,
  TopicStream,
} from "../../../mesh/index.ts";
import { decodeText, encodeText } from "../../lib/header-text.ts";
import { RequestRefused } from "../../blocks/pubsub/port.ts";
import type {
  BrokerMessage,
  DeadLetter,
  DeliveryPlace,
  MessageHandler,
  PublishMessage,
  PubSub,
  SubscribeRequest,
  Subscription,
} from "../../blocks/pubsub/port.ts";
import { parseDurationList } from "../../lib/duration.ts";
import { goJson, parseJsonKeepNumbers } from "../../lib/go-json.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { meshAwaySinceMs } from "../connect/nats.ts";
import {
  isForPublishOnly,
  keptWishes,
  type PublishWishes,
  readPublishWishes,
} from "./nats/publish-metadata.ts";
import { readSubscriptionWishes } from "./nats/subscription-metadata.ts";

export const type = "pubsub.nats";
export const versions = ["v1"];
export const capabilities = ["SUBSCRIBE_WILDCARDS"];

export const metadataSchema = {
  consumerID: {
    kind: "string",
    description:
      "Consumer group: subscriptions to one topic with the same ID share its events. Default: the app ID.",
  },
  maxAge: {
    kind: "duration",
    description: "Oldest event kept. Has effect when the stream is created.",
    default: "168h",
  },
  maxBytes: {
    kind: "integer",
    description:
      "Bytes kept before the oldest events go, -1 = as much as the server has room for. Without a limit a full " +
      "server refuses publishes loudly; with one, events that nobody has read yet vanish silently, and NATS sets " +
      "the whole amount aside from the start.",
    default: "-1",
    min: -1,
  },
  deliverPolicy: {
    kind: "string",
    description:
      "Where a consumer group begins when it first subscribes: all = with the oldest event kept, so that an app " +
      "which starts after its publisher misses nothing; new = with the next one; last = with the last one. A " +
      "subscription may say otherwise with metadata.",
    default: "all",
    oneOf: ["all", "new", "last"],
  },
  ackWait: {
    kind: "duration",
    description:
      "When the events of a sidecar that vanished go to another one. It is extended for as long as a handler runs.",
    default: "10s",
  },
  concurrency: {
    kind: "integer",
    description: "Events handled at once per subscription.",
    default: "32",
    min: 1,
    max: 10_000,
  },
  backOff: {
    kind: "string",
    description:
      "Comma-separated waits before the 2nd, 3rd, … delivery of a failed event; the last one repeats.",
    default: "100ms,500ms,2s,10s",
  },
  ordered: {
    kind: "boolean",
    description:
      "Events with the same key (publish metadata `orderingKey` or `partitionKey`) are handled one after the other, " +
      "in the order of their publishing, across all replicas of the app. A subscription may say otherwise with " +
      "metadata of the same name. A group that is ordered stays so.",
    default: "false",
    strict: true,
  },
  partitions: {
    kind: "integer",
    description:
      "Into how many parts events with a key are divided: so many of them are handled at once in an ordered " +
      "subscription. Has effect when the stream is created.",
    default: "16",
    min: 1,
    max: 256,
  },
  sharedConsumer: {
    kind: "boolean",
    description:
      "The topics of a consumer group share one NATS consumer in place of one each, so that NATS works no more for " +
      "an event of a thousand topics than for one of a single topic. They share `concurrency` as well: a topic with " +
      "slow handlers holds up the others. Subscriptions that are ordered, broadcast or in bulk, or say themselves " +
      "where they start, keep a consumer of their own, as does every topic that has one already.",
    default: "false",
    strict: true,
  },
  duplicateWindow: {
    kind: "duration",
    description:
      "For how long a repeated publish with the same topic and `cloudevent.id` (of an own CloudEvent: source and id) " +
      "is stored once; at most `maxAge`. Has effect when the stream is created.",
    default: "2m",
  },
  maxDeliver: {
    kind: "integer",
    description: "Deliveries after which an event is given up, -1 = never.",
    default: "-1",
    min: -1,
  },
  publishTimeout: {
    kind: "duration",
    description: "How long a publish is tried while NATS is away.",
    default: "30s",
  },
} as const satisfies MetadataSchema;

type Settings = ComponentContext<typeof metadataSchema>["metadata"];

/** Handlers report progress about once a second; a shorter deadline would pass while one works. */
const minAckWaitMs = 2_000;

const minDuplicateWindowMs = 1_000;
/** NATS keeps all ids of the window in memory. */
const maxDuplicateWindowMs = 24 * 3_600_000;

/** Opens the stream; it is created with the first use and waits for NATS then. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<PubSub> {
  const { mesh, metadata, namespace, name, appId, clock } = context;
  if (metadata.ackWait < minAckWaitMs) throw new Error('metadata field "ackWait": use 2s or more');
  if (metadata.publishTimeout <= 0)
    throw new Error('metadata field "publishTimeout": use a time above 0, e.g. 30s');
  if (metadata.maxAge < 0)
    throw new Error('metadata field "maxAge": use 0 (no limit) or a time such as 168h');
  if (metadata.duplicateWindow < minDuplicateWindowMs || metadata.duplicateWindow > maxDuplicateWindowMs)
    throw new Error('metadata field "duplicateWindow": use a time from 1s to 24h');
  const stream = await mesh.topics({
    name: [namespace, name],
    maxAgeMs: metadata.maxAge,
    maxBytes: metadata.maxBytes,
    partitions: metadata.partitions,
    duplicateWindowMs: metadata.duplicateWindow,
  });
  return new NatsPubSub(
    stream,
    metadata,
    metadata.consumerID?.trim() || appId,
    readBackOff(metadata.backOff),
    { mesh, clock },
  );
}

class NatsPubSub implements PubSub {
  readonly #stream: TopicStream;
  readonly #settings: Settings;
  readonly #group: string;
  readonly #backoffMs: readonly number[];
  readonly #mesh: Mesh;
  readonly #nowMs: () => number;
  readonly #deliver: TopicStart;

  constructor(
    stream: TopicStream,
    settings: Settings,
    group: string,
    backoffMs: readonly number[],
    { mesh, clock }: Pick<ComponentContext, "mesh" | "clock">,
  ) {
    this.#mesh = mesh;
    this.#nowMs = () => clock.nowMs();
    // The schema lets nothing else pass.
    this.#deliver = settings.deliverPolicy as "all" | "new" | "last";
    this.#stream = stream;
    this.#settings = settings;
    this.#group = group;
    this.#backoffMs = backoffMs;
  }

  async publish(message: PublishMessage, signal: AbortSignal): Promise<void> {
    const { topic, data } = message;
    const timeoutMs = this.#settings.publishTimeout;
    // What was dead-lettered must be kept, whatever another program wrote beside it.
    const wishes =
      message.deadLetter === undefined
        ? readPublishWishes(message.metadata, this.#nowMs)
        : keptWishes(message.metadata);
    const id = publishId(message);
    if (wishes.cancel === true) {
      const scheduleId = wishes.scheduleId ?? (hasOwnId(message) ? id : undefined);
      if (scheduleId === undefined)
        throw new RequestRefused("cancelSchedule", "it needs the scheduleId or cloudevent.id of what waits");
      return this.#stream.cancelScheduled(topic, scheduleId, { timeoutMs, signal });
    }
    const options = { id, key: wishes.key, headers: publishHeaders(message), timeoutMs, signal };
    const { time, scheduleId = id } = wishes;
    const timed = time === undefined ? options : { ...options, ...this.#timed(id, time, scheduleId) };
    await this.#stream.publish(topic, data, timed);
  }

  /** The id of the publish, and until when it waits. Throws RequestRefused where nothing may wait. */
  #timed(
    id: string,
    time: NonNullable<PublishWishes["time"]>,
    scheduleId: string,
  ): Pick<TopicPublishOptions, "id" | "schedule"> {
    if (this.#settings.maxBytes > 0)
      throw new RequestRefused(
        time.field,
        "a component with maxBytes drops events that wait when it is full",
      );
    // With the time in it, so that a publish with another time replaces what waits.
    const hash = createHash("sha256").update(JSON.stringify([id, time.field, time.text]));
    return { id: hash.digest("base64url"), schedule: { id: scheduleId, atMs: time.atMs } };
  }

  async subscribe(request: SubscribeRequest, handler: MessageHandler): Promise<Subscription> {
    const { stream } = this.#stream;
    const wishes = readSubscriptionWishes(request.metadata, this.#nowMs());
    const { topic } = request;
    const group = request.group ?? wishes.group ?? this.#group;
    const read = (message: TopicMessage): BrokerMessage => {
      const delivery = { group, subscription: topic, tries: message.deliveries, sequence: message.sequence };
      return request.rawPayload ? fromRaw(message, delivery) : fromStored(message, stream, delivery);
    };
    const ordered = wishes.ordered ?? (this.#settings.ordered && !wishes.broadcast);
    const special = request.batch > 1 || request.atOnce !== undefined || request.untilHandled === true;
    const alone = special || ordered || wishes.broadcast || wishes.start !== undefined;
    const options = {
      topic,
      group,
      // Who takes part in a broadcast wants to hear of changes, not a week of them at each start.
      deliver: wishes.start ?? (wishes.broadcast ? ("new" as const) : this.#deliver),
      broadcast: wishes.broadcast,
      ackWaitMs: this.#settings.ackWait,
      concurrency: Math.max(this.#settings.concurrency, request.batch, request.atOnce ?? 1),
      backoffMs: this.#backoffMs,
      maxDeliver: request.untilHandled === true ? -1 : this.#settings.maxDeliver,
      ordered,
      ...(alone ? {} : { shared: this.#settings.sharedConsumer ? ("join" as const) : ("keep" as const) }),
    };
    return this.#stream.subscribe(options, (message, signal) => handler(read(message), signal));
  }

  awaySinceMs(): number | undefined {
    return meshAwaySinceMs(this.#mesh);
  }

  /** The stream belongs to the mesh; nothing is held here. */
  close(): Promise<void> {
    return Promise.resolve();
  }
}

function readBackOff(text: string): number[] {
  try {
    return parseDurationList(text);
  } catch (cause) {
    throw new Error(`metadata field "backOff": "${text}" is no list of durations; write e.g. 100ms,2s,10s`, {
      cause,
    });
  }
}

const structured = "application/cloudevents+json";
const structuredHeaders: readonly string[] = ["Content-Type", structured];
const rawHeaders: readonly string[] = ["Weft-Raw", "1"];
const metaPrefix = "Weft-Meta-";
/** Of the reason of a dead letter, characters; headers have a limit in NATS. */
const maxReasonLength = 1_000;
const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** An id that the block made is unique; one that an app brought counts within its topic: events may be forwarded. */
function publishId({ topic, id }: PublishMessage): string {
  if (id === undefined) return randomUUID();
  if (uuid.test(id)) return id;
  return createHash("sha256")
    .update(JSON.stringify([topic, id]))
    .digest("base64url");
}

/** True when the app chose the id. */
function hasOwnId({ id }: PublishMessage): boolean {
  return id !== undefined && !uuid.test(id);
}

function publishHeaders({ contentType, metadata, deadLetter }: PublishMessage): readonly string[] {
  const fixed = contentType === undefined ? rawHeaders : structuredHeaders;
  let headers: string[] | undefined;
  for (const name in metadata) {
    if (isForPublishOnly(name)) continue;
    (headers ??= [...fixed]).push(metaPrefix + encodeText(name), encodeText(metadata[name]!) || "%");
  }
  if (deadLetter === undefined) return headers ?? fixed;
  return [...(headers ?? fixed), ...deadLetterHeaders(deadLetter)];
}

/** What `weft dead-letters` shows, and needs to send the event back. */
function deadLetterHeaders({ of, reason }: DeadLetter): string[] {
  const { topic, delivery } = of;
  const why = [
    "Weft-Dead-Topic",
    encodeText(topic) || "%",
    "Weft-Dead-Reason",
    encodeText(cut(reason)) || "%",
  ];
  if (delivery === undefined) return why;
  const { group, subscription, tries, sequence } = delivery;
  return [
    ...why,
    ...[
      "Weft-Dead-Group",
      encodeText(group) || "%",
      "Weft-Dead-Subscription",
      encodeText(subscription) || "%",
    ],
    ...["Weft-Dead-Tries", String(tries), "Weft-Dead-Sequence", String(sequence)],
  ];
}

function cut(reason: string): string {
  return reason.length <= maxReasonLength ? reason : `${reason.slice(0, maxReasonLength)}…`;
}

function metadataOf(message: TopicMessage): Record<string, string> {
  const metadata: Record<string, string> = {};
  for (const [name, value] of message.headers()) {
    if (name.startsWith(metaPrefix)) metadata[decodeText(name.slice(metaPrefix.length))] = decodeText(value);
  }
  return metadata;
}

function fromRaw(message: TopicMessage, delivery: DeliveryPlace): BrokerMessage {
  const { topic, data } = message;
  return { topic, data, metadata: metadataOf(message), contentType: undefined, delivery };
}

function fromStored(message: TopicMessage, stream: string, delivery: DeliveryPlace): BrokerMessage {
  const raw = fromRaw(message, delivery);
  if (message.header("Content-Type") === structured) return { ...raw, contentType: structured };
  if (message.header("Weft-Raw") !== undefined) return raw;
  return { ...raw, data: fromPlainMessage(message, stream), contentType: structured };
}

/**
 * The envelope of a message that another NATS program published. Binary mode: attributes from the `ce-` headers (any
 * case, percent-decoded). Neither `ce-` headers nor a JSON object: an envelope is made up for it, with the message's
 * place in the stream as id, so that it is delivered instead of failing for ever. JSON objects pass as they are.
 */
function fromPlainMessage(message: TopicMessage, stream: string): Uint8Array {
  const attributes: Record<string, unknown> = {};
  let contentType = "";
  for (const [name, value] of message.headers()) {
    const lower = name.toLowerCase();
    if (lower.startsWith("ce-")) attributes[lower.slice("ce-".length)] = decodeText(value);
    else if (lower === "content-type") contentType = value;
  }
  const type = contentType.split(";")[0]!.trim().toLowerCase();
  const text = utf8Text(message.data);
  const json = text === undefined ? undefined : parsedJson(text);
  const binaryMode = attributes["specversion"] !== undefined;
  if (!binaryMode && (type === structured || json?.isObject === true)) return message.data;
  const madeUp = {
    id: `${stream}-${message.sequence}`,
    source: `/${encodeURIComponent(stream)}/${encodeURIComponent(message.topic)}`,
    specversion: "1.0",
    type: "com.dapr.event.sent",
    time: new Date(message.timestampMs).toISOString(),
    topic: message.topic,
  };
  const readsAsJson = type === "" || type === "application/json" || type.endsWith("+json");
  const isJson = readsAsJson && json !== undefined;
  const datacontenttype =
    contentType || (isJson ? "application/json" : text === undefined ? octets : "text/plain");
  const asText = text !== undefined && type !== octets;
  const data = isJson
    ? { data: json.value }
    : asText
      ? { data: text }
      : { data_base64: Buffer.from(message.data).toString("base64") };
  return Buffer.from(goJson({ ...madeUp, ...attributes, datacontenttype, ...data }));
}

const octets = "application/octet-stream";

function utf8Text(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function parsedJson(text: string): { value: unknown; isObject: boolean } | undefined {
  try {
    JSON.parse(text);
    return { value: parseJsonKeepNumbers(text), isObject: /^[ \t\r\n]*\{/.test(text) };
  } catch {
    return undefined;
  }
}
