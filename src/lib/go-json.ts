/**
 * JSON as Go's encoding/json writes and reads it, because Dapr's clients see that text: map keys in byte order,
 * `<`, `>`, `&`, U+2028 and U+2029 escaped, numbers in ECMAScript form, and Go's words for malformed input.
 * Values that need none of this go through the engine's own JSON functions.
 */
import { type GoJsonReader, scanGoJson } from "./go-json-error.ts";

/** Parts of the JSON object that the compiler's library does not describe yet. */
type SourceTextJson = {
  rawJSON(text: string): unknown;
  isRawJSON(value: unknown): boolean;
  parse(
    text: string,
    reviver: (key: string, value: unknown, context: { readonly source?: string }) => unknown,
  ): unknown;
};
const sourceTextJson = JSON as unknown as SourceTextJson;

/** Deeper values are refused: the engine's own writer ends near 4,000 levels. */
const MAX_DEPTH = 2_000;
const MARKUP = /[<>&\u2028\u2029]/;
const EACH_MARKUP = /[<>&\u2028\u2029]/g;
const MARKUP_ESCAPE = /^\\u(?:003[ce]|0026|202[89])$/;
const BLANK = /[ \t\r\n]/;
const EACH_BLANK = /[ \t\r\n]+/g;
/** The engine's way to write half of a surrogate pair. */
const HALF_PAIR = /\\ud[89a-f]/;
/** Where both are present, UTF-16 order, which the engine compares by, may not be the order of the UTF-8 bytes. */
const SURROGATE = /[\ud800-\udfff]/;
const ABOVE_SURROGATES = /[\ue000-\uffff]/;
/** A string that is its own JSON form between two quotes. */
// oxlint-disable-next-line no-control-regex -- JSON escapes exactly these control characters
const PLAIN_STRING = /^[^"\\\u0000-\u001f\ud800-\udfff]*$/;
/** Finds every text in which a number may not be what ECMAScript would print; strings may match too. */
const ODD_NUMBER = /(?:^|[:,[\s])-?(?:[\d.]+[eE]|0(?<=-0)(?![\d.])|\d+\.\d*0(?!\d)|[\d.]{16}|0\.00000)/;
/** Finds every text in which a number may be above the largest double. */
const HUGE_NUMBER = /\d[eE]\+?\d{3}|\d{200}/;

/** Malformed JSON, too deep a value, or a number that no double holds. The message is Go's. */
export class GoJsonError extends SyntaxError {
  override readonly name = "GoJsonError";
}

/**
 * Writes a value as Go marshals a map tree: compact, keys sorted by their UTF-8 bytes. Takes JSON data: null,
 * booleans, finite numbers, strings, arrays, plain objects and the numbers of `parseJsonKeepNumbers`; a property
 * whose value is undefined is left out, half of a surrogate pair becomes U+FFFD.
 * @throws {GoJsonError} when the value is nested deeper than 2,000 levels.
 */
export function goJson(value: unknown): string {
  const text = isSorted(value, 0) ? stringify(value) : writeSorted(value);
  const carefully = HALF_PAIR.test(text) || (SURROGATE.test(text) && ABOVE_SURROGATES.test(text));
  return carefully ? writeCarefully(value, true) : escapeMarkup(text);
}

/** Like `goJson`, with the keys in the order in which the objects hold them, as Go marshals a struct. */
export function goJsonInOrder(value: unknown): string {
  const text = stringify(value);
  return HALF_PAIR.test(text) ? writeCarefully(value, false) : escapeMarkup(text);
}

/**
 * Rewrites valid JSON text as Go embeds a raw message: without blanks between tokens and with the escapes of
 * `goJson`, while key order and the spelling of numbers and strings stay.
 */
export function compactGoJson(text: string): string {
  return escapeMarkup(BLANK.test(text) ? removeBlanks(text) : text);
}

/**
 * JSON text as `goJson` writes it, but with `<`, `>`, `&`, U+2028 and U+2029 as they are, for stores whose JSON is
 * written so. Gives the same bytes when there is nothing to do, and a copy of them in any case.
 */
export function withoutMarkupEscapes(json: Buffer): Buffer {
  if (!json.includes("\\u")) return Buffer.from(json);
  const plain = (escape: string): string =>
    MARKUP_ESCAPE.test(escape) ? String.fromCharCode(Number.parseInt(escape.slice(2), 16)) : escape;
  // Escapes are matched one after the other, so that the second half of an escaped backslash begins none.
  return Buffer.from(json.toString().replace(/\\(?:u[0-9a-f]{4}|.)/gs, plain));
}

function removeBlanks(text: string): string {
  let out = "";
  let rest = 0;
  for (let quote = text.indexOf('"'); quote >= 0; quote = text.indexOf('"', rest)) {
    const end = endOfString(text, quote);
    out += text.slice(rest, quote).replace(EACH_BLANK, "") + text.slice(quote, end);
    rest = end;
  }
  return out + text.slice(rest).replace(EACH_BLANK, "");
}

/** Index after the closing quote of the string that starts at `start`. */
function endOfString(text: string, start: number): number {
  for (let quote = text.indexOf('"', start + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let slashes = 0;
    while (text[quote - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return quote + 1;
  }
  return text.length;
}

/**
 * Reads the whole text as one JSON value (Go's json.Unmarshal).
 * @throws {GoJsonError}
 */
export function unmarshalJson(text: string): unknown {
  return parse(text, "unmarshal");
}

/**
 * Reads the first JSON value of the text and ignores what follows (Go's json.Decoder).
 * @throws {GoJsonError} with `EOF` for an empty text and `unexpected EOF` for a cut one.
 */
export function decodeJson(text: string): unknown {
  return parse(text, "decoder");
}

/**
 * Reads the first JSON value of the text as Go's json.Decoder with UseNumber does: a number keeps its source text
 * (`1.0`, `1e5`, twenty digits) when it is written by `goJson` again. Numbers that ECMAScript prints the same way
 * stay plain numbers; the others are opaque objects which only the writers here understand.
 * @throws {GoJsonError}
 */
export function parseJsonKeepNumbers(text: string): unknown {
  if (!ODD_NUMBER.test(text)) return decodeJson(text);
  const keep = (_key: string, value: unknown, context: { readonly source?: string }): unknown =>
    typeof value === "number" && context.source !== String(value)
      ? sourceTextJson.rawJSON(context.source ?? String(value))
      : value;
  return parseWith(text, "decoder", (source) => sourceTextJson.parse(source, keep));
}

/** Compares two strings by their UTF-8 bytes, for sorting. */
export function compareUtf8(a: string, b: string): number {
  if (a === b) return 0;
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const left = a.charCodeAt(i);
    const right = b.charCodeAt(i);
    if (left === right) continue;
    // UTF-16 puts surrogates below U+E000..U+FFFF, UTF-8 puts what they stand for above.
    const leftHigh = left >= 0xd800 && left <= 0xdfff;
    const rightHigh = right >= 0xd800 && right <= 0xdfff;
    if (leftHigh !== rightHigh && left >= 0xd800 && right >= 0xd800) return leftHigh ? 1 : -1;
    return left - right;
  }
  return a.length - b.length;
}

function parse(text: string, reader: GoJsonReader): unknown {
  const value = parseWith(text, reader, JSON.parse);
  if (HUGE_NUMBER.test(text)) refuseInfinity(text, reader);
  return value;
}

function parseWith(text: string, reader: GoJsonReader, read: (text: string) => unknown): unknown {
  try {
    return read(text);
  } catch (error) {
    if (error instanceof GoJsonError) throw error;
    if (error instanceof RangeError) throw new GoJsonError("exceeded max depth", { cause: error });
    const scan = scanGoJson(text, reader);
    if (!scan.ok) throw new GoJsonError(scan.message, { cause: error });
    return read(Buffer.from(text).subarray(0, scan.endByte).toString());
  }
}

/** A double cannot hold the number: written again it would silently become null. */
function refuseInfinity(text: string, reader: GoJsonReader): void {
  parseWith(text, reader, (source) =>
    sourceTextJson.parse(source, (_key, value, context) => {
      if (value !== Number.POSITIVE_INFINITY && value !== Number.NEGATIVE_INFINITY) return value;
      throw new GoJsonError(`json: cannot unmarshal number ${context.source} into Go value of type float64`);
    }),
  );
}

/** True when JSON.stringify already gives sorted keys and no negative zero is lost. */
function isSorted(value: unknown, depth: number): boolean {
  if (typeof value === "number") return value !== 0 || !Object.is(value, -0);
  if (typeof value !== "object" || value === null) return true;
  if (depth > MAX_DEPTH) throw new GoJsonError("exceeded max depth");
  if (Array.isArray(value)) {
    for (const item of value) if (!isSorted(item, depth + 1)) return false;
    return true;
  }
  let last = "";
  for (const key of Object.keys(value)) {
    if (key < last || !isSorted((value as Record<string, unknown>)[key], depth + 1)) return false;
    last = key;
  }
  return true;
}

function stringify(value: unknown): string {
  try {
    return JSON.stringify(value) ?? "null";
  } catch (error) {
    if (error instanceof RangeError) throw new GoJsonError("exceeded max depth", { cause: error });
    throw error;
  }
}

function escapeMarkup(text: string): string {
  if (!MARKUP.test(text)) return text;
  return text.replace(EACH_MARKUP, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Writes with keys in UTF-16 order and markup as it is: right for nearly every value, and then escaped as a whole. */
function writeSorted(value: unknown, depth = 0): string {
  if (typeof value === "string") return PLAIN_STRING.test(value) ? `"${value}"` : JSON.stringify(value);
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : stringify(value);
  if (typeof value !== "object" || value === null || sourceTextJson.isRawJSON(value)) return stringify(value);
  if (depth > MAX_DEPTH) throw new GoJsonError("exceeded max depth");
  let text = "";
  if (Array.isArray(value)) {
    for (const item of value) text += `${text === "" ? "" : ","}${writeSorted(item, depth + 1)}`;
    return `[${text}]`;
  }
  for (const key of Object.keys(value).sort()) {
    const item = (value as Record<string, unknown>)[key];
    if (item === undefined) continue;
    text += `${text === "" ? "" : ","}${writeSorted(key)}:${writeSorted(item, depth + 1)}`;
  }
  return `{${text}}`;
}

/** The slow way: every rule applied piece by piece. */
function writeCarefully(value: unknown, sorted: boolean, depth = 0): string {
  if (typeof value === "string") return escapeMarkup(JSON.stringify(value.toWellFormed()));
  if (sorted && Object.is(value, -0)) return "-0";
  if (typeof value !== "object" || value === null || sourceTextJson.isRawJSON(value)) return stringify(value);
  if (depth > MAX_DEPTH) throw new GoJsonError("exceeded max depth");
  if (Array.isArray(value)) {
    return `[${value.map((item) => writeCarefully(item, sorted, depth + 1)).join(",")}]`;
  }
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  if (sorted) entries.sort(([a], [b]) => compareUtf8(a.toWellFormed(), b.toWellFormed()));
  const member = ([key, item]: [string, unknown]): string =>
    `${writeCarefully(key, sorted)}:${writeCarefully(item, sorted, depth + 1)}`;
  return `{${entries.map(member).join(",")}}`;
}
