/**
 * Configuration in Redis: a string per key, `value||version`. Changes come as keyspace notifications, which the server
 * is asked to send.
 */
import {
  type ConfigurationItem,
  type ConfigurationStore,
  type ConfigurationSubscription,
  type Metadata,
  type OnChange,
  deletedItem,
} from "../../blocks/configuration/port.ts";
import { textOf } from "../../lib/thrown.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { type Redis, connectRedis } from "../connect/redis.ts";
import { redisFields } from "../connect/redis-fields.ts";

type Context = ComponentContext<typeof metadataSchema>;

export const type = "configuration.redis";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = { ...redisFields } as const satisfies MetadataSchema;

const separator = "||";
/** Keys read at once. */
const readsAtOnce = 100;
/** Events of one subscription that wait for a read; beyond, a key waits once. */
const maxWaiting = 1_000;

/** Rejects when Redis cannot be reached. */
export async function open(context: Context): Promise<ConfigurationStore> {
  const { metadata, clock, log, signal } = context;
  return new RedisConfiguration(await connectRedis({ metadata, clock, log, signal }), context);
}

class RedisConfiguration implements ConfigurationStore {
  readonly #redis: Redis;
  readonly #context: Context;

  constructor(redis: Redis, context: Context) {
    this.#redis = redis;
    this.#context = context;
  }

  async get(
    keys: readonly string[],
    _metadata: Metadata,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, ConfigurationItem>> {
    const wanted = keys.length > 0 ? [...new Set(keys)] : await this.#allKeys(signal);
    const found = new Map<string, ConfigurationItem>();
    for (let i = 0; i < wanted.length; i += readsAtOnce) {
      const part = wanted.slice(i, i + readsAtOnce);
      const items = await Promise.all(part.map((key) => this.#read(key, signal)));
      for (const [n, key] of part.entries()) if (items[n] !== undefined) found.set(key, items[n]);
    }
    return found;
  }

  async subscribe(
    keys: readonly string[],
    _metadata: Metadata,
    onChange: OnChange,
    signal: AbortSignal,
  ): Promise<ConfigurationSubscription> {
    await this.#askToTell(signal);
    // A server that was started again has forgotten it.
    const onReturn = (): void => void this.#askToTell();
    const prefix = `__keyspace@${this.#context.metadata.redisDB}__:`;
    const reading = this.#readOn(onChange);
    const heard = (channel: string): void => reading.push(channel.slice(prefix.length));
    const stops: (() => Promise<void>)[] = [];
    const stop = async (): Promise<void> => {
      reading.stop();
      await Promise.allSettled(stops.map((end) => end()));
    };
    try {
      if (keys.length === 0) stops.push(await this.#redis.listen("pattern", `${prefix}*`, heard, onReturn));
      for (const key of new Set(keys))
        stops.push(await this.#redis.listen("channel", prefix + key, heard, onReturn));
    } catch (error) {
      await stop();
      throw error;
    }
    return { stop };
  }

  awaySinceMs(): number | undefined {
    return this.#redis.awaySinceMs();
  }

  close(): Promise<void> {
    return this.#redis.close();
  }

  /** Never rejects: a server that does not permit it may have it switched on already. */
  async #askToTell(signal?: AbortSignal): Promise<void> {
    try {
      const args = ["CONFIG", "SET", "notify-keyspace-events", "Kg$xe"];
      await this.#redis.command("", "write", args, signal);
    } catch (error) {
      this.#context.log.debug(`redis: keyspace notifications cannot be switched on: ${textOf(error)}`);
    }
  }

  /** Reads each key that is pushed, in order, and tells it. */
  #readOn(onChange: OnChange): { push(key: string): void; stop(): void } {
    const ending = new AbortController();
    const { signal } = ending;
    const waiting: string[] = [];
    let running = false;
    const run = async (): Promise<void> => {
      running = true;
      for (let key = waiting.shift(); key !== undefined; key = waiting.shift()) {
        try {
          const item = (await this.#read(key, signal)) ?? deletedItem;
          if (!signal.aborted) onChange(key, item);
        } catch (error) {
          if (!signal.aborted)
            this.#context.log.warn(`redis: the change of ${key} cannot be read: ${textOf(error)}`);
        }
      }
      running = false;
    };
    return {
      push(key) {
        if (signal.aborted || (waiting.length >= maxWaiting && waiting.includes(key))) return;
        waiting.push(key);
        if (!running) void run();
      },
      stop() {
        ending.abort(new Error("the subscription ended"));
        waiting.length = 0;
      },
    };
  }

  async #allKeys(signal: AbortSignal): Promise<string[]> {
    const reply = await this.#redis.command("", "read", ["KEYS", "*"], signal);
    return Array.isArray(reply) ? reply.map(String) : [];
  }

  async #read(key: string, signal: AbortSignal): Promise<ConfigurationItem | undefined> {
    let reply;
    try {
      reply = await this.#redis.command(key, "read", ["GET", key], signal);
    } catch (error) {
      // Keys of other kinds are somebody else's.
      if (error instanceof Error && error.message.startsWith("WRONGTYPE")) return undefined;
      throw error;
    }
    const [value = "", version = ""] = reply === null ? [] : String(reply).split(separator);
    return value === "" ? undefined : { value, version, metadata: {} };
  }
}
