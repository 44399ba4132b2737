import { expect, it } from "vitest";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { openInMemory } from "../../../test/contract/state-block.ts";
import type { StateSet, StateStore } from "../../blocks/state/port.ts";

const signal = new AbortController().signal;

function saving(key: string, ttlSeconds?: number): StateSet {
  const rest = { value: Buffer.from("v"), json: false, etag: undefined, createOnly: false, metadata: {} };
  return { kind: "set", key, ttlSeconds, ...rest };
}

async function fullStore(): Promise<{ store: StateStore; clock: ReturnType<typeof manualClock> }> {
  const clock = manualClock();
  const store = await openInMemory(clock, 2);
  await store.set(saving("a"), signal);
  await store.set(saving("b", 5), signal);
  return { store, clock };
}

it("refuses more keys than maxEntries, but not the change of one it has", async () => {
  const { store } = await fullStore();
  await expect(store.set(saving("c"), signal)).rejects.toThrow("metadata maxEntries is 2; raise maxEntries");
  await store.set(saving("a"), signal);
  await expect(store.transact!([saving("a"), saving("c")], {}, signal)).rejects.toThrow("maxEntries");
  await store.transact!([saving("a"), saving("b"), saving("b")], {}, signal);
});

it("makes room of what has expired", async () => {
  const { store, clock } = await fullStore();
  clock.advance(5_000);
  await store.set(saving("c"), signal);
});

it("makes room by a delete", async () => {
  const { store } = await fullStore();
  await store.delete({ kind: "delete", key: "a", etag: undefined, createOnly: false, metadata: {} }, signal);
  await store.set(saving("c"), signal);
});

it("stops its timer when it is closed", async () => {
  const { store, clock } = await fullStore();
  await store.close();
  expect(() => clock.advance(60_000)).not.toThrow();
});
