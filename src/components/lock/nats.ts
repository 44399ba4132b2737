/**
 * Locks in a JetStream bucket, one per namespace and component name. A lock is an entry with a time to live whose
 * value is the owner; its revision is the fencing number, which grows with every lock of the bucket.
 */
import { type Table, type TableKey, isMeshError } from "../../../mesh/index.ts";
import type { LockGrant, LockRequest, LockStore, Unlocked } from "../../blocks/lock/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";

export const type = "lock.nats";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];

export const metadataSchema = {
  storage: {
    kind: "string",
    description:
      "Where NATS keeps the locks: file survives a restart of the server, memory does not. " +
      "Has effect when the bucket is created.",
    default: "file",
    oneOf: ["file", "memory"],
  },
} as const satisfies MetadataSchema;

/** How often an unlock looks again when the lock changed hands meanwhile. */
const unlockTries = 5;

export async function open(context: ComponentContext<typeof metadataSchema>): Promise<LockStore> {
  const { mesh, namespace, name, metadata } = context;
  const storage = metadata.storage === "memory" ? "memory" : "file";
  return new NatsLocks(await mesh.table({ kind: "lock", name: [namespace, name], storage }));
}

class NatsLocks implements LockStore {
  readonly #table: Table;

  constructor(table: Table) {
    this.#table = table;
  }

  async tryLock(
    { key, owner }: LockRequest,
    expirySeconds: number,
    signal: AbortSignal,
  ): Promise<LockGrant | undefined> {
    const options = { expect: "absent", ttlSeconds: expirySeconds, signal } as const;
    try {
      return { fence: await this.#table.put(tableKey(key), Buffer.from(owner), options) };
    } catch (error) {
      if (isMeshError(error, "conflict")) return undefined;
      throw error;
    }
  }

  async unlock({ key, owner }: LockRequest, signal: AbortSignal): Promise<Unlocked> {
    for (let tries = 1; ; tries++) {
      const entry = await this.#table.get(tableKey(key), { strong: true, signal });
      if (entry === undefined) return "absent";
      if (Buffer.from(entry.value).toString() !== owner) return "others";
      try {
        await this.#table.delete(tableKey(key), { expect: entry.revision, signal });
        return "done";
      } catch (error) {
        // It ended between the two steps, and somebody may hold it already.
        if (!isMeshError(error, "conflict") || tries === unlockTries) throw error;
      }
    }
  }

  async close(): Promise<void> {
    // The connection is the mesh's, and the bucket stays.
  }
}

/** `lock||shop||r` as [lock, shop, r]: no part of it holds the separator. */
function tableKey(key: string): TableKey {
  return key.split("||");
}
