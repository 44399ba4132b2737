/**
 * Who changes the shared consumer of a group now: NATS has no way to change a consumer only if it is as it was read.
 * The lock of a participant that died ends by itself.
 */
import { isMeshError, MeshError } from "./errors.ts";
import type { JetStream } from "./jetstream.ts";
import type { Table, TableKey } from "./types.ts";

/** After this long nobody believes any more that whoever holds the lock is alive, s. */
const lockSeconds = 30;
/** For how long its holder may use it, ms; what it sent last then has arrived before another one takes over. */
const usedMs = 20_000;
/** Longest wait for it, ms. */
const waitMs = 45_000;
const tryMs = 50;

/**
 * Runs `work` while no other participant does; `endMs`: monotonic time by which it must have sent all its changes.
 * Rejects with what `work` threw, or MeshError, `timeout` when others hold the lock all the time.
 */
export async function withLock<T>(
  js: JetStream,
  locks: Table,
  key: TableKey,
  work: (endMs: number) => Promise<T>,
): Promise<T> {
  const { clock, random } = js.connection.settings;
  const lateMs = clock.monotonicMs() + waitMs;
  for (;;) {
    const startMs = clock.monotonicMs();
    let revision: number;
    try {
      revision = await locks.put(key, new Uint8Array(0), { expect: "absent", ttlSeconds: lockSeconds });
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
      await locks.delete(key, { expect: revision }).catch(() => {});
    }
  }
}
