/**
 * Publish/subscribe on Redis streams: a topic is a stream, an app a consumer group. What was not handled stays pending
 * and comes again after `processingTimeout` (Dapr's component acknowledges it all the same and loses it).
 */
import { consumerGroup } from "../component.ts";
import { textOf } from "../../lib/thrown.ts";
import type {
  BrokerMessage,
  MessageHandler,
  PublishMessage,
  PubSub,
  SubscribeRequest,
  Subscription,
} from "../../blocks/pubsub/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { connectRedis, type Redis, type RedisReply } from "../connect/redis.ts";
import { redisFields } from "../connect/redis-fields.ts";

export const type = "pubsub.redis";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  ...redisFields,
  processingTimeout: {
    kind: "duration",
    bareUnit: "ms",
    default: "60s",
    description: "A message that nobody handled for so long goes to the next one; 0: never",
  },
  redeliverInterval: {
    kind: "duration",
    bareUnit: "ms",
    default: "15s",
    description: "How often such messages are looked for; 0: never",
  },
  queueDepth: {
    kind: "integer",
    default: "100",
    min: 1,
    max: 100_000,
    description: "Messages fetched at once",
  },
  concurrency: {
    kind: "integer",
    default: "10",
    min: 1,
    max: 10_000,
    description: "Messages handled at once",
  },
  maxLenApprox: { kind: "integer", min: 0, description: "Messages that a stream keeps, about; 0: all" },
  streamTTL: { kind: "duration", description: "How long a stream keeps its messages, about" },
} as const satisfies MetadataSchema;

type Context = ComponentContext<typeof metadataSchema>;

/** How long one read waits for messages at the server, ms; below every sensible readTimeout. */
const blockMs = 1_000;
const retryMs = 500;

/** Rejects when Redis cannot be reached. */
export async function open(context: Context): Promise<PubSub> {
  return new RedisPubSub(context, await connectRedis(context));
}

class RedisPubSub implements PubSub {
  readonly #context: Context;
  readonly #redis: Redis;
  readonly #group: string;

  constructor(context: Context, redis: Redis) {
    this.#context = context;
    this.#redis = redis;
    this.#group = consumerGroup(context);
  }

  async publish({ topic, data, metadata }: PublishMessage, signal: AbortSignal): Promise<void> {
    const fields = ["data", Buffer.from(data), "metadata", JSON.stringify(metadata)];
    await this.#redis.command(topic, "write", ["XADD", topic, ...this.#trimming(), "*", ...fields], signal);
  }

  async subscribe(request: SubscribeRequest, handler: MessageHandler): Promise<Subscription> {
    const { topic, batch, atOnce = 1, group = this.#group } = request;
    // Reads wait at the server, so each subscription has a connection of its own.
    const redis = await connectRedis(this.#context);
    const reader = new Reader(this.#context, redis, topic, group, Math.max(batch, atOnce), handler);
    try {
      await reader.start();
    } catch (error) {
      await redis.close();
      throw error;
    }
    return reader;
  }

  awaySinceMs(): number | undefined {
    return this.#redis.awaySinceMs();
  }

  close(): Promise<void> {
    return this.#redis.close();
  }

  #trimming(): string[] {
    const { maxLenApprox, streamTTL } = this.#context.metadata;
    if (maxLenApprox) return ["MAXLEN", "~", String(maxLenApprox)];
    if (streamTTL === undefined || streamTTL <= 0) return [];
    return ["MINID", "~", String(this.#context.clock.nowMs() - streamTTL)];
  }
}

type Entry = { readonly id: string; readonly message: BrokerMessage };

class Reader implements Subscription {
  readonly #context: Context;
  readonly #redis: Redis;
  readonly #topic: string;
  readonly #group: string;
  readonly #atOnce: number;
  readonly #handler: MessageHandler;
  /** No more is taken. */
  readonly #ending = new AbortController();
  /** What runs ends. */
  readonly #stopped = new AbortController();
  readonly #running = new Map<string, Promise<void>>();
  #reading: Promise<unknown> = Promise.resolve();
  #room: (() => void) | undefined;

  constructor(
    context: Context,
    redis: Redis,
    topic: string,
    group: string,
    batch: number,
    handler: MessageHandler,
  ) {
    this.#context = context;
    this.#redis = redis;
    this.#topic = topic;
    this.#group = group;
    this.#atOnce = Math.max(context.metadata.concurrency, batch);
    this.#handler = handler;
  }

  async start(): Promise<void> {
    await this.#createGroup();
    this.#reading = Promise.all([this.#readOn(), this.#reclaimOn(), this.#holdOn()]);
  }

  async stop(graceMs: number): Promise<void> {
    this.#ending.abort(new Error("the subscription ends"));
    const late = this.#context.clock.setTimeout(
      () => this.#stopped.abort(new Error("the handler took longer than the grace period")),
      graceMs,
    );
    await Promise.all(this.#running.values());
    late.cancel();
    await this.#redis.close();
    await this.#reading;
  }

  async #createGroup(): Promise<void> {
    const args = ["XGROUP", "CREATE", this.#topic, this.#group, "0", "MKSTREAM"];
    await this.#redis.command(this.#topic, "write", args).catch((error: unknown) => {
      if (!textOf(error).startsWith("BUSYGROUP")) throw error;
    });
  }

  /** New messages, for as long as there is room for them. */
  async #readOn(): Promise<void> {
    await this.#repeat(0, async () => {
      while (this.#running.size >= this.#atOnce) await new Promise<void>((resolve) => (this.#room = resolve));
      const count = Math.min(this.#atOnce - this.#running.size, this.#context.metadata.queueDepth);
      const limits = ["COUNT", String(count), "BLOCK", String(blockMs)];
      const args = ["XREADGROUP", "GROUP", this.#group, this.#group, ...limits, "STREAMS", this.#topic, ">"];
      const reply = await this.#redis.command(this.#topic, "write", args, this.#ending.signal);
      const streams = (reply ?? []) as [Buffer, RedisReply[]][];
      for (const [, entries] of streams)
        for (const entry of entries) this.#take(readEntry(this.#topic, entry));
    });
  }

  /** Messages that another instance, or this one, left unhandled. */
  async #reclaimOn(): Promise<void> {
    const { processingTimeout, redeliverInterval } = this.#context.metadata;
    if (processingTimeout <= 0 || redeliverInterval <= 0) return;
    await this.#repeat(redeliverInterval, async () => {
      const free = this.#atOnce - this.#running.size;
      if (free <= 0) return;
      const idle = await this.#idleSince(processingTimeout, free);
      if (idle.length === 0) return;
      const args = ["XCLAIM", this.#topic, this.#group, this.#group, String(processingTimeout), ...idle];
      const claimed = (await this.#redis.command(this.#topic, "write", args)) as RedisReply[];
      for (const entry of claimed) if (entry !== null) this.#take(readEntry(this.#topic, entry));
    });
  }

  async #idleSince(idleMs: number, most: number): Promise<string[]> {
    const found: string[] = [];
    for (let from = "-"; ;) {
      const args = ["XPENDING", this.#topic, this.#group, from, "+", "100"];
      const page = (await this.#redis.command(this.#topic, "read", args)) as [
        Buffer,
        Buffer,
        number,
        number,
      ][];
      for (const [id, , idle] of page) {
        if (idle >= idleMs && !this.#running.has(id.toString())) found.push(id.toString());
        if (found.length === most) return found;
      }
      if (page.length < 100) return found;
      from = `(${page.at(-1)![0].toString()}`;
    }
  }

  /** Tells Redis that what runs is still being handled, so that nobody else begins with it. */
  async #holdOn(): Promise<void> {
    const { processingTimeout } = this.#context.metadata;
    if (processingTimeout <= 0) return;
    await this.#repeat(processingTimeout / 3, async () => {
      const ids = [...this.#running.keys()];
      if (ids.length === 0) return;
      const args = ["XCLAIM", this.#topic, this.#group, this.#group, "0", ...ids, "JUSTID"];
      await this.#redis.command(this.#topic, "write", args);
    });
  }

  /** Runs a step again and again until the end; a failure is logged and waited out. */
  async #repeat(everyMs: number, step: () => Promise<void>): Promise<void> {
    const { clock, log } = this.#context;
    const { signal } = this.#ending;
    while (!signal.aborted) {
      let waitMs = everyMs;
      try {
        await step();
      } catch (error) {
        if (signal.aborted) return;
        log.warn(`topic ${this.#topic}: ${textOf(error)}`);
        waitMs = Math.max(everyMs, retryMs);
        // The stream, or all of Redis' memory, may be gone.
        if (textOf(error).startsWith("NOGROUP")) await this.#createGroup().catch(() => {});
      }
      if (waitMs > 0) await clock.sleep(waitMs, signal).catch(() => {});
    }
  }

  #take({ id, message }: Entry): void {
    if (this.#ending.signal.aborted || this.#running.has(id)) return;
    const run = this.#handle(id, message).finally(() => {
      this.#running.delete(id);
      this.#room?.();
      this.#room = undefined;
    });
    this.#running.set(id, run);
  }

  async #handle(id: string, message: BrokerMessage): Promise<void> {
    try {
      await this.#handler(message, this.#stopped.signal);
      await this.#redis.command(this.#topic, "write", ["XACK", this.#topic, this.#group, id]);
    } catch (error) {
      this.#context.log.warn(`message ${id} of topic ${this.#topic} stays pending: ${textOf(error)}`);
    }
  }
}

/** An entry without `data` comes from somebody else; its fields are no event and fail as such. */
function readEntry(topic: string, reply: RedisReply): Entry {
  const [id, list] = reply as [Buffer, Buffer[] | null];
  const fields = new Map<string, Buffer>();
  for (let at = 0; list !== null && at + 1 < list.length; at += 2)
    fields.set(list[at]!.toString(), list[at + 1]!);
  const message = {
    topic,
    data: fields.get("data") ?? new Uint8Array(),
    metadata: readMetadata(fields.get("metadata")),
    contentType: undefined,
  };
  return { id: id.toString(), message };
}

function readMetadata(bytes: Buffer | undefined): Record<string, string> {
  if (bytes === undefined || bytes.length === 0) return {};
  try {
    const value = JSON.parse(bytes.toString()) as unknown;
    if (typeof value !== "object" || value === null) return {};
    return Object.fromEntries(Object.entries(value).map(([name, text]) => [name, String(text)]));
  } catch {
    return {};
  }
}
