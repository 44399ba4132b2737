/**
 * Every stream and bucket that Weft needs, and how it comes to be: created on first use, repaired when an older
 * configuration lacks a feature, created again when a server lost it (memory streams after a restart).
 */
import { MeshError, cancelledBy, isMeshError, textOf } from "./errors.ts";
import {
  type AttemptOptions,
  JetStreamError,
  JsCode,
  type JetStream,
  type WaitOptions,
  isJsError,
} from "./jetstream.ts";
import { partitionTransform, type TopicTrees } from "./subjects.ts";
import type { MeshLog, TopicStreamOptions } from "./types.ts";

const nanosPerMs = 1_000_000;
/** As long as the tombstone of a delete. */
const markMs = 3_600_000;
/** NATS allows 1,000 by default; a stream of topics serves one consumer per group and topic. */
const maxConsumers = 100_000;
/** Longest time of one attempt to create a stream, all its requests together, ms. */
const createTimeoutMs = 10_000;
const retryWaitMs = 100;
/** Copies of a stream in a cluster that has room for them. */
const wantedReplicas = 3;
/** Metadata of a stream that got fewer: whoever finds it later, in a cluster that has grown, adds the missing ones. */
const replicasMark = "weft-replicas-wanted";

export type StreamConfig = Readonly<Record<string, unknown>> & { readonly name: string };

export type BucketOptions = {
  readonly storage: "file" | "memory";
  /** Values that expire leave a mark. */
  readonly expiryMarks?: boolean;
};

/** A KV bucket as any NATS client can open it, with TTL and atomic batches. History is 1: more would break TTL. */
export function bucketConfig(bucket: string, { storage, expiryMarks = false }: BucketOptions): StreamConfig {
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
    allow_atomic: true,
    ...(expiryMarks ? { subject_delete_marker_ttl: markMs * nanosPerMs } : {}),
  };
}

/** Stream of one component's topics. Limits retention: groups come and go, late ones may replay. */
export function topicsConfig(
  name: string,
  trees: TopicTrees,
  { maxAgeMs, maxBytes, partitions = 16, duplicateWindowMs = 120_000 }: Omit<TopicStreamOptions, "name">,
): StreamConfig {
  // NATS takes no longer window than it keeps messages.
  const windowMs = maxAgeMs > 0 ? Math.min(maxAgeMs, duplicateWindowMs) : duplicateWindowMs;
  return {
    name,
    subjects: [`${trees.plain}.>`, `${trees.keyed}.*.>`, `${trees.timed}.*.>`],
    subject_transform: partitionTransform(trees, partitions),
    storage: "file",
    retention: "limits",
    discard: "old",
    max_age: maxAgeMs * nanosPerMs,
    max_bytes: maxBytes,
    max_consumers: maxConsumers,
    duplicate_window: windowMs * nanosPerMs,
    allow_direct: true,
    allow_msg_ttl: true,
    allow_rollup_hdrs: true,
    allow_msg_schedules: true,
  };
}

/** Settings that may be switched on later without harm, and that Weft's code relies on. */
const neededFlags = ["allow_direct", "allow_msg_ttl", "allow_atomic", "subject_delete_marker_ttl"] as const;

/** The settings of a stream as the server has them. */
export type FoundConfig = Readonly<Record<string, unknown>>;
type StreamInfo = { readonly config: FoundConfig };

export class Topology {
  readonly #js: JetStream;
  readonly #log: MeshLog;
  /** Replicas of each stream that is known to exist. */
  readonly #replicas = new Map<string, number>();
  /** Attempts under way, each shared by all who need the stream. */
  readonly #attempts = new Map<string, Promise<number>>();
  readonly #configs = new Map<string, FoundConfig>();

  constructor(js: JetStream, log: MeshLog) {
    this.#js = js;
    this.#log = log;
  }

  /** Replicas of a stream that is known to exist; undefined: call `ensure` first. */
  replicasOf(stream: string): number | undefined {
    return this.#replicas.get(stream);
  }

  /** Settings of a stream that is known to exist, as they were when it was created or found. */
  configOf(stream: string): FoundConfig | undefined {
    return this.#configs.get(stream);
  }

  /** Makes sure that the stream is there, trying until `endMs`; resolves with its replica count. */
  async ensure(config: StreamConfig, options: WaitOptions): Promise<number> {
    const { clock } = this.#js.connection.settings;
    const { endMs, awayEndMs = endMs, signal } = options;
    for (;;) {
      try {
        return this.#replicas.get(config.name) ?? (await this.#wait(config, options));
      } catch (error) {
        const lastMs = isMeshError(error, "disconnected") ? Math.min(endMs, awayEndMs) : endMs;
        const passing = isMeshError(error, "disconnected", "interrupted", "timeout");
        if (!passing || signal?.aborted || clock.monotonicMs() + retryWaitMs >= lastMs) throw error;
        await clock.sleep(retryWaitMs);
      }
    }
  }

  /** The stream does not answer: looks whether it is there, and creates it when it is not. */
  async refresh(config: StreamConfig, options: WaitOptions): Promise<number> {
    return this.#wait(config, options);
  }

  /** Waits for the shared attempt, which goes on when this caller gives up. */
  #wait(config: StreamConfig, { endMs, signal }: WaitOptions): Promise<number> {
    const attempt = this.#attempt(config);
    const { clock } = this.#js.connection.settings;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(cancelledBy(signal));
      const end = (act: () => void): void => {
        timer.cancel();
        signal?.removeEventListener("abort", onAbort);
        act();
      };
      const onAbort = (): void => end(() => reject(cancelledBy(signal!)));
      const late = new MeshError(
        "disconnected",
        `stream ${config.name} could not be created or found in time`,
      );
      const timer = clock.setTimeout(() => end(() => reject(late)), Math.max(1, endMs - clock.monotonicMs()));
      signal?.addEventListener("abort", onAbort, { once: true });
      attempt.then(
        (replicas) => end(() => resolve(replicas)),
        (error: MeshError) => end(() => reject(error)),
      );
    });
  }

  #attempt(config: StreamConfig): Promise<number> {
    const { name } = config;
    const known = this.#attempts.get(name);
    if (known !== undefined) return known;
    const run = async (): Promise<number> => {
      try {
        const found = await this.#createOrAdopt(config);
        const replicas = Number(found["num_replicas"] ?? 1);
        this.#configs.set(name, found);
        this.#replicas.set(name, replicas);
        return replicas;
      } catch (error) {
        throw storageError(name, error);
      } finally {
        this.#attempts.delete(name);
      }
    };
    const attempt = run();
    this.#attempts.set(name, attempt);
    // Those who wait get the error; it may be that all have given up.
    attempt.catch(() => {});
    return attempt;
  }

  async #createOrAdopt(config: StreamConfig): Promise<FoundConfig> {
    const options = { endMs: this.#js.endIn(createTimeoutMs), repeatMs: Number.POSITIVE_INFINITY };
    // Only a connected server tells whether it belongs to a cluster.
    await this.#js.connection.readyWithin(createTimeoutMs);
    try {
      return await this.#create(config, options);
    } catch (error) {
      if (!isJsError(error, JsCode.streamNameInUse)) throw error;
    }
    const info = await this.#js.api<StreamInfo>(`STREAM.INFO.${config.name}`, undefined, options);
    return this.#repair(config, info.config, options);
  }

  /** Three copies in a cluster that has three servers; one where there is no room for more. */
  async #create(config: StreamConfig, options: AttemptOptions): Promise<FoundConfig> {
    const create = async (more: Readonly<Record<string, unknown>>): Promise<FoundConfig> => {
      const subject = `STREAM.CREATE.${config.name}`;
      return (await this.#js.api<StreamInfo>(subject, { ...config, ...more }, options)).config;
    };
    if (!this.#js.connection.clustered()) return create({ num_replicas: 1 });
    try {
      return await create({ num_replicas: wantedReplicas });
    } catch (error) {
      // Only a cluster that is too small gets fewer: one whose leader or servers are away for a moment must not.
      if (!isJsError(error, JsCode.noSuitablePeers, JsCode.replicasNotSupported)) throw error;
      this.#log(
        "warn",
        `stream ${config.name} gets one copy, the cluster has no room for more: ${textOf(error)}`,
      );
    }
    return create({ num_replicas: 1, metadata: { [replicasMark]: String(wantedReplicas) } });
  }

  /** Resolves with the settings after the repair. */
  async #repair(wanted: StreamConfig, found: FoundConfig, options: AttemptOptions): Promise<FoundConfig> {
    const update = async (change: FoundConfig): Promise<FoundConfig> => {
      const subject = `STREAM.UPDATE.${wanted.name}`;
      return (await this.#js.api<StreamInfo>(subject, change, options)).config;
    };
    let whole = found;
    const missing = neededFlags.filter((flag) => wanted[flag] !== undefined && !found[flag]);
    if (missing.length > 0) {
      this.#log("warn", `stream ${wanted.name} lacks ${missing.join(", ")}; switching on`);
      whole = await update({ ...whole, ...Object.fromEntries(missing.map((flag) => [flag, wanted[flag]])) });
    }
    const additions = additionsTo(whole, wanted);
    if (additions !== undefined) {
      // An operator may have settings that do not go with them; all else works without.
      whole = await update({ ...whole, ...additions }).catch((error: unknown) => {
        if (!(error instanceof JetStreamError)) throw error;
        const what = Object.keys(additions).join(", ");
        this.#log("warn", `stream ${wanted.name} cannot be given ${what}: ${textOf(error)}`);
        return whole;
      });
    }
    return this.#addReplicas(wanted.name, whole, update);
  }

  async #addReplicas(
    name: string,
    found: FoundConfig,
    update: (change: FoundConfig) => Promise<FoundConfig>,
  ): Promise<FoundConfig> {
    const metadata = (found["metadata"] ?? {}) as Readonly<Record<string, unknown>>;
    if (metadata[replicasMark] === undefined || !this.#js.connection.clustered()) return found;
    const replicas = Number(found["num_replicas"] ?? 1);
    try {
      const updated = await update({ ...found, num_replicas: wantedReplicas });
      if (replicas < wantedReplicas) this.#log("info", `stream ${name} now has ${wantedReplicas} copies`);
      return updated;
    } catch (error) {
      this.#log("debug", `stream ${name} still has ${replicas} copies: ${textOf(error)}`);
      return found;
    }
  }
}

/** What a stream of topics that an earlier version made lacks of the present layout; undefined for nothing. */
function additionsTo(found: FoundConfig, wanted: StreamConfig): FoundConfig | undefined {
  if (wanted["subject_transform"] === undefined) return undefined;
  const subjects = (found["subjects"] ?? []) as readonly string[];
  const more = (wanted["subjects"] as readonly string[]).filter((subject) => !subjects.includes(subject));
  const additions: Record<string, unknown> = {};
  if (more.length > 0) additions["subjects"] = [...subjects, ...more];
  for (const flag of ["allow_rollup_hdrs", "allow_msg_schedules"])
    if (found[flag] !== true) additions[flag] = true;
  if (found["subject_transform"] === undefined) additions["subject_transform"] = wanted["subject_transform"];
  return Object.keys(additions).length === 0 ? undefined : additions;
}

function storageError(name: string, cause: unknown): MeshError {
  if (cause instanceof MeshError) return cause;
  return new MeshError("storage", `stream ${name}: ${textOf(cause)}`, { cause });
}
