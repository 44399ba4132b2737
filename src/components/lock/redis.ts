/** Locks in one Redis server: a key per lock with the owner as its value, as Dapr's component keeps them. */
import type { LockGrant, LockRequest, LockStore, Unlocked } from "../../blocks/lock/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { type Redis, connectRedis } from "../connect/redis.ts";
import { redisFields } from "../connect/redis-fields.ts";

export const type = "lock.redis";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = { ...redisFields } as const satisfies MetadataSchema;

/** Gives what was found, and deletes the key when it is the owner's: 0 deleted, 1 absent, 2 another owner's. */
const unlockScript = `
local owner = redis.call('GET', KEYS[1])
if not owner then return 1 end
if owner ~= ARGV[1] then return 2 end
redis.call('DEL', KEYS[1])
return 0`;

/** Rejects when Redis cannot be reached, and for servers that may lose a lock when one of them fails. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<LockStore> {
  const { metadata, clock, log, signal } = context;
  if (metadata.redisType === "cluster")
    throw new Error('metadata field "redisType": cluster is not safe for locks; name one server');
  const redis = await connectRedis({ metadata, clock, log, signal });
  try {
    if (!metadata.failover) await refuseReplicas(redis, signal);
    return new RedisLocks(redis);
  } catch (error) {
    await redis.close();
    throw error;
  }
}

async function refuseReplicas(redis: Redis, signal: AbortSignal): Promise<void> {
  const info = await redis.command("", "read", ["INFO", "replication"], signal);
  const replicas = Number(/connected_slaves:(\d+)/.exec(String(info))?.[1] ?? 0);
  if (replicas > 0)
    throw new Error(
      `redis has ${replicas} replicas, which may not know a lock when they take over; use a server without any, ` +
        "or set failover: true with sentinels in redisHost",
    );
}

class RedisLocks implements LockStore {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async tryLock(
    { key, owner }: LockRequest,
    expirySeconds: number,
    signal: AbortSignal,
  ): Promise<LockGrant | undefined> {
    const set = ["SET", key, owner, "NX", "EX", String(expirySeconds)];
    return (await this.#redis.command(key, "write", set, signal)) === null ? undefined : {};
  }

  async unlock({ key, owner }: LockRequest, signal: AbortSignal): Promise<Unlocked> {
    const found = await this.#redis.command(key, "write", ["EVAL", unlockScript, "1", key, owner], signal);
    if (found === 0) return "done";
    return found === 1 ? "absent" : "others";
  }

  awaySinceMs(): number | undefined {
    return this.#redis.awaySinceMs();
  }

  close(): Promise<void> {
    return this.#redis.close();
  }
}
