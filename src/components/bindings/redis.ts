/** Keys of Redis for the app: set, get, delete, count. */
import type { Binding, BindingRequest, BindingResponse } from "../../blocks/bindings/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { connectRedis, type Redis } from "../connect/redis.ts";
import { redisFields } from "../connect/redis-fields.ts";

export const type = "bindings.redis";
export const versions = ["v1"];
export const capabilities = ["OUTPUT_BINDING"];
export const metadataSchema = redisFields satisfies MetadataSchema;

/** Rejects when Redis cannot be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<Binding> {
  const redis = await connectRedis(context);
  return {
    operations: ["create", "delete", "get", "increment"],
    invoke: (request, signal) => invoke(redis, request, signal),
    awaySinceMs: () => redis.awaySinceMs(),
    close: () => redis.close(),
  };
}

async function invoke(
  redis: Redis,
  { operation, data, metadata }: BindingRequest,
  signal: AbortSignal,
): Promise<BindingResponse | undefined> {
  const key = metadata["key"] ?? "";
  if (key === "") throw new Error("redis binding: missing key in request metadata");
  const expiry = expiryOf(metadata["ttlInSeconds"]);
  switch (operation) {
    case "get": {
      const verb = metadata["delete"] === "true" ? "GETDEL" : "GET";
      const value = await redis.command(key, verb === "GET" ? "read" : "write", [verb, key], signal);
      return { data: Buffer.isBuffer(value) ? value : Buffer.alloc(0), metadata: {} };
    }
    case "delete":
      await redis.command(key, "write", ["DEL", key], signal);
      return undefined;
    case "increment":
      await redis.command(key, "write", ["INCR", key], signal);
      if (expiry !== undefined) await redis.command(key, "write", ["EXPIRE", key, expiry], signal);
      return undefined;
    default: {
      const ttl = expiry === undefined ? [] : ["EX", expiry];
      await redis.command(key, "write", ["SET", key, Buffer.from(data), ...ttl], signal);
      return undefined;
    }
  }
}

/** Seconds as Redis takes them; undefined for none. Throws Error for what is no number of seconds. */
function expiryOf(text: string | undefined): string | undefined {
  if (text === undefined || text === "" || text === "0" || text === "-1") return undefined;
  if (!/^[1-9]\d{0,9}$/.test(text))
    throw new Error(`metadata ttlInSeconds "${text}" is no number of seconds`);
  return text;
}
