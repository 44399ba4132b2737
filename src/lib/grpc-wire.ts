/**
 * Header forms of gRPC over HTTP/2: timeouts, percent-encoded status messages, metadata and its binary values.
 * Three forms of metadata: `raw` is the flat header list of node:http2; `pairs` are its metadata as on the wire
 * (flat, `-bin` in base64); a `Metadata` map holds decoded values (`-bin` as latin1 text of the raw bytes).
 */
export * from "./grpc-frames.ts";

export type Metadata = ReadonlyMap<string, readonly string[]>;

/** Longest delay a timer takes, ms. */
export const maxTimerMs = 2_147_483_647;

const unitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };
const maxTimeoutDigits = 99_999_999;
const timeoutForm = /^(\d{1,8})([HMSmun])$/;

/** `grpc-timeout` in ms; undefined when it is malformed. */
export function parseTimeout(text: string): number | undefined {
  const match = timeoutForm.exec(text);
  return match === null ? undefined : Number(match[1]) * unitMs[match[2]!]!;
}

/** A time as `grpc-timeout`, rounded up; at least 1 ms. */
export function encodeTimeout(timeMs: number): string {
  const wholeMs = Math.max(1, Math.ceil(timeMs));
  if (wholeMs <= maxTimeoutDigits) return `${wholeMs}m`;
  return `${Math.min(Math.ceil(wholeMs / 1000), maxTimeoutDigits)}S`;
}

/** Text that needs no encoding; a space at either end would be taken for padding of the header. */
const plainText = /^(?! )[ -$&-~]*(?<! )$/;
const oddByte = /^ | $|[^ -$&-~]/g;

/** A status message as `grpc-message`. */
export function percentEncode(text: string): string {
  if (plainText.test(text)) return text;
  return Buffer.from(text, "utf8").toString("latin1").replace(oddByte, percentByte);
}

function percentByte(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
}

/** `grpc-message` as text. Broken escapes stay as they are; bytes that are not UTF-8 become U+FFFD. */
export function percentDecode(text: string): string {
  if (!text.includes("%")) return text;
  const bytes = text.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) =>
    String.fromCharCode(parseInt(hex, 16)),
  );
  return Buffer.from(bytes, "latin1").toString("utf8");
}

/** Names that the transport owns; metadata of these names is never sent. */
const reserved = new Set([
  "content-type",
  "te",
  "user-agent",
  "grpc-timeout",
  "grpc-encoding",
  "grpc-accept-encoding",
  "grpc-message-type",
  "grpc-message",
  "grpc-status",
  "grpc-status-details-bin",
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
  "host",
  "content-length",
]);
const legalName = /^[0-9a-z!#$%&'*+\-.^_`|~]+$/;
// oxlint-disable-next-line no-control-regex -- HTTP/2 takes none of these in a value
const controls = /[\0-\x08\x0a-\x1f\x7f]/;
const aboveLatin1 = /[^\0-\xff]/;

/** Whether metadata of this lower-case name may be sent: not a pseudo header, not the transport's own, legal. */
export function sendableName(name: string): boolean {
  return !reserved.has(name) && legalName.test(name);
}

/** A header value that HTTP/2 takes: trimmed, non-latin1 text as UTF-8 bytes; undefined when it cannot be sent. */
export function headerText(value: string): string | undefined {
  if (controls.test(value)) return undefined;
  const text = aboveLatin1.test(value) ? Buffer.from(value, "utf8").toString("latin1") : value;
  // Not trim(): in latin1 form the last byte of "à" is a no-break space.
  return text.replace(/^[ \t]+|[ \t]+$/g, "");
}

/** Headers of the transport that a proxy hands on, since bytes pass through as they are. */
const relayed = new Set([
  "content-type",
  "user-agent",
  "grpc-timeout",
  "grpc-encoding",
  "grpc-accept-encoding",
]);
/** How a call ended, in wire form. */
const statusNames = new Set(["grpc-status", "grpc-message", "grpc-status-details-bin"]);

/** The wire pairs of `raw` that concern the bytes of the messages and the client, for a proxy. */
export function relayedPairs(raw: readonly string[]): string[] {
  return pickPairs(raw, (name) => relayed.has(name));
}

/** The wire pairs of trailers, with the status among them. */
export function trailerPairs(raw: readonly string[]): string[] {
  return pickPairs(raw, (name) => statusNames.has(name) || sendableName(name));
}

/** Code in trailer pairs; undefined when they have none, or what is no number. */
export function statusCodeOf(pairs: readonly string[]): number | undefined {
  for (let i = 0; i + 1 < pairs.length; i += 2) {
    if (pairs[i] === "grpc-status") return /^\d{1,3}$/.test(pairs[i + 1]!) ? Number(pairs[i + 1]) : undefined;
  }
  return undefined;
}

/** Trailers that say nothing but a status. */
export function statusPairs(code: number, message: string, details?: Uint8Array): string[] {
  const pairs = ["grpc-status", String(code)];
  if (message !== "") pairs.push("grpc-message", percentEncode(message));
  if (details !== undefined) pairs.push("grpc-status-details-bin", encodeBinary(details));
  return pairs;
}

/** Request names that a server gives to its handlers beside plain metadata (as Go's server does). */
const handedOn = new Set([":authority", "content-type", "user-agent", "grpc-accept-encoding"]);

/** Metadata of a request from its raw headers. */
export function readMetadata(raw: readonly string[]): Map<string, string[]> {
  const metadata = new Map<string, string[]>();
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    if (!handedOn.has(name) && (reserved.has(name) || name.startsWith(":"))) continue;
    const values = decodeValues(name, raw[i + 1]!);
    const known = metadata.get(name);
    if (known === undefined) metadata.set(name, values);
    else known.push(...values);
  }
  return metadata;
}

/** Values of one header: binary ones are split at commas and decoded, padded or not. */
export function decodeValues(name: string, value: string): string[] {
  if (!name.endsWith("-bin")) return [value];
  return value.split(",").map((part) => Buffer.from(part.trim(), "base64").toString("latin1"));
}

/** One decoded value as it goes on the wire; undefined when it cannot be sent. */
export function encodeValue(name: string, value: string): string | undefined {
  return name.endsWith("-bin") ? encodeBinary(Buffer.from(value, "latin1")) : headerText(value);
}

/** Unpadded base64. */
export function encodeBinary(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64").replace(/=+$/, "");
}

/** The sendable wire pairs of a flat list: raw headers received, or pairs about to be sent. Names in lower case. */
export function sendablePairs(raw: readonly string[]): string[] {
  return pickPairs(raw, sendableName);
}

function pickPairs(raw: readonly string[], wanted: (name: string) => boolean): string[] {
  const pairs: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    const text = wanted(name) ? headerText(raw[i + 1]!) : undefined;
    if (text !== undefined) pairs.push(name, text);
  }
  return pairs;
}

/** `application/grpc`, alone or followed by `+format` or `;parameters`. */
export function isGrpcContentType(value: string | undefined): boolean {
  if (value === undefined) return false;
  if (value === "application/grpc") return true;
  return /^application\/grpc(?:$|[+;])/i.test(value.trim());
}
