/** Pages of keys in the order of the keys, as stores make them that can ask for "after this key". */
import { CursorInvalid, type StateKeyPage } from "../../../blocks/state/port.ts";

/** What a store is asked for a page. */
export type ListOptions = {
  readonly limit: number;
  readonly after: string | undefined;
  readonly signal: AbortSignal;
};

/** Behind every text that begins with a prefix, where texts are compared by their code points. */
const lastCharacter = "\u{10ffff}";

/** The keys that may be on a page: from `from` to before `to`, and behind `after`. Throws CursorInvalid. */
export function keyRange(
  prefix: string,
  after = prefix,
): { from: string; to: string; after: string | undefined } {
  if (!after.startsWith(prefix) || after.includes("\0")) throw new CursorInvalid();
  return { from: prefix, to: prefix + lastCharacter, after: after === prefix ? undefined : after };
}

/** `keys`: up to one more than `limit`, in order. The last key of a full page is where the next begins. */
export function pageOf(keys: readonly string[], limit: number): StateKeyPage {
  if (keys.length <= limit) return { keys };
  const page = keys.slice(0, limit);
  return { keys: page, next: page.at(-1)! };
}
