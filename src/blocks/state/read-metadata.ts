/** What a read tells about a record beside value and ETag, the same over both protocols. */
import type { StateRecord } from "./port.ts";

const nothing: Record<string, string> = Object.freeze({});

/** Under the names clients know; shared when there is nothing to tell. */
export function readMetadata(record: StateRecord): Record<string, string> {
  return record.expiresAtMs === undefined ? nothing : { ttlExpireTime: rfc3339Seconds(record.expiresAtMs) };
}

/** UTC, fraction cut. */
export function rfc3339Seconds(unixMs: number): string {
  return `${new Date(unixMs).toISOString().slice(0, -5)}Z`;
}
