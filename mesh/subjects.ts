/**
 * The only file that builds or parses NATS subjects, bucket, stream and consumer names.
 * Normative text with examples: README.md, "Names". Vectors: test/vectors/subjects.json.
 */
import { createHash } from "node:crypto";
import { MeshError } from "./errors.ts";
import type { TableKey } from "./types.ts";

/** Longest encoded key, topic or call subject, bytes. NATS' control line holds 4,096 with reply subject and sizes. */
const maxNameBytes = 2800;
/** Longest encoded key before it is hashed, bytes; it travels in a header, and NATS stores 64 KiB of these. */
const maxKeyBytes = 32 * 1024;
/** `=h` and a SHA-256 in hex. */
const hashTokenBytes = 66;
/** Longest part of a stream, bucket or consumer name before it is replaced by its hash; these become file names. */
const maxNamePartBytes = 180;
/** Longest such name; NATS takes 255 with the `KV_` of a bucket. */
const maxJoinedBytes = 240;

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
  const text = Buffer.from(bytes).toString("utf8");
  // One text has one token: else two subjects would name the same caller.
  if (encodeToken(text) !== token) throw badToken(token);
  return text;
}

function badToken(token: string): MeshError {
  return new MeshError("protocol", `"${token}" is not an encoded subject token (see mesh/README.md, Names)`);
}

/**
 * Part of a bucket, stream or consumer name: `[A-Za-z0-9-]` stay, every other byte is `_XX`, the empty string is `_`.
 * Parts are joined by `__`, which no encoded part contains. Long parts are `_h` and the SHA-256 in hex.
 */
function encodeNamePart(text: string): string {
  if (text.length <= maxNamePartBytes && plainName.test(text)) return text;
  if (text === "") return "_";
  const encoded = escapeBytes(text, (byte) => isAlphanumeric(byte) || byte === 0x2d, "_");
  return encoded.length <= maxNamePartBytes ? encoded : `_h${sha256(text)}`;
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

/** Name of a bucket, stream or consumer from its parts; `_h` and the SHA-256 of it when it gets too long. */
export function joinName(parts: readonly string[]): string {
  const name = parts.map(encodeNamePart).join("__");
  return name.length <= maxJoinedBytes ? name : `_h${sha256(name)}`;
}

/** Name of the consumer that the topics of a group share; no part of a name is encoded like that. */
export function sharedName(group: string): string {
  return `${encodeNamePart(group)}___shared`;
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Framed sidecar-to-sidecar call: `<root>.<ns>.rpc.<app>.<caller ns>.<caller app>`; queue group = encoded app. */
export type CallForm = "rpc" | "call" | "cancel";

/** Throws MeshError `too-large` for names that do not fit in a subject. */
export function callSubject(
  root: string,
  form: CallForm,
  target: { namespace: string; app: string },
  caller: { namespace: string; app: string },
): string {
  const callee = `${encodeToken(target.namespace)}.${form}.${encodeToken(target.app)}`;
  const subject = `${encodeToken(root)}.${callee}.${encodeToken(caller.namespace)}.${encodeToken(caller.app)}`;
  return limited(subject, `app "${target.app.slice(0, 40)}"`);
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

/**
 * Where a caller sends the chunks and credit of one call. It ends as the subject of the call does, so that one NATS
 * permission covers both: `<root>.<ns>.inst.<app>.<instance>.<stream>.<caller ns>.<caller app>`.
 */
export function streamSubject(
  root: string,
  callee: { namespace: string; app: string; instance: string },
  stream: string,
  caller: { namespace: string; app: string },
): string {
  return `${instanceBase(root, callee)}.${encodeToken(stream)}.${callerTokens(caller)}`;
}

/** What an instance subscribes to for the streams of its calls. */
export function streamFilter(
  root: string,
  callee: { namespace: string; app: string; instance: string },
): string {
  return `${instanceBase(root, callee)}.*.*.*`;
}

/** The part of a stream subject that names the instance: `<root>.<ns>.inst.<app>.<instance>`. */
export function instanceOf(streamSubject: string): string {
  return streamSubject.split(".").slice(0, 5).join(".");
}

/** True when a callee may name this subject as the place for the caller's frames: an instance's, and of this caller. */
export function isStreamSubject(
  root: string,
  subject: string,
  caller: { namespace: string; app: string },
): boolean {
  const tokens = subject.split(".");
  return (
    tokens.length === 8 &&
    tokens[0] === encodeToken(root) &&
    tokens[2] === "inst" &&
    subject.endsWith(`.${callerTokens(caller)}`) &&
    tokens.every((token) => streamToken.test(token))
  );
}

const streamToken = /^[A-Za-z0-9_=-]+$/;

function instanceBase(root: string, callee: { namespace: string; app: string; instance: string }): string {
  const app = `${encodeToken(callee.namespace)}.inst.${encodeToken(callee.app)}`;
  return `${encodeToken(root)}.${app}.${encodeToken(callee.instance)}`;
}

function callerTokens(caller: { namespace: string; app: string }): string {
  return `${encodeToken(caller.namespace)}.${encodeToken(caller.app)}`;
}

/** False for a reply subject that belongs to NATS or to this mesh: no participant listens there for an answer. */
export function isReplySubject(root: string, subject: string): boolean {
  return !subject.startsWith("$") && !subject.startsWith(`${encodeToken(root)}.`);
}

/** Subject of a KV key: `$KV.<bucket>.<part>.<part>`. */
export function keySubject(bucket: string, key: TableKey): string {
  return `$KV.${bucket}.${encodeKey(key)}`;
}

/**
 * Encoded key without the bucket. In a key too long for NATS' control line, the tokens that do not fit are one token:
 * `=h` and the SHA-256 of the whole encoded key. Throws MeshError `too-large` above 32 KiB.
 */
export function encodeKey(key: TableKey): string {
  const encoded = fullKey(key);
  if (encoded.length <= maxNameBytes) {
    if (encoded === "") throw new MeshError("protocol", "a table key needs at least one part");
    return encoded;
  }
  if (encoded.length > maxKeyBytes) {
    throw new MeshError(
      "too-large",
      `a key of ${encoded.length} encoded bytes is above the limit of ${maxKeyBytes}`,
    );
  }
  const kept = leadingTokens(encoded);
  const hash = `=h${sha256(encoded)}`;
  return kept === "" ? hash : `${kept}.${hash}`;
}

/** The tokens of a long encoded key, or of a prefix of keys, that encodeKey leaves as they are. */
function leadingTokens(encoded: string): string {
  const end = encoded.lastIndexOf(".", maxNameBytes - hashTokenBytes - 1);
  return end < 0 ? "" : encoded.slice(0, end);
}

/** True when encodeKey had to hash the key; the full key then stands in the header `Weft-Key`. */
export function isHashedKey(encodedKey: string): boolean {
  return encodedKey.startsWith("=h", encodedKey.lastIndexOf(".") + 1);
}

/** The unhashed encoded key, as the `Weft-Key` header carries it. */
export function fullKey(key: TableKey): string {
  if (key.length === 1) return encodeToken(key[0]!);
  if (key.length === 2) return `${encodeToken(key[0]!)}.${encodeToken(key[1]!)}`;
  return key.map(encodeToken).join(".");
}

/** Key of an encoded key. Throws MeshError `protocol` for one that another program made up. */
export function parseKey(encodedKey: string): TableKey {
  return encodedKey.split(".").map(decodeToken);
}

/** Takes all keys below a prefix; for a very long prefix also some that are not. An empty prefix means all. */
export function keyFilter(bucket: string, prefix: TableKey): string {
  const encoded = prefix.map(encodeToken).join(".");
  const fits = encoded.length < maxNameBytes - hashTokenBytes;
  const selected = fits ? encoded : leadingTokens(encoded);
  return selected === "" ? `$KV.${bucket}.>` : `$KV.${bucket}.${selected}.>`;
}

/** The places of one component's events in its stream; README.md, "Topics", says what each is for. */
export type TopicTrees = {
  /** `<root>.<ns>.topic.<component>`: events without a key. */
  readonly plain: string;
  /** `<root>.<ns>.keyed.<component>`: where events with a key are published, as `<key>.<topic>` below it. */
  readonly keyed: string;
  /** `<root>.<ns>.*.<component>`: events with and without a key, as they are stored. */
  readonly any: string;
  /** `<root>.<ns>.timed.=.<component>`: events that are not due yet, as `<id>.<topic>` below it. */
  readonly timed: string;
  /** `<root>.<ns>.<n>.<component>`: events with a key as they are stored. */
  partition(n: number): string;
  /** `<root>.<ns>.group.<component>.<group>`: what the members of a group ask each other. */
  group(group: string): string;
};

export function topicTrees(base: string): TopicTrees {
  const [root, namespace, , ...component] = base.split(".");
  const tree = (name: string): string => [root, namespace, name, ...component].join(".");
  return {
    plain: base,
    keyed: tree("keyed"),
    any: tree("*"),
    // `=` is no component: the filter for all events of a topic must not find these.
    timed: tree("timed.="),
    partition: (n) => tree(String(n)),
    group: (group) => limited(`${tree("group")}.${encodeToken(group)}`, `group "${group.slice(0, 40)}"`),
  };
}

/** What NATS does to the subject of an event with a key; the number of partitions stands nowhere else. */
export function partitionTransform(trees: TopicTrees, partitions: number): { src: string; dest: string } {
  const dest = trees.any.replace("*", `{{partition(${partitions},1)}}`);
  return { src: `${trees.keyed}.*.>`, dest: `${dest}.>` };
}

/** Partitions of such a transform; 0 for another one, or none. */
export function partitionsOf(trees: TopicTrees, transform: unknown): number {
  const { src, dest } = (transform ?? {}) as { readonly src?: unknown; readonly dest?: unknown };
  const partitions = Number(/\{\{partition\((\d+),1\)\}\}/.exec(String(dest))?.[1] ?? 0);
  const own = partitionTransform(trees, partitions);
  return src === own.src && dest === own.dest ? partitions : 0;
}

/** Where an event with a key is published. */
export function keyedSubject(trees: TopicTrees, key: string, topic: string): string {
  return topicSubject(`${trees.keyed}.${encodeToken(key)}`, topic);
}

/** Where an event waits; `id` tells it from others of the topic. */
export function timedSubject(trees: TopicTrees, id: string, topic: string): string {
  return topicSubject(`${trees.timed}.${encodeToken(id)}`, topic);
}

/** Subject of a topic: dots of the topic separate tokens, so NATS wildcards work. */
export function topicSubject(base: string, topic: string): string {
  return limited(`${base}.${topic.split(".").map(encodeToken).join(".")}`, topicText(topic));
}

/** As topicSubject, yet parts that are exactly `*`, and a last part `>`, stay wildcards. */
export function topicFilter(base: string, topic: string): string {
  const parts = topic.split(".");
  const encoded = parts.map((part, i) => {
    const wildcard = part === "*" || (part === ">" && i === parts.length - 1);
    return wildcard ? part : encodeToken(part);
  });
  return limited(`${base}.${encoded.join(".")}`, topicText(topic));
}

/** The filter that takes exactly the events of this topic, from the subject of one of them. */
export function filterOfEvent(trees: TopicTrees, subject: string): string {
  if (subject.startsWith(`${trees.plain}.`)) return trees.any + subject.slice(trees.plain.length);
  return [trees.any, ...subject.split(".").slice(trees.plain.split(".").length)].join(".");
}

function topicText(topic: string): string {
  return `topic "${topic.slice(0, 40)}${topic.length > 40 ? "…" : ""}"`;
}

function limited(subject: string, what: string): string {
  if (subject.length <= maxNameBytes) return subject;
  throw new MeshError(
    "too-large",
    `${what} takes ${subject.length} bytes as a subject, at most ${maxNameBytes}`,
  );
}

/**
 * Topic of a subject as it is stored below `base`, or in a partition beside it; tokens that no encoder made, from a
 * program that knows nothing of Weft, stay.
 */
export function parseTopic(base: string, subject: string): string {
  const tokens = subject.startsWith(`${base}.`)
    ? subject.slice(base.length + 1).split(".")
    : subject.split(".").slice(base.split(".").length);
  return tokens
    .map((token) => {
      try {
        return decodeToken(token);
      } catch {
        return token;
      }
    })
    .join(".");
}

/** Base subject of a component's topics: `<root>.<ns>.topic.<component>`. */
export function topicBase(root: string, name: readonly string[]): string {
  const [namespace = "", ...rest] = name;
  return [encodeToken(root), encodeToken(namespace), "topic", ...rest.map(encodeToken)].join(".");
}
