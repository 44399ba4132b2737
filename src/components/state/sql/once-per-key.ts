/** The writes of a transaction with each key once, so that a store may check and write them in any order. */
import type { StateWrite } from "../../../blocks/state/port.ts";
import { mismatch } from "./mismatch.ts";

/**
 * All checks of a key hold for the state before the transaction and its last write is what is stored. Throws
 * EtagMismatch when two checks of one key cannot both hold.
 */
export function oncePerKey(writes: readonly StateWrite[]): StateWrite[] {
  const byKey = new Map<string, StateWrite>();
  for (const write of writes) {
    const earlier = byKey.get(write.key);
    byKey.set(write.key, earlier === undefined ? write : merged(earlier, write));
  }
  return [...byKey.values()];
}

function merged(earlier: StateWrite, later: StateWrite): StateWrite {
  if (earlier.etag === undefined && !earlier.createOnly) return later;
  const { etag, createOnly } = earlier;
  if (later.etag === undefined && !later.createOnly) return { ...later, etag, createOnly };
  if (later.etag === etag && later.createOnly === createOnly) return later;
  throw mismatch(later.key, `two ETags of key '${later.key.slice(0, 100)}' in one transaction differ`);
}
