/**
 * Every stream and bucket that Weft needs, and how it comes to be: created on first use, repaired when an older
 * configuration lacks a feature, created again when a server lost it (memory streams after a restart).
 */
import { MeshError } from "./errors.ts";
import { JsCode, type JetStream, isJsError } from "./jetstream.ts";
import type { MeshLog } from "./types.ts";

const nanosPerMs = 1_000_000;
/** NATS allows 1,000 by default; a stream of topics serves one consumer per group and topic. */
const maxConsumers = 100_000;
const createTimeoutMs = 10_000;

export type StreamConfig = Readonly<Record<string, unknown>> & { readonly name: string };

/** A KV bucket as any NATS client can open it, with TTL and atomic batches. History is 1: more would break TTL. */
export function bucketConfig(bucket: string, storage: "file" | "memory"): StreamConfig {
  return {
    name: `KV_${bucket}`,
    subjects: [`$KV.${bucket}.>`],
    storage,
    retention: "limits",
    discard: "new",
    max_msgs_per_subject: 1,
    max_consumers: maxConsumers,
    allow_rollup_hdrs: true,
    deny_delete: true,
    allow_direct: true,
    allow_msg_ttl: true,
    // Atomic batches are staged on disk; a memory bucket has no use for them.
    ...(storage === "file" ? { allow_atomic: true } : {}),
  };
}

/** Stream of one component's topics. Limits retention: groups come and go, late ones may replay. */
export function topicsConfig(name: string, base: string, maxAgeMs: number, maxBytes: number): StreamConfig {
  return {
    name,
    subjects: [`${base}.>`],
    storage: "file",
    retention: "limits",
    discard: "old",
    max_age: maxAgeMs * nanosPerMs,
    max_bytes: maxBytes,
    max_consumers: maxConsumers,
    duplicate_window: 120_000 * nanosPerMs,
    allow_direct: true,
    allow_msg_ttl: true,
  };
}

/** Settings that may be switched on later without harm, and that Weft's code relies on. */
const neededFlags = ["allow_direct", "allow_msg_ttl", "allow_atomic"] as const;

export class Topology {
  readonly #js: JetStream;
  readonly #log: MeshLog;
  /** Replicas of each stream that is known to exist, by name. */
  readonly #known = new Map<string, Promise<number>>();
  readonly #memory = new Set<string>();

  constructor(js: JetStream, log: MeshLog) {
    this.#js = js;
    this.#log = log;
  }

  /** Makes sure that the stream is there; resolves with its replica count. Concurrent calls share one attempt. */
  ensure(config: StreamConfig, signal?: AbortSignal): Promise<number> {
    const known = this.#known.get(config.name);
    if (known !== undefined) return known;
    const attempt = this.#createOrAdopt(config, signal);
    this.#known.set(config.name, attempt);
    if (config["storage"] === "memory") this.#memory.add(config.name);
    attempt.catch(() => this.#known.delete(config.name));
    return attempt;
  }

  /** After a reconnect: a restarted server has lost its memory streams, so these are looked at again. */
  forgetMemory(): void {
    for (const name of this.#memory) this.#known.delete(name);
  }

  /** The stream did not answer: look again at the next `ensure`. */
  forget(name: string): void {
    this.#known.delete(name);
  }

  async #createOrAdopt(config: StreamConfig, signal: AbortSignal | undefined): Promise<number> {
    const options = { timeoutMs: createTimeoutMs, signal, idempotent: true };
    try {
      return await this.#create(config, options);
    } catch (error) {
      if (!isJsError(error, JsCode.streamNameInUse)) throw storageError(config.name, error);
    }
    const info = await this.#js.api<{ config: Record<string, unknown> }>(`STREAM.INFO.${config.name}`, undefined, options);
    await this.#repair(config, info.config, options);
    return Number(info.config["num_replicas"] ?? 1);
  }

  /** Three replicas in a cluster that has three servers, else as many as it can place. */
  async #create(config: StreamConfig, options: { timeoutMs: number; signal: AbortSignal | undefined; idempotent: boolean }): Promise<number> {
    const choices = this.#js.connection.clustered() ? [3, 1] : [1];
    for (const [i, replicas] of choices.entries()) {
      try {
        await this.#js.api(`STREAM.CREATE.${config.name}`, { ...config, num_replicas: replicas }, options);
        return replicas;
      } catch (error) {
        const last = i === choices.length - 1;
        if (last || isJsError(error, JsCode.streamNameInUse)) throw error;
        this.#log("debug", `stream ${config.name} with ${replicas} replicas: ${String(error)}; trying fewer`);
      }
    }
    throw new MeshError("storage", "unreachable");
  }

  async #repair(
    wanted: StreamConfig,
    found: Record<string, unknown>,
    options: { timeoutMs: number; signal: AbortSignal | undefined; idempotent: boolean },
  ): Promise<void> {
    const missing = neededFlags.filter((flag) => wanted[flag] === true && found[flag] !== true);
    if (missing.length === 0) return;
    this.#log("warn", `stream ${wanted.name} lacks ${missing.join(", ")}; switching on`);
    const repaired = { ...found, ...Object.fromEntries(missing.map((flag) => [flag, true])) };
    try {
      await this.#js.api(`STREAM.UPDATE.${wanted.name}`, repaired, options);
    } catch (error) {
      throw storageError(wanted.name, error);
    }
  }
}

function storageError(name: string, cause: unknown): unknown {
  if (cause instanceof MeshError) return cause;
  const text = cause instanceof Error ? cause.message : String(cause);
  return new MeshError("storage", `stream ${name}: ${text}`, { cause });
}
