/**
 * Metadata of an event (of a topic, of a binding) on its way to the app, where each entry becomes a header.
 */
import { canonicalHeader } from "../lib/canonical-header.ts";
import { isToken } from "../lib/http-field.ts";

type Metadata = Readonly<Record<string, string>>;

/** Names that never come from an event: they belong to the transport, or tell an app who calls it. */
const reserved: ReadonlySet<string> = new Set([
  "connection",
  "content-length",
  "content-type",
  "dapr-callee-app-id",
  "dapr-caller-app-id",
  "dapr-caller-namespace",
  "host",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "traceparent",
  "transfer-encoding",
  "upgrade",
]);

const grpcName = /^[a-z0-9_.-]+$/;
// eslint-disable-next-line no-control-regex
const unprintable = /[\x00-\x08\x0a-\x1f\x7f]/g;
const asciiOnly = /^[\x20-\x7e]*$/;

/** Flat name and value list for an HTTP app; names as Go writes them (`pubsubName` -> `Pubsubname`). */
export function httpHeaders(metadata: Metadata): string[] {
  const headers: string[] = [];
  for (const name of Object.keys(metadata)) {
    const lower = name.toLowerCase();
    if (!isToken(name) || lower.endsWith("-bin") || reserved.has(lower)) continue;
    headers.push(canonicalHeader(lower), wireValue(metadata[name]!));
  }
  return headers;
}

/** Flat name and value list for a gRPC app. */
export function grpcMetadata(metadata: Metadata): string[] {
  const list: string[] = [];
  for (const name of Object.keys(metadata)) {
    const lower = name.toLowerCase();
    if (!grpcName.test(lower) || lower.endsWith("-bin") || lower.startsWith("grpc-")) continue;
    if (reserved.has(lower)) continue;
    list.push(lower, wireValue(metadata[name]!));
  }
  return list;
}

/** A value may be any text; on the wire it is UTF-8, which JavaScript's header strings carry as latin1. */
function wireValue(value: string): string {
  if (asciiOnly.test(value)) return value;
  return Buffer.from(value.replace(unprintable, " ")).toString("latin1");
}
