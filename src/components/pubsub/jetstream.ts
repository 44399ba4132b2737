/**
 * Publish/subscribe on JetStream streams that exist already, as Dapr's component keeps it: a topic is a subject, its
 * stream and consumers have the names and settings that the user gives. `pubsub.nats` needs none of that.
 */
import type {
  MessageHandler,
  PublishMessage,
  PubSub,
  SubscribeRequest,
  Subscription,
} from "../../blocks/pubsub/port.ts";
import { parseDurationList } from "../../lib/duration.ts";
import { type ComponentContext, MetadataError, type MetadataSchema } from "../component.ts";
import type { ConsumerSettings } from "../connect/jetstream-consumer.ts";
import { readJetStream } from "../connect/jetstream-reader.ts";
import { type JetStream, openJetStream } from "../connect/jetstream.ts";
import { connectNats, natsLoginFields, subjectFault } from "../connect/nats.ts";

export const type = "pubsub.jetstream";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  natsURL: { kind: "string", required: true, description: "URL of the server, several by comma." },
  ...natsLoginFields,
  token: { kind: "string", secret: true, description: "Instead of `jwt`: token of the server." },
  tls_client_cert: {
    kind: "string",
    description: "Instead of `jwt`: client certificate, a file or PEM. With `tls_client_key`.",
  },
  tls_client_key: { kind: "string", secret: true, description: "Its private key, a file or PEM." },
  name: { kind: "string", default: "dapr.io - pubsub.jetstream", description: "Name of the client." },
  streamName: {
    kind: "string",
    description:
      "Stream that subscriptions read; looked up by the topic when not given. Streams are never created.",
  },
  durableName: {
    kind: "string",
    description:
      "Name of the consumer that keeps what has been handled. One name serves one topic. Without it each start " +
      "begins where `deliverPolicy` says.",
  },
  queueGroupName: {
    kind: "string",
    description: "Instances with the same group share a durable consumer; without it one at a time has it.",
  },
  startSequence: {
    kind: "integer",
    min: 1,
    description: "With deliverPolicy `sequence`: the first message.",
  },
  startTime: { kind: "integer", min: 0, description: "With deliverPolicy `time`: Unix seconds." },
  deliverPolicy: {
    kind: "string",
    default: "all",
    oneOf: ["all", "last", "new", "sequence", "time"],
    description: "Where a new consumer begins",
  },
  ackPolicy: {
    kind: "string",
    default: "explicit",
    oneOf: ["explicit", "all", "none"],
    description:
      "Whether each message is acknowledged, each with all before it, or none (then nothing comes twice)",
  },
  flowControl: {
    kind: "boolean",
    default: "false",
    description: "Flow control; NATS wants `heartbeat` with it",
  },
  ackWait: {
    kind: "duration",
    description:
      "Time after which what has no answer comes again (30s), and the wait after a failure (none). Handlers may run " +
      "longer: it is extended while one does.",
  },
  maxDeliver: { kind: "integer", description: "Deliveries after which a message is given up" },
  backOff: { kind: "string", description: "Instead of ackWait: times by the number of deliveries, by comma" },
  maxAckPending: { kind: "integer", description: "Messages on their way at once, of all instances (1,000)" },
  replicas: { kind: "integer", min: 0, max: 5, description: "Replicas of the consumer; those of the stream" },
  memoryStorage: { kind: "boolean", default: "false", description: "The consumer is kept in memory" },
  rateLimit: { kind: "integer", min: 0, description: "Bits a second" },
  heartbeat: { kind: "duration", description: "Time between signs of life of the server" },
  domain: { kind: "string", description: "Domain of JetStream" },
  apiPrefix: { kind: "string", description: "Prefix of JetStream's subjects, instead of `domain`" },
  concurrencyMode: {
    kind: "string",
    default: "single",
    oneOf: ["single", "parallel"],
    description: "Handlers of one subscription: one after the other, or at once",
  },
} as const satisfies MetadataSchema;

type Settings = ComponentContext<typeof metadataSchema>["metadata"];
type Log = ComponentContext["log"];

const timeoutMs = 5_000;
/** Handlers at once where the user sets no limit. */
const maxParallel = 1_000;
const nanosPerMs = 1e6;

/** Rejects when the server cannot be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<PubSub> {
  const { metadata, clock, log } = context;
  const settings = consumerSettings(metadata, log);
  const { natsURL: url, name, jwt, seedKey, token } = metadata;
  const { tls_client_cert: tlsCert, tls_client_key: tlsKey } = metadata;
  const { headers } = await import("@nats-io/transport-node");
  const link = await connectNats({ url, name, jwt, seedKey, token, tlsCert, tlsKey, timeoutMs, clock, log });
  const js = openJetStream(link, clock, apiPrefix(metadata), timeoutMs);
  return {
    async publish(message: PublishMessage, signal: AbortSignal): Promise<void> {
      const id = idOf(message);
      const withId = id === undefined ? undefined : headers();
      withId?.set("Nats-Msg-Id", id!);
      checkTopic(message.topic);
      await js.publish(message.topic, message.data, withId, signal);
    },
    async subscribe(request, handler) {
      checkTopic(request.topic);
      return subscribe(js, context, settings, request, handler);
    },
    awaySinceMs: () => link.awaySinceMs(),
    close: () => link.close(),
  };
}

/** Throws Error for a topic that is no subject of a stream. Those with `$` are orders to the server. */
function checkTopic(topic: string): void {
  const fault = topic.startsWith("$") ? `"${topic}" is a subject of the server` : subjectFault(topic);
  if (fault !== undefined) throw new Error(`nats: topic ${fault}`);
}

function subscribe(
  js: JetStream,
  { metadata, clock, log }: ComponentContext<typeof metadataSchema>,
  settings: ConsumerSettings,
  { topic, group: asked, atOnce = 1 }: SubscribeRequest,
  handler: MessageHandler,
): Promise<Subscription> {
  const { streamName: stream, durableName, queueGroupName, ackPolicy, ackWait } = metadata;
  // A group besides the app's own has a consumer of its own for each topic.
  const own = asked === undefined ? undefined : `${asked}-${topic}`.replace(/[^\w-]/g, "_");
  const [durable, group] = own === undefined ? [durableName, queueGroupName] : [own, own];
  // Under `all` an answer speaks for what came before it, so there must be nothing unhandled before it.
  const single = metadata.concurrencyMode === "single" || ackPolicy === "all";
  return readJetStream({
    js,
    wish: { stream, subject: topic, durable, group, mode: "push", settings },
    concurrency: Math.max(single ? 1 : maxParallel, atOnce),
    retryMs: () => ackWait ?? 0,
    clock,
    log,
    handler: ({ subject, data }, signal) =>
      handler({ topic: subject, data, metadata: { Topic: subject }, contentType: undefined }, signal),
  });
}

function apiPrefix({ domain, apiPrefix: prefix }: Settings): string {
  if (prefix !== undefined) return prefix.replace(/\.+$/, "");
  return domain === undefined ? "$JS.API" : `$JS.${domain}.API`;
}

const policies = {
  all: "all",
  last: "last",
  new: "new",
  sequence: "by_start_sequence",
  time: "by_start_time",
} as const;

/** By JetStream's names. Throws MetadataError for a policy without its field. */
function consumerSettings(metadata: Settings, log: Log): ConsumerSettings {
  const { deliverPolicy, startSequence, startTime, flowControl, memoryStorage } = metadata;
  const begin = startTime === undefined ? undefined : new Date(startTime * 1000).toISOString();
  const only = onlyWith(deliverPolicy, log);
  const given = {
    deliver_policy: policies[deliverPolicy as keyof typeof policies],
    opt_start_seq: only("sequence", "startSequence", startSequence),
    opt_start_time: only("time", "startTime", begin),
    ack_policy: metadata.ackPolicy,
    flow_control: flowControl || undefined,
    ack_wait: nanos(metadata.ackWait),
    max_deliver: metadata.maxDeliver,
    backoff: backOffOf(metadata.backOff),
    max_ack_pending: metadata.maxAckPending,
    num_replicas: metadata.replicas,
    mem_storage: memoryStorage || undefined,
    rate_limit_bps: metadata.rateLimit,
    idle_heartbeat: nanos(metadata.heartbeat),
    replay_policy: "instant",
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

function nanos(timeMs: number | undefined): number | undefined {
  return timeMs === undefined ? undefined : timeMs * nanosPerMs;
}

/** A field of one policy. JetStream refuses it beside another one, as the example of Dapr's pages has it. */
function onlyWith(policy: string, log: Log) {
  return <T>(wanted: string, field: string, value: T | undefined): T | undefined => {
    if ((value !== undefined) === (policy === wanted)) return value;
    const told = `metadata field "${field}" and deliverPolicy "${wanted}" go together`;
    if (value === undefined) throw new MetadataError(field, `${told}; give both or neither`);
    log.warn(`${told}: the field is ignored`);
    return undefined;
  };
}

function backOffOf(text: string | undefined): number[] | undefined {
  if (text === undefined) return undefined;
  try {
    return parseDurationList(text).map((waitMs) => waitMs * nanosPerMs);
  } catch (cause) {
    const fix = "is no list of durations; write e.g. 1s,5s,30s";
    throw new MetadataError("backOff", `metadata field "backOff": "${text}" ${fix}`, cause);
  }
}

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The JSON member `id` of what is published, by which the server drops a repeated event. */
function idOf({ id, data, contentType, deadLetter, waiting }: PublishMessage): string | undefined {
  // One event in two topics, often of one stream: the second must not be taken for a repetition of the first.
  if (deadLetter !== undefined || waiting === true) return undefined;
  // The id of an envelope that the sidecar made; no need to read it again.
  if (contentType !== undefined && id !== undefined && uuid.test(id)) return id;
  try {
    const value = JSON.parse(Buffer.from(data).toString()) as { id?: unknown } | null;
    const own = value?.id;
    // A header holds no line breaks.
    return typeof own === "string" && own !== "" && !/[\r\n]/.test(own) ? own : undefined;
  } catch {
    return undefined;
  }
}
