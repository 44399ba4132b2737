/**
 * What a lock store must do: let one owner at a time hold a key until it gives it back or its time is over. One
 * contract suite (test/contract/lockstore.ts) runs against every store.
 */

/** `key` is the whole key in the store, `owner` the text by which a holder is known. */
export type LockRequest = { readonly key: string; readonly owner: string };

/** A lock that was given. */
export type LockGrant = {
  /**
   * Grows with every lock of this store, so that a resource can refuse a holder whose time was over before a later
   * holder came. Undefined where the store has no such number.
   */
  readonly fence?: number;
};

/** `absent`: nobody holds it; `others`: another owner does. */
export type Unlocked = "done" | "absent" | "others";

/** All methods may run at once and reject with a readable Error. */
export type LockStore = {
  /** As the metadata API lists them, where they hang on the component's metadata; else those of its file. */
  readonly capabilities?: readonly string[];
  /** Undefined when the key is held, by whomever: an owner gets no second lock and no more time. */
  tryLock(request: LockRequest, expirySeconds: number, signal: AbortSignal): Promise<LockGrant | undefined>;
  /** Compares the owner and deletes in one step. */
  unlock(request: LockRequest, signal: AbortSignal): Promise<Unlocked>;
  /** Called once, when no call runs any more. Locks stay. */
  /** Unix ms since when it cannot reach its server; undefined while it can. Absent where it does not tell. */
  awaySinceMs?(): number | undefined;
  close(): Promise<void>;
};
