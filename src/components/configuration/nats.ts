/**
 * Configuration in a JetStream bucket, one per namespace and component name. An item is an entry whose version is its
 * revision, so `nats kv put` changes it; changes are found by looking at the revisions again and again.
 */
import type { Table, TableEntry } from "../../../mesh/index.ts";
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
    description: "How often a subscription looks for changes, at least 100ms.",
    default: "1s",
  },
} as const satisfies MetadataSchema;

const shortestPollMs = 100;
/** Keys of a bucket that a request without keys reads. */
const maxKeys = 10_000;

export async function open(context: Context): Promise<ConfigurationStore> {
  const { mesh, namespace, name, metadata } = context;
  if (metadata.pollInterval < shortestPollMs)
    throw new Error(`metadata field "pollInterval" must be at least ${shortestPollMs}ms`);
  return new NatsConfiguration(await mesh.table({ kind: "configuration", name: [namespace, name] }), context);
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
    const { clock, log, metadata } = this.#context;
    const ending = new AbortController();
    let known = await this.#entries(keys, signal);
    const look = async (): Promise<void> => {
      const found = await this.#entries(keys, ending.signal);
      if (ending.signal.aborted) return;
      const before = known;
      known = found;
      const changed = [...found].filter(([key, { revision }]) => before.get(key)?.revision !== revision);
      for (const [key, entry] of changed.sort(([, a], [, b]) => a.revision - b.revision))
        onChange(key, itemOf(entry));
      for (const key of before.keys()) if (!found.has(key)) onChange(key, deletedItem);
    };
    const watching = (async () => {
      while (!ending.signal.aborted) {
        await clock.sleep(metadata.pollInterval, ending.signal).catch(() => {});
        if (ending.signal.aborted) return;
        // What changed meanwhile is found with the next look.
        await look().catch((error: unknown) => log.debug(`configuration cannot be read: ${textOf(error)}`));
      }
    })();
    return {
      async stop() {
        ending.abort(new Error("the subscription ended"));
        await watching;
      },
    };
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

function itemOf({ value, revision }: TableEntry): ConfigurationItem {
  return { value: Buffer.from(value).toString(), version: String(revision), metadata: {} };
}
