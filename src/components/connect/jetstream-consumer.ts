/**
 * The consumer of a stream that a component reads: found or made, brought up to the settings of today, and made again
 * where the reader stood when it is lost. Streams are never created.
 */
import type { Log } from "../../telemetry/log.ts";
import { type JetStream, JetStreamRefusal } from "./jetstream.ts";

/** Fields of JetStream's consumer configuration, by JetStream's names; times in ns. */
export type ConsumerSettings = Readonly<Record<string, unknown>>;

export type ConsumerWish = {
  /** Looked up by the subject when not given. */
  readonly stream: string | undefined;
  readonly subject: string;
  /** Undefined: a consumer of this reader alone, which the server drops soon after it. */
  readonly durable: string | undefined;
  /** Deliver group of a push consumer; members share the messages. */
  readonly group: string | undefined;
  /** How it is made when it is not there. One that is there is taken as it is, pushing or pulled from. */
  readonly mode: "push" | "pull";
  readonly settings: ConsumerSettings;
};

export type Consumer = {
  readonly stream: string;
  readonly name: string;
  /** Undefined: messages are pulled. */
  readonly deliverSubject: string | undefined;
  readonly deliverGroup: string | undefined;
  /** Shortest time until an unanswered message comes again, ms. */
  readonly ackWaitMs: number;
  /** False: the server does not wait for answers. */
  readonly acks: boolean;
};

/** The stream is another one now when `created` is, and its numbers begin anew. */
export type Place = { readonly created: string; readonly sequence: number };

type Config = ConsumerSettings & {
  readonly deliver_subject?: string;
  readonly deliver_group?: string;
  readonly filter_subject?: string;
  readonly ack_wait?: number;
  readonly backoff?: readonly number[];
  readonly ack_policy?: string;
};
type Info = { readonly name: string; readonly config: Config; readonly push_bound?: boolean };
type StreamInfo = { readonly created: string; readonly state: { readonly last_seq: number } };

const notFound = 404;
const nanosPerMs = 1e6;
/** What JetStream uses where nothing is set, ms. */
const defaultAckWaitMs = 30_000;
/** Where a consumer begins counts only when it is made. */
const beginnings: ReadonlySet<string> = new Set(["deliver_policy", "opt_start_seq", "opt_start_time"]);

/**
 * Finds the consumer or makes it; `from` is where a reader that lost it goes on. Rejects with a readable Error when it
 * belongs to somebody else, pushes to a reader that is there, or cannot have these settings.
 */
export async function ensureConsumer(
  js: JetStream,
  wish: ConsumerWish,
  inbox: string,
  log: Log,
  from?: Place,
): Promise<Consumer> {
  const stream = wish.stream ?? (await js.streamOf(wish.subject));
  const found = wish.durable === undefined ? undefined : await find(js, stream, wish.durable);
  const info =
    found === undefined
      ? await create(js, stream, { ...newConfig(wish, inbox), ...(await goOn(js, stream, from)) })
      : await takeOver(js, stream, wish, found, log);
  const { config } = info;
  const waits = config.backoff?.length ? config.backoff : [config.ack_wait ?? defaultAckWaitMs * nanosPerMs];
  return {
    stream,
    name: info.name,
    deliverSubject: config.deliver_subject,
    deliverGroup: config.deliver_group,
    ackWaitMs: Math.min(...waits) / nanosPerMs,
    acks: config.ack_policy !== "none",
  };
}

/** False when the server has no such consumer. Rejects when it cannot be asked. */
export async function hasConsumer(js: JetStream, { stream, name }: Consumer): Promise<boolean> {
  return (await find(js, stream, name)) !== undefined;
}

export async function removeConsumer(js: JetStream, { stream, name }: Consumer): Promise<void> {
  await js.request(`CONSUMER.DELETE.${stream}.${name}`);
}

export async function streamCreated(js: JetStream, stream: string): Promise<string> {
  return (await js.request<StreamInfo>(`STREAM.INFO.${stream}`)).created;
}

async function find(js: JetStream, stream: string, name: string): Promise<Info | undefined> {
  try {
    return await js.request<Info>(`CONSUMER.INFO.${stream}.${name}`);
  } catch (error) {
    if (error instanceof JetStreamRefusal && error.code === notFound) return undefined;
    throw error;
  }
}

function newConfig({ durable, group, subject, mode, settings }: ConsumerWish, inbox: string): Config {
  return {
    ...settings,
    filter_subject: subject,
    ...(durable === undefined ? {} : { durable_name: durable }),
    ...(mode === "push" ? { deliver_subject: inbox } : {}),
    ...(mode === "push" && group !== undefined ? { deliver_group: group } : {}),
  };
}

/** Where a lost consumer's successor begins, unless the stream is a new one. */
async function goOn(js: JetStream, stream: string, from: Place | undefined): Promise<ConsumerSettings> {
  if (from === undefined || (await streamCreated(js, stream)) !== from.created) return {};
  return {
    deliver_policy: "by_start_sequence",
    opt_start_seq: from.sequence,
    opt_start_time: undefined,
  };
}

function create(js: JetStream, stream: string, config: ConsumerSettings): Promise<Info> {
  const { durable_name: durable } = config;
  const what =
    typeof durable === "string"
      ? `CONSUMER.DURABLE.CREATE.${stream}.${durable}`
      : `CONSUMER.CREATE.${stream}`;
  return js.request<Info>(what, { stream_name: stream, config });
}

/** A durable consumer that somebody made before, with what it has delivered so far. */
async function takeOver(
  js: JetStream,
  stream: string,
  wish: ConsumerWish,
  { name, config, push_bound: bound = false }: Info,
  log: Log,
): Promise<Info> {
  const what = `consumer ${name} of stream ${stream}`;
  if ((config.filter_subject ?? "") !== wish.subject) {
    const other = config.filter_subject || "other subjects";
    throw new Error(
      `${what} reads ${other}; a durable consumer serves one subject: name another one for ${wish.subject}`,
    );
  }
  const pushes = config.deliver_subject !== undefined;
  if (pushes && bound && config.deliver_group === undefined)
    throw new Error(`${what} pushes to another client; let both share it by one queue group`);
  if (pushes && wish.group !== undefined && config.deliver_group !== wish.group) {
    const owner =
      config.deliver_group === undefined ? "no queue group" : `queue group ${config.deliver_group}`;
    throw new Error(`${what} belongs to ${owner}, not to ${wish.group}; name that one, or another consumer`);
  }
  const changed = Object.entries(wish.settings).filter(
    ([key, value]) =>
      value !== undefined &&
      !beginnings.has(key) &&
      JSON.stringify(config[key] ?? null) !== JSON.stringify(value),
  );
  if (changed.length === 0) return { name, config };
  log.info(`nats: ${what} gets new settings: ${changed.map(([key]) => key).join(", ")}`);
  return create(js, stream, { ...config, ...Object.fromEntries(changed) });
}
