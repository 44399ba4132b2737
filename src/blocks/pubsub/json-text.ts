/**
 * JSON as text: rewrites JSON into the one form in which envelopes are stored (compact, keys in ascending byte
 * order, Go's string escapes) without turning it into values, so that every number keeps its digits.
 * On the publish hot path: one pass, and strings that need no change are slices of the input.
 */
import { goJson } from "../../lib/go-json.ts";

/** Nesting beyond which text counts as broken; keeps the recursion far from the end of the stack. */
const maxDepth = 2000;

/** Why a text is no JSON, in Go's words: `EOF` (nothing there), `unexpected EOF` (cut off), `invalid character …`. */
export class JsonTextError extends Error {}

/** Canonical text of the first JSON value of `text`; what follows it is ignored. Throws JsonTextError. */
export function canonicalJson(text: string): string {
  const reader: Reader = { text, at: 0, depth: 0, wide: false };
  skipSpace(reader);
  if (reader.at === text.length) throw new JsonTextError("EOF");
  return readValue(reader);
}

/** Members of the first JSON value of `text`, which must be an object: name to canonical text. Throws JsonTextError. */
export function jsonMembers(text: string): Map<string, string> {
  const reader: Reader = { text, at: 0, depth: 0, wide: false };
  skipSpace(reader);
  if (reader.at === text.length) throw new JsonTextError("EOF");
  if (text.charCodeAt(reader.at) !== braceOpen) {
    const value = readValue(reader);
    throw new JsonTextError(`json: cannot unmarshal ${kindOf(value)} into Go value of type map[string]interface {}`);
  }
  const members = new Map<string, string>();
  for (const [name, , value] of readMembers(reader)) members.set(name, value);
  return members;
}

/** Text of an object with these members, in canonical form. */
export function objectText(members: ReadonlyMap<string, string>): string {
  const parts: Member[] = [];
  for (const [name, value] of members) parts.push([name, jsonString(name), value]);
  return joinMembers(parts, true);
}

// Printable ASCII without the quote, the backslash and the characters that Go escapes for HTML.
const plainText = /^[ !#-%'-;=?-[\]-~]*$/;

/** A string as canonical JSON. */
export function jsonString(value: string): string {
  return plainText.test(value) ? `"${value}"` : goJson(value);
}

/** `wide` is set once a key may hold what UTF-16 and UTF-8 sort differently. */
type Reader = { readonly text: string; at: number; depth: number; wide: boolean };

/** Name as it sorts, quoted key, canonical value. */
type Member = readonly [name: string, key: string, value: string];

const quote = 0x22;
const backslash = 0x5c;
const braceOpen = 0x7b;
const braceClose = 0x7d;
const bracketOpen = 0x5b;
const bracketClose = 0x5d;
const comma = 0x2c;
const colon = 0x3a;
const minus = 0x2d;

function readValue(reader: Reader): string {
  const code = reader.text.charCodeAt(reader.at);
  if (code === quote) return readString(reader);
  if (code === braceOpen) return joinMembers(readMembers(reader), reader.wide);
  if (code === bracketOpen) return readArray(reader);
  if (code === minus || (code >= 0x30 && code <= 0x39)) return readNumber(reader);
  if (code === 0x74) return readWord(reader, "true");
  if (code === 0x66) return readWord(reader, "false");
  if (code === 0x6e) return readWord(reader, "null");
  throw unexpected(reader, "looking for beginning of value");
}

function readMembers(reader: Reader): Member[] {
  enter(reader);
  const members: Member[] = [];
  const { text } = reader;
  if (next(reader) === braceClose) {
    leave(reader);
    return members;
  }
  for (;;) {
    if (text.charCodeAt(reader.at) !== quote) throw unexpected(reader, "looking for beginning of object key string");
    const key = readString(reader);
    skipSpace(reader);
    if (text.charCodeAt(reader.at) !== colon) throw unexpected(reader, "after object key");
    next(reader);
    members.push([nameOf(reader, key), key, readValue(reader)]);
    skipSpace(reader);
    const code = text.charCodeAt(reader.at);
    if (code === braceClose) break;
    if (code !== comma) throw unexpected(reader, "after object key:value pair");
    next(reader);
  }
  leave(reader);
  return members;
}

function readArray(reader: Reader): string {
  enter(reader);
  if (next(reader) === bracketClose) {
    leave(reader);
    return "[]";
  }
  let out = "[";
  for (;;) {
    out += readValue(reader);
    skipSpace(reader);
    const code = reader.text.charCodeAt(reader.at);
    if (code === bracketClose) break;
    if (code !== comma) throw unexpected(reader, "after array element");
    next(reader);
    out += ",";
  }
  leave(reader);
  return `${out}]`;
}

function readString(reader: Reader): string {
  const { text } = reader;
  const start = reader.at;
  let plain = true;
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === quote) {
      reader.at = at + 1;
      const source = text.slice(start, at + 1);
      return plain ? source : goJson(parseString(source));
    }
    if (code === backslash) {
      plain = false;
      reader.wide = true;
      at++;
    } else if (code < 0x20) {
      reader.at = at;
      throw unexpected(reader, "in string literal");
    } else if (code === 0x3c || code === 0x3e || code === 0x26 || code === 0x2028 || code === 0x2029) {
      plain = false;
    } else if (code >= 0xd800) {
      reader.wide = true;
    }
  }
  throw new JsonTextError("unexpected EOF");
}

/** Escapes are rare, so the platform's parser may look at them; a bad one is the only way in which it can fail. */
function parseString(source: string): string {
  try {
    return JSON.parse(source) as string;
  } catch {
    throw new JsonTextError("invalid character in string escape code");
  }
}

const numberForm = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;

function readNumber(reader: Reader): string {
  numberForm.lastIndex = reader.at;
  const match = numberForm.exec(reader.text);
  if (match === null) throw unexpected({ ...reader, at: reader.at + 1 }, "in numeric literal");
  reader.at += match[0].length;
  const code = reader.text.charCodeAt(reader.at);
  // What cannot follow a value is reported by the caller, except the two signs of a number that broke off.
  if (code === 0x2e || code === 0x65 || code === 0x45) {
    throw unexpected({ ...reader, at: reader.at + 1 }, "in numeric literal");
  }
  return match[0];
}

function readWord(reader: Reader, word: string): string {
  if (!reader.text.startsWith(word, reader.at)) {
    let at = reader.at;
    while (reader.text[at] === word[at - reader.at]) at++;
    throw unexpected({ ...reader, at }, `in literal ${word}`);
  }
  reader.at += word.length;
  return word;
}

function nameOf(reader: Reader, key: string): string {
  return reader.wide || key.includes("\\") ? (JSON.parse(key) as string) : key.slice(1, -1);
}

function joinMembers(members: Member[], wide: boolean): string {
  if (members.length === 0) return "{}";
  const compare = wide ? compareBytes : compareText;
  if (!ascending(members, compare)) members = sortMembers(members, compare);
  let out = `{${members[0]![1]}:${members[0]![2]}`;
  for (let at = 1; at < members.length; at++) out += `,${members[at]![1]}:${members[at]![2]}`;
  return `${out}}`;
}

type Compare = (a: string, b: string) => number;

function ascending(members: readonly Member[], compare: Compare): boolean {
  for (let at = 1; at < members.length; at++) {
    if (compare(members[at - 1]![0], members[at]![0]) >= 0) return false;
  }
  return true;
}

/** Sorted, the last of equal names kept. */
function sortMembers(members: readonly Member[], compare: Compare): Member[] {
  const byName = new Map<string, Member>();
  for (const member of members) byName.set(member[0], member);
  return [...byName.values()].sort((a, b) => compare(a[0], b[0]));
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function skipSpace(reader: Reader): void {
  const { text } = reader;
  let at = reader.at;
  for (; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) break;
  }
  reader.at = at;
}

/** Steps over one character and the space behind it; gives the code that stands there. */
function next(reader: Reader): number {
  reader.at++;
  skipSpace(reader);
  return reader.text.charCodeAt(reader.at);
}

function enter(reader: Reader): void {
  if (++reader.depth > maxDepth) throw new JsonTextError("exceeded max depth");
}

function leave(reader: Reader): void {
  reader.depth--;
  reader.at++;
}

function unexpected(reader: Reader, where: string): JsonTextError {
  const char = reader.text[reader.at];
  if (char === undefined) return new JsonTextError("unexpected EOF");
  return new JsonTextError(`invalid character '${char}' ${where}`);
}

function kindOf(text: string): string {
  if (text.startsWith('"')) return "string";
  if (text.startsWith("[")) return "array";
  if (text === "true" || text === "false") return "bool";
  return text === "null" ? "null" : "number";
}
