/** What lists and watches take and give, and the tokens of pages. state.ts has the calls. */
import { malformedRequest } from "./errors.ts";
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
const maxTokenChars = 16_384;
export const badToken = "token must be one that an earlier page of the same store and prefix gave";
export const badId = "Last-Event-ID must be one that an earlier watch of the same store gave";

/** A store's cursor as clients get it. What it names is checked again by the store, so it needs no seal of ours. */
export function sealToken(store: string, prefix: string, cursor: string): string {
  return Buffer.from(JSON.stringify([store, prefix, cursor])).toString("base64url");
}

/** Throws for text that is no token, or one of another store or prefix. */
export function openToken(token: string, store: string, prefix: string): string {
  try {
    if (token.length > maxTokenChars) throw new Error("too long");
    const parts: unknown = JSON.parse(Buffer.from(token, "base64url").toString());
    if (!Array.isArray(parts) || parts.length !== 3 || parts[0] !== store || parts[1] !== prefix)
      throw new Error("of something else");
    if (typeof parts[2] !== "string") throw new Error("no cursor");
    return parts[2];
  } catch (cause) {
    throw malformedRequest(badToken, cause);
  }
}
