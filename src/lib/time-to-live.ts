/** How long a message or a value may live, as metadata of a request say it. */
import { parseGoDuration } from "./duration.ts";

/** Metadata `ttl`, else `ttlInSeconds`, names in any case; empty when neither is there. */
export function askedTtl(metadata: Readonly<Record<string, string>>): string {
  let ttl = "";
  let ttlInSeconds = "";
  for (const key in metadata) {
    const name = key.toLowerCase();
    if (name === "ttl") ttl = metadata[key]!;
    else if (name === "ttlinseconds") ttlInSeconds = metadata[key]!;
  }
  return ttl || ttlInSeconds;
}

/** Milliseconds of a Go duration, which may be zero or negative, or of a positive count of seconds; else undefined. */
export function readTtlMs(text: string): number | undefined {
  // The usual case; to find out by an error takes long.
  if (text === "") return undefined;
  try {
    return parseGoDuration(text);
  } catch {
    const seconds = /^\+?\d{1,10}$/.test(text) ? Number(text) : 0;
    return seconds > 0 ? seconds * 1000 : undefined;
  }
}

/** Milliseconds that metadata ask for; undefined when they ask for none. Throws Error for a text that is no time. */
export function demandTtlMs(metadata: Readonly<Record<string, string>>): number | undefined {
  const text = askedTtl(metadata);
  const ttlMs = readTtlMs(text);
  if (text !== "" && ttlMs === undefined)
    throw new Error(`metadata ttlInSeconds "${text}" is no time to live; write seconds or e.g. 90s, 15m`);
  return ttlMs;
}
