/**
 * What every lock store must do, as one suite over the port (src/blocks/lock/port.ts). A store joins by one call of
 * `lockStoreContract` in lockstore.test.ts.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { LockStore } from "../../src/blocks/lock/port.ts";
import { eventually } from "../kit/eventually.ts";

/** `others` are connections of their own to the same store. */
export type LockStoreFixture = { readonly stores: readonly LockStore[]; close(): Promise<void> };

const signal = new AbortController().signal;

/** Runs the suite. `fences`: the store gives fencing numbers. */
export function lockStoreContract(
  name: string,
  { fences }: { readonly fences: boolean },
  open: () => Promise<LockStoreFixture>,
): void {
  describe(`lock store ${name}`, () => {
    let fixture: LockStoreFixture;
    let store: LockStore;
    let other: LockStore;
    beforeAll(async () => {
      fixture = await open();
      store = fixture.stores[0]!;
      other = fixture.stores[1]!;
    }, 60_000);
    afterAll(async () => {
      await fixture?.close();
    });

    const held = { key: "lock||app||held", owner: "a" };

    it("gives a lock once, to nobody else and not again to its owner", async () => {
      expect(await store.tryLock(held, 60, signal)).toBeDefined();
      expect(await other.tryLock({ ...held, owner: "b" }, 60, signal)).toBeUndefined();
      expect(await store.tryLock(held, 60, signal)).toBeUndefined();
    });

    it("takes it back from its owner only, once", async () => {
      expect(await other.unlock({ ...held, owner: "b" }, signal)).toBe("others");
      expect(await store.tryLock(held, 60, signal)).toBeUndefined();
      expect(await other.unlock(held, signal)).toBe("done");
      expect(await store.unlock(held, signal)).toBe("absent");
      expect(await other.tryLock({ ...held, owner: "b" }, 60, signal)).toBeDefined();
    });

    it("knows keys and owners of any text, and an unlock of what never was", async () => {
      const odd = { key: "lock||app||ä b/*>.#\n", owner: "wörker 1\n" };
      expect(await store.unlock(odd, signal)).toBe("absent");
      expect(await store.tryLock(odd, 60, signal)).toBeDefined();
      expect(await other.unlock({ ...odd, owner: "wörker 1" }, signal)).toBe("others");
      expect(await other.unlock(odd, signal)).toBe("done");
    });

    it("gives it to one of many that ask at once", async () => {
      const asked = Array.from({ length: 40 }, (_, i) =>
        fixture.stores[i % 2]!.tryLock({ key: "lock||app||crowd", owner: `o${i}` }, 60, signal),
      );
      expect((await Promise.all(asked)).filter((grant) => grant !== undefined)).toHaveLength(1);
    });

    it("ends a lock when its time is over, not before", async () => {
      const short = { key: "lock||app||short", owner: "a" };
      const startMs = performance.now();
      expect(await store.tryLock(short, 2, signal)).toBeDefined();
      await eventually(
        async () => expect(await other.tryLock({ ...short, owner: "b" }, 60, signal)).toBeDefined(),
        { timeoutMs: 20_000 },
      );
      expect(performance.now() - startMs).toBeGreaterThan(1_900);
      expect(await store.unlock(short, signal)).toBe("others");
    }, 30_000);

    it("numbers its locks upwards, where it can", async () => {
      const request = { key: "lock||app||fence", owner: "a" };
      const first = await store.tryLock(request, 60, signal);
      await store.unlock(request, signal);
      const second = await other.tryLock(request, 60, signal);
      if (fences) expect(second!.fence!).toBeGreaterThan(first!.fence!);
      else expect([first, second]).toEqual([{}, {}]);
    });
  });
}
