/** What lists and watches take and give. state.ts has the calls. */
import type { StateChange, StateRecord } from "./port.ts";

/** Keys of one page. `token` asks for the next page; empty when there is none. */
export type KeyPage = { readonly keys: readonly string[]; readonly token: string };

export type WatchTarget = { readonly key: string } | { readonly prefix: string };

/** A change of a key; `key` is empty for the kinds that are about none. `record` is there for `put`. */
export type Change = {
  readonly kind: StateChange["kind"];
  readonly key: string;
  /** Where a later watch may go on. */
  readonly id: string;
  readonly record: StateRecord | undefined;
  /** The value could not be read. */
  readonly error: string | undefined;
};
export const noRecord = Object.freeze({ record: undefined, error: undefined });

/** Keys of one page: at most, and when a client does not say. */
export const maxListed = 10_000;
export const defaultListed = 1_000;
export const maxPrefixChars = 4_096;
export const badId = "Last-Event-ID must be one that an earlier watch of the same store gave";
