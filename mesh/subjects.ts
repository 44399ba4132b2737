/**
 * The only file that builds or parses NATS subjects, bucket, stream and consumer names.
 * Normative text with examples: README.md, "Names". Vectors: test/vectors/subjects.json.
 */
import { createHash } from "node:crypto";
import { MeshError } from "./errors.ts";
import type { TableKey } from "./types.ts";

/** Longest encoded key or topic, bytes. NATS' control line holds 4,096 with reply subject and sizes. */
const maxNameBytes = 2800;
/** Longest stream, bucket or consumer name part before it is replaced by its hash; these become file names. */
const maxFileNameBytes = 180;

const plainToken = /^[A-Za-z0-9_-]+$/;
const plainName = /^[A-Za-z0-9-]+$/;

/** One subject token for any string: `[A-Za-z0-9_-]` stay, every other UTF-8 byte is `=XX`, the empty string is `=`. */
export function encodeToken(text: string): string {
  if (plainToken.test(text)) return text;
  if (text === "") return "=";
  return escapeBytes(text, (byte) => isAlphanumeric(byte) || byte === 0x2d || byte === 0x5f, "=");
}

/** Inverse of encodeToken. Throws MeshError `protocol` for text that encodeToken cannot have made. */
export function decodeToken(token: string): string {
  if (plainToken.test(token)) return token;
  if (token === "=") return "";
  const bytes: number[] = [];
  for (let i = 0; i < token.length; i++) {
    const char = token[i]!;
    if (char !== "=") {
      if (!plainToken.test(char)) throw badToken(token);
      bytes.push(token.charCodeAt(i));
      continue;
    }
    const hex = token.slice(i + 1, i + 3);
    if (!/^[0-9A-F]{2}$/.test(hex)) throw badToken(token);
    bytes.push(Number.parseInt(hex, 16));
    i += 2;
  }
  return Buffer.from(bytes).toString("utf8");
}

function badToken(token: string): MeshError {
  return new MeshError("protocol", `"${token}" is not an encoded subject token (see mesh/README.md, Names)`);
}

/**
 * Part of a bucket, stream or consumer name: `[A-Za-z0-9-]` stay, every other byte is `_XX`, the empty string is `_`.
 * Parts are joined by `__`, which no encoded part contains. Long parts are `_h` and the SHA-256 in hex.
 */
function encodeNamePart(text: string): string {
  if (text.length <= maxFileNameBytes && plainName.test(text)) return text;
  if (text === "") return "_";
  const encoded = escapeBytes(text, (byte) => isAlphanumeric(byte) || byte === 0x2d, "_");
  return encoded.length <= maxFileNameBytes ? encoded : `_h${createHash("sha256").update(text).digest("hex")}`;
}

function escapeBytes(text: string, keep: (byte: number) => boolean, mark: string): string {
  let encoded = "";
  for (const byte of Buffer.from(text, "utf8")) {
    encoded += keep(byte)
      ? String.fromCharCode(byte)
      : `${mark}${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}

function isAlphanumeric(byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a);
}

/** Name of a bucket, stream or consumer from its parts. */
export function joinName(parts: readonly string[]): string {
  return parts.map(encodeNamePart).join("__");
}

/** Framed sidecar-to-sidecar call: `<root>.<ns>.rpc.<app>.<caller ns>.<caller app>`; queue group = encoded app. */
export type CallForm = "rpc" | "call" | "cancel";

export function callSubject(
  root: string,
  form: CallForm,
  target: { namespace: string; app: string },
  caller: { namespace: string; app: string },
): string {
  const callee = `${encodeToken(target.namespace)}.${form}.${encodeToken(target.app)}`;
  return `${encodeToken(root)}.${callee}.${encodeToken(caller.namespace)}.${encodeToken(caller.app)}`;
}

/** What an app's sidecar subscribes to for one form. */
export function callFilter(root: string, form: CallForm, target: { namespace: string; app: string }): string {
  return `${encodeToken(root)}.${encodeToken(target.namespace)}.${form}.${encodeToken(target.app)}.*.*`;
}

/** Caller named by the last two tokens of a call subject. */
export function parseCaller(subject: string): { namespace: string; app: string } {
  const tokens = subject.split(".");
  const app = tokens.at(-1);
  const namespace = tokens.at(-2);
  if (tokens.length !== 6 || app === undefined || namespace === undefined) throw badToken(subject);
  return { namespace: decodeToken(namespace), app: decodeToken(app) };
}

/** Subject of a KV key: `$KV.<bucket>.<part>.<part>`; a key too long for NATS' control line becomes `=h<sha256>`. */
export function keySubject(bucket: string, key: TableKey): string {
  return `$KV.${bucket}.${encodeKey(key)}`;
}

/** Encoded key without the bucket. */
export function encodeKey(key: TableKey): string {
  if (key.length === 0) throw new MeshError("protocol", "a table key needs at least one part");
  const encoded = key.length === 1 ? encodeToken(key[0]!) : key.map(encodeToken).join(".");
  return encoded.length <= maxNameBytes ? encoded : `=h${createHash("sha256").update(encoded).digest("hex")}`;
}

/** True when encodeKey had to hash the key; the full key then stands in the header `Weft-Key`. */
export function isHashedKey(encodedKey: string): boolean {
  return encodedKey.startsWith("=h");
}

/** The unhashed encoded key, as the `Weft-Key` header carries it. */
export function fullKey(key: TableKey): string {
  return key.map(encodeToken).join(".");
}

/** Key of a KV subject of this bucket. */
export function parseKey(encodedKey: string): TableKey {
  return encodedKey.split(".").map(decodeToken);
}

/** All keys below a prefix; an empty prefix means all. */
export function keyFilter(bucket: string, prefix: TableKey): string {
  const encoded = prefix.map(encodeToken).join(".");
  return encoded === "" ? `$KV.${bucket}.>` : `$KV.${bucket}.${encoded}.>`;
}

/** Subject of a topic: dots of the topic separate tokens, so NATS wildcards work. */
export function topicSubject(base: string, topic: string): string {
  return limited(`${base}.${topic.split(".").map(encodeToken).join(".")}`, topic);
}

/** As topicSubject, yet parts that are exactly `*`, and a last part `>`, stay wildcards. */
export function topicFilter(base: string, topic: string): string {
  const parts = topic.split(".");
  const encoded = parts.map((part, i) => {
    const wildcard = part === "*" || (part === ">" && i === parts.length - 1);
    return wildcard ? part : encodeToken(part);
  });
  return limited(`${base}.${encoded.join(".")}`, topic);
}

function limited(subject: string, topic: string): string {
  if (subject.length <= maxNameBytes) return subject;
  const shown = `${topic.slice(0, 40)}…`;
  throw new MeshError("too-large", `topic "${shown}" takes ${subject.length} bytes as a subject, at most ${maxNameBytes}`);
}

/** Topic of a subject below `base`. */
export function parseTopic(base: string, subject: string): string {
  return subject
    .slice(base.length + 1)
    .split(".")
    .map(decodeToken)
    .join(".");
}

/** Base subject of a component's topics: `<root>.<ns>.topic.<component>`. */
export function topicBase(root: string, name: readonly string[]): string {
  const [namespace = "", ...rest] = name;
  return [encodeToken(root), encodeToken(namespace), "topic", ...rest.map(encodeToken)].join(".");
}
