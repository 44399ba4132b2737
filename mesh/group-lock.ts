/**
 * Who changes the shared consumer of a group now: NATS has no way to change a consumer only if it is as it was read.
 * The lock of a participant that died ends by itself.
 */
import type { Clock } from "./clock.ts";
import { isMeshError, MeshError } from "./errors.ts";
import type { Table, TableKey } from "./types.ts";

/** After this long nobody believes any more that whoever holds the lock is alive, s. */
const lockSeconds = 30;
/** For how long its holder may use it, ms; what it sent last then has arrived before another one takes over. */
const usedMs = 20_000;
/** Longest wait for it, ms. */
const waitMs = 45_000;
const tryMs = 50;

export type GroupLock = {
  readonly table: Table;
  readonly key: TableKey;
  readonly clock: Clock;
  readonly random: () => number;
};

/**
 * Runs `work` while no other participant does; `endMs`: monotonic time by which it must have sent all its changes.
 * Rejects with what `work` threw, or MeshError, `timeout` when others hold the lock all the time.
 */
export async function withLock<T>(lock: GroupLock, work: (endMs: number) => Promise<T>): Promise<T> {
  const { table, key, clock, random } = lock;
  const lateMs = clock.monotonicMs() + waitMs;
  for (;;) {
    const startMs = clock.monotonicMs();
    let revision: number;
    try {
      revision = await table.put(key, new Uint8Array(0), { expect: "absent", ttlSeconds: lockSeconds });
    } catch (error) {
      if (!isMeshError(error, "conflict")) throw error;
      if (startMs > lateMs) throw new MeshError("timeout", "others go on changing the group");
      await clock.sleep(tryMs * (0.5 + random()));
      continue;
    }
    try {
      return await work(startMs + usedMs);
    } finally {
      // Else it ends by itself.
      await table.delete(key, { expect: revision }).catch(() => {});
    }
  }
}
