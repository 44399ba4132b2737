/** Keys of Redis for the app: set, get, delete, count. */
import type { Binding, BindingRequest, BindingResponse } from "../../blocks/bindings/port.ts";
import { askedTtl, demandTtlMs } from "../../lib/time-to-live.ts";
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
  const expiryMs = expiryOf(metadata);
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
      if (expiryMs !== undefined) await redis.command(key, "write", ["PEXPIRE", key, expiryMs], signal);
      return undefined;
    default: {
      const ttl = expiryMs === undefined ? [] : ["PX", expiryMs];
      await redis.command(key, "write", ["SET", key, Buffer.from(data), ...ttl], signal);
      return undefined;
    }
  }
}

/** Milliseconds as Redis takes them; undefined for none. Throws Error for what is no time to live. */
function expiryOf(metadata: BindingRequest["metadata"]): string | undefined {
  if (/^(?:0|-1)$/.test(askedTtl(metadata))) return undefined;
  const expiryMs = demandTtlMs(metadata);
  return expiryMs === undefined ? undefined : String(Math.max(1, Math.floor(expiryMs)));
}
