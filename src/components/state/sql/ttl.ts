/** The time to live of a record as the SQL stores take it. */
import type { StateSet } from "../../../blocks/state/port.ts";

const maxSeconds = 2 ** 31 - 1;

/** What the SQL stores say first. */
export const ttlErrorPrefix = "error parsing TTL: ";

/** Seconds > 0, or undefined for a record without end (-1, 0 and none). Throws with the text clients know. */
export function ttlOf(write: StateSet): number | undefined {
  const seconds = checkedTtl(write, ttlErrorPrefix);
  return seconds === undefined || seconds <= 0 ? undefined : seconds;
}

/** The seconds as given, -1 and 0 included. Throws outside of -1 to 2^31-1. */
export function checkedTtl({ ttlSeconds }: StateSet, prefix = ""): number | undefined {
  if (ttlSeconds === undefined || (ttlSeconds >= -1 && ttlSeconds <= maxSeconds)) return ttlSeconds;
  throw new Error(
    `${prefix}incorrect value for metadata 'ttlInSeconds': ${ttlSeconds} is not between -1 and ${maxSeconds}`,
  );
}
