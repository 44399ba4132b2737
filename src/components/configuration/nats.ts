/**
 * Configuration in a JetStream bucket, one per namespace and component name. An item is an entry whose version is its
 * revision, so `nats kv put` changes it; a subscription is a watch of the bucket.
 */
import type { Table, TableChange, TableEntry } from "../../../mesh/index.ts";
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

type Context = ComponentContext<typeof metadataSchema>;

export const type = "configuration.nats";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  pollInterval: {
    kind: "duration",
    description: "Accepted, without effect: changes are told at once.",
    default: "1s",
  },
} as const satisfies MetadataSchema;

/** Keys of a bucket that a request without keys reads. */
const maxKeys = 10_000;
/** Between two tries to read what a lost watch may have missed, ms. */
const firstWaitMs = 100;
const maxWaitMs = 5_000;

export async function open(context: Context): Promise<ConfigurationStore> {
  const { mesh, namespace, name } = context;
  const bucket = { kind: "configuration", name: [namespace, name], expiryMarks: true };
  return new NatsConfiguration(await mesh.table(bucket), context);
}

class NatsConfiguration implements ConfigurationStore {
  readonly #table: Table;
  readonly #context: Context;

  constructor(table: Table, context: Context) {
    this.#table = table;
    this.#context = context;
  }

  async get(
    keys: readonly string[],
    _metadata: Metadata,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, ConfigurationItem>> {
    return new Map([...(await this.#entries(keys, signal))].map(([key, entry]) => [key, itemOf(entry)]));
  }

  async subscribe(
    keys: readonly string[],
    _metadata: Metadata,
    onChange: OnChange,
    signal: AbortSignal,
  ): Promise<ConfigurationSubscription> {
    const ending = new AbortController();
    const onAbort = (): void => ending.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const target = keys.length === 1 ? { key: [keys[0]!] } : { prefix: [] };
    const changes = await this.#table.watch(target, { signal: ending.signal });
    try {
      await changes.next();
      const known = revisionsOf(await this.#entries(keys, ending.signal));
      const telling = this.#tell(changes, keys, known, onChange, ending.signal);
      return {
        async stop() {
          ending.abort(new Error("the subscription ended"));
          await telling;
        },
      };
    } catch (error) {
      ending.abort(error);
      await changes.return?.();
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Never rejects. `known`: revisions that subscribers know of. */
  async #tell(
    changes: AsyncIterable<TableChange>,
    keys: readonly string[],
    known: Map<string, number>,
    onChange: OnChange,
    signal: AbortSignal,
  ): Promise<void> {
    const wanted = keys.length === 0 ? undefined : new Set(keys);
    try {
      for await (const change of changes) {
        if (signal.aborted) return;
        if (change.kind === "reset") {
          await this.#tellDifference(keys, known, onChange, signal);
          continue;
        }
        if (!("key" in change) || change.key.length !== 1) continue;
        const key = change.key[0]!;
        if (wanted?.has(key) === false) continue;
        if (change.kind !== "put") known.delete(key);
        else if (known.has(key) || known.size < maxKeys) known.set(key, change.entry.revision);
        onChange(key, change.kind === "put" ? itemOf(change.entry) : deletedItem);
      }
    } catch (error) {
      if (!signal.aborted) this.#context.log.warn(`configuration is watched no longer: ${textOf(error)}`);
    }
  }

  /** The watch may have missed changes, as when the bucket is another one. */
  async #tellDifference(
    keys: readonly string[],
    known: Map<string, number>,
    onChange: OnChange,
    signal: AbortSignal,
  ): Promise<void> {
    const found = await this.#entriesAtLast(keys, signal);
    for (const [key, entry] of found) if (known.get(key) !== entry.revision) onChange(key, itemOf(entry));
    for (const key of known.keys()) if (!found.has(key)) onChange(key, deletedItem);
    known.clear();
    for (const [key, revision] of revisionsOf(found)) known.set(key, revision);
  }

  /** Gives up for the signal only. */
  async #entriesAtLast(keys: readonly string[], signal: AbortSignal): Promise<Map<string, TableEntry>> {
    const { clock, log } = this.#context;
    for (let waitMs = firstWaitMs; ; waitMs = Math.min(2 * waitMs, maxWaitMs)) {
      try {
        return await this.#entries(keys, signal);
      } catch (error) {
        signal.throwIfAborted();
        log.debug(`configuration: ${textOf(error)}; reading again what the watch may have missed`);
        await clock.sleep(waitMs, signal);
      }
    }
  }

  async close(): Promise<void> {
    // The connection is the mesh's, and the bucket stays.
  }

  async #entries(keys: readonly string[], signal: AbortSignal): Promise<Map<string, TableEntry>> {
    const wanted = keys.length > 0 ? [...new Set(keys)] : await this.#allKeys();
    const entries = await this.#table.getMany(
      wanted.map((key) => [key]),
      { signal },
    );
    const found = new Map<string, TableEntry>();
    for (const [n, key] of wanted.entries()) if (entries[n] !== undefined) found.set(key, entries[n]);
    return found;
  }

  async #allKeys(): Promise<string[]> {
    const keys = await this.#table.list([], maxKeys);
    return keys.filter((key) => key.length === 1).map(([name]) => name!);
  }
}

function revisionsOf(entries: ReadonlyMap<string, TableEntry>): Map<string, number> {
  return new Map([...entries].map(([key, { revision }]) => [key, revision]));
}

function itemOf({ value, revision }: TableEntry): ConfigurationItem {
  return { value: Buffer.from(value).toString(), version: String(revision), metadata: {} };
}
