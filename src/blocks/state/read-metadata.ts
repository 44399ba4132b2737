/** What a read tells about a record beside value and ETag, the same over both protocols. */
import type { StateRecord } from "./port.ts";

/** Of records that tell nothing. */
export const nothing: Readonly<Record<string, string>> = Object.freeze({});

/** Under the names clients know; `nothing` itself when there is nothing to tell. */
export function readMetadata(record: StateRecord): Readonly<Record<string, string>> {
  const { expiresAtMs, metadata = nothing } = record;
  return expiresAtMs === undefined ? metadata : { ...metadata, ttlExpireTime: rfc3339Seconds(expiresAtMs) };
}

/** UTC, fraction cut. */
export function rfc3339Seconds(unixMs: number): string {
  return `${new Date(unixMs).toISOString().slice(0, -5)}Z`;
}
