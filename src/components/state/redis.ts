/**
 * State in Redis, a hash per key with the fields of Dapr's component, so data can change hands in both directions.
 * Checks and writes of one call are one script, so a transaction is all or nothing here.
 */
import { createHash } from "node:crypto";
import { withoutMarkupEscapes } from "../../lib/go-json.ts";
import {
  CursorInvalid,
  type StateDelete,
  type StateKeyPage,
  type StateReadOptions,
  type StateRecord,
  type StateSet,
  type StateStore,
  type StateWrite,
} from "../../blocks/state/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { type Redis, type RedisReply, connectRedis } from "../connect/redis.ts";
import { redisFields } from "../connect/redis-fields.ts";
import { changedMeanwhile, noNumber } from "./sql/mismatch.ts";
import { oncePerKey } from "./sql/once-per-key.ts";
import type { ListOptions } from "./sql/page-of.ts";

export const type = "state.redis";
export const versions = ["v1"];
export const capabilities = ["ETAG", "TRANSACTIONAL", "TTL", "KEYS_LIKE"];

export const metadataSchema = {
  ...redisFields,
  ttlInSeconds: { kind: "integer", description: "Time to live of records that are saved without one." },
  queryIndexes: {
    kind: "string",
    description: "Taken without effect: queries, which need RediSearch and RedisJSON, are not supported.",
  },
} as const satisfies MetadataSchema;

/** Longest wait for replicas of a write with strong consistency, ms. */
const replicaWaitMs = 1_000;
/** Calls of SCAN for one page, and the fewest keys that one looks at. */
const maxScans = 200;
const fewKeys = 10;

/** Rejects when Redis cannot be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<StateStore> {
  const { metadata, clock, log, signal } = context;
  if (metadata.queryIndexes !== undefined)
    log.warn(
      "queryIndexes has no effect: this store answers no queries; state.mongodb and state.postgresql v1 do",
    );
  const redis = await connectRedis({ metadata, clock, log, signal });
  try {
    return new RedisStore(redis, metadata.ttlInSeconds, await countReplicas(redis, signal));
  } catch (error) {
    await redis.close();
    throw error;
  }
}

async function countReplicas(redis: Redis, signal: AbortSignal): Promise<number> {
  if (redis.isCluster) return 0;
  const info = await redis.command("", "read", ["INFO", "replication"], signal);
  return Number(/connected_slaves:(\d+)/.exec(String(info))?.[1] ?? 0);
}

/**
 * KEYS: the keys. ARGV per key: kind (`set`, `delete`), expected version (`0` = any), first-write mark (0 or 1),
 * time to live (seconds, 0 = none from now on, empty = as it is), value. Checks all, then writes all; gives the
 * number of the first key that was refused, or 0.
 */
const script = `
local function check(key, kind, expected)
  local version = redis.call('TYPE', key).ok == 'hash' and redis.call('HGET', key, 'version')
  if not version or version == '' or version == expected then return true end
  if expected ~= '0' then return false end
  return kind == 'delete' or redis.call('HEXISTS', key, 'first-write') == 0
end
for i, key in ipairs(KEYS) do
  if not check(key, ARGV[i * 5 - 4], ARGV[i * 5 - 3]) then return i end
end
for i, key in ipairs(KEYS) do
  local kind, _, mark, ttl, value = unpack(ARGV, i * 5 - 4, i * 5)
  if kind == 'delete' then
    redis.call('DEL', key)
  else
    if redis.call('TYPE', key).ok ~= 'hash' then redis.call('DEL', key) end
    redis.call('HSET', key, 'data', value)
    if mark == '1' then redis.call('HSET', key, 'first-write', 0) end
    redis.call('HINCRBY', key, 'version', 1)
    if ttl == '0' then redis.call('PERSIST', key) elseif ttl ~= '' then redis.call('EXPIRE', key, ttl) end
  end
end
return 0`;
const scriptSha = createHash("sha1").update(script).digest("hex");

class RedisStore implements StateStore {
  readonly #redis: Redis;
  readonly #ttlSeconds: number | undefined;
  readonly #replicas: number;

  constructor(redis: Redis, ttlSeconds: number | undefined, replicas: number) {
    this.#redis = redis;
    this.#ttlSeconds = ttlSeconds;
    this.#replicas = replicas;
  }

  async get(key: string, { signal }: StateReadOptions): Promise<StateRecord | undefined> {
    let reply: RedisReply;
    try {
      reply = await this.#redis.command(key, "read", ["HGETALL", key], signal);
    } catch (error) {
      if (!isReply(error, "WRONGTYPE")) throw error;
      // Somebody else's plain text is readable.
      const value = await this.#redis.command(key, "read", ["GET", key], signal);
      return Buffer.isBuffer(value) ? { value, etag: "" } : undefined;
    }
    return recordOf(reply as Buffer[]);
  }

  async set(write: StateSet, signal: AbortSignal): Promise<void> {
    if ((await this.#run([write], "set", signal)) === 0) return this.#wait(write, signal);
    if (write.etag !== undefined) throw changedMeanwhile(write.key);
    throw new Error(
      `failed to set key ${write.key}: it was saved with first-write, so a save needs its ETag`,
    );
  }

  async delete(write: StateDelete, signal: AbortSignal): Promise<void> {
    if ((await this.#run([write], "delete", signal)) !== 0) throw changedMeanwhile(write.key);
    return this.#wait(write, signal);
  }

  async transact(
    writes: readonly StateWrite[],
    _metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    const once = oncePerKey(writes);
    const refused = await this.#run(once, "transaction", signal);
    if (refused > 0) throw changedMeanwhile(once[refused - 1]!.key);
  }

  /** By SCAN, which goes through all keys of the server. */
  async list(prefix: string, { limit, after, signal }: ListOptions): Promise<StateKeyPage> {
    if (this.#redis.isCluster) throw new Error("keys of a Redis cluster cannot be listed");
    const place = readPlace(after);
    const found = new Set(place.left.filter((key) => key.startsWith(prefix)));
    const pattern = `${prefix.replace(/[\\*?[\]]/g, "\\$&")}*`;
    let { cursor } = place;
    for (let scans = 0; cursor !== undefined && found.size < limit && scans < maxScans; scans++) {
      const count = String(Math.max(fewKeys, limit - found.size));
      const args = ["SCAN", cursor, "MATCH", pattern, "COUNT", count, "TYPE", "hash"];
      const [next, keys] = (await this.#redis.command("", "read", args, signal)) as [Buffer, Buffer[]];
      for (const key of keys) found.add(key.toString());
      cursor = next.toString() === "0" ? undefined : next.toString();
    }
    const keys = [...found];
    const left = keys.splice(limit);
    return cursor === undefined && left.length === 0
      ? { keys }
      : { keys, next: JSON.stringify([cursor ?? "", ...left]) };
  }

  awaySinceMs(): number | undefined {
    return this.#redis.awaySinceMs();
  }

  close(): Promise<void> {
    return this.#redis.close();
  }

  async #run(
    writes: readonly StateWrite[],
    call: "set" | "delete" | "transaction",
    signal: AbortSignal,
  ): Promise<number> {
    const keys = writes.map(({ key }) => key);
    const args = writes.flatMap((write) => this.#argumentsOf(write, call));
    const rest = [String(keys.length), ...keys, ...args];
    const first = keys[0]!;
    try {
      return (await this.#redis.command(first, "write", ["EVALSHA", scriptSha, ...rest], signal)) as number;
    } catch (error) {
      if (!isReply(error, "NOSCRIPT")) throw error;
      return (await this.#redis.command(first, "write", ["EVAL", script, ...rest], signal)) as number;
    }
  }

  #argumentsOf(write: StateWrite, call: "set" | "delete" | "transaction"): (string | Buffer)[] {
    if (write.kind === "delete") {
      const expected = call === "delete" ? (write.etag ?? "0") : versionOf(write);
      return ["delete", expected, "0", "", ""];
    }
    const ttlSeconds = write.ttlSeconds ?? this.#ttlSeconds;
    const ttl = ttlSeconds === undefined ? "" : String(Math.max(0, ttlSeconds));
    const bytes = Buffer.from(write.value.buffer, write.value.byteOffset, write.value.byteLength);
    // The library may send later, so it gets bytes that nobody changes.
    const value = write.json ? withoutMarkupEscapes(bytes) : Buffer.from(bytes);
    const concurrency = write.asked?.concurrency;
    const mark = (write.createOnly || concurrency === "first-write") && call === "set" ? "1" : "0";
    const expected = concurrency === "last-write" ? "0" : versionOf(write);
    return ["set", expected, mark, ttl, value];
  }

  async #wait({ key, strong }: StateWrite, signal: AbortSignal): Promise<void> {
    if (strong !== true || this.#replicas === 0) return;
    await this.#redis.command(key, "write", ["WAIT", String(this.#replicas), String(replicaWaitMs)], signal);
  }
}

/** Where SCAN goes on (undefined: it is through), and what it gave beyond a page. */
function readPlace(after: string | undefined): { cursor: string | undefined; left: string[] } {
  if (after === undefined) return { cursor: "0", left: [] };
  let parts: unknown;
  try {
    parts = JSON.parse(after);
  } catch {
    throw new CursorInvalid();
  }
  if (!Array.isArray(parts) || !parts.every((part) => typeof part === "string")) throw new CursorInvalid();
  const [cursor = "", ...left] = parts;
  if (!/^\d{0,20}$/.test(cursor)) throw new CursorInvalid();
  return { cursor: cursor === "" ? undefined : cursor, left };
}

function recordOf(fields: readonly Buffer[]): StateRecord | undefined {
  if (fields.length === 0) return undefined;
  let value: Buffer | undefined;
  let version: Buffer | undefined;
  for (let at = 0; at < fields.length; at += 2) {
    const name = fields[at]!.toString();
    if (name === "data") value = fields[at + 1];
    else if (name === "version") version = fields[at + 1];
  }
  if (value === undefined || version === undefined)
    throw new Error("required hash field 'data' or 'version' was not found");
  return { value, etag: version.toString() };
}

/** The ETag as the script compares it. Throws EtagInvalid for what is no integer. */
function versionOf({ key, etag }: StateWrite): string {
  if (etag === undefined) return "0";
  if (!/^[+-]?\d{1,18}$/.test(etag)) throw noNumber(key, etag);
  return String(Number(etag));
}

function isReply(error: unknown, code: string): boolean {
  return error instanceof Error && error.message.startsWith(code);
}
