/**
 * Reads YAML as Dapr's loader does: documents split at lines that start with `---`, plain scalars resolved by the
 * YAML 1.1 rules of Go's reader (`yes` is true, `010` is 8, dates and `12:30` stay text), and a position for every
 * node, so that errors can point at a line.
 */
import {
  type Alias,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseAllDocuments,
  type Scalar,
} from "yaml";
import { goJson } from "./go-json.ts";

/** Counted from one, in the whole file. */
export interface YamlPosition {
  readonly line: number;
  readonly column: number;
}

/** Integers from 2^53 on are bigint, so that their digits survive. */
export type YamlScalarValue = string | number | bigint | boolean | null;

export interface YamlScalar extends YamlPosition {
  readonly kind: "scalar";
  readonly value: YamlScalarValue;
}

export interface YamlList extends YamlPosition {
  readonly kind: "list";
  readonly items: readonly YamlNode[];
}

export interface YamlEntry {
  readonly key: string;
  /** Where the key stands. */
  readonly at: YamlPosition;
  readonly value: YamlNode;
}

export interface YamlMap extends YamlPosition {
  readonly kind: "map";
  /** By key, in file order; aliases and merge keys are already replaced. */
  readonly entries: ReadonlyMap<string, YamlEntry>;
}

export type YamlNode = YamlMap | YamlList | YamlScalar;

export interface YamlProblem extends YamlPosition {
  readonly message: string;
}

/** One document of a file. `root` is undefined for an empty document and after an error. */
export interface YamlDocument {
  readonly root: YamlNode | undefined;
  /** The first syntax error; nothing of the document is usable then. */
  readonly error: YamlProblem | undefined;
  /** What was accepted but is probably not meant so. */
  readonly warnings: readonly YamlProblem[];
}

const MAX_DEPTH = 100;
/** Brackets in brackets that are given to the parser at all: it takes seconds for some thousands. */
const MAX_BRACKETS = 1_000;
/** Bounds what aliases can expand to. */
const MAX_NODES = 50_000;
const NULLS = new Set(["", "~", "null", "Null", "NULL"]);
const TRUES = new Set(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"]);
const FALSES = new Set(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"]);
const NUMBER_START = /^[-+.0-9]/;
const INTEGER = /^([-+]?)(?:0([xX])([0-9a-fA-F]+)|0([bB])([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))$/;
const FLOAT = /^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$/;
const TAG = "tag:yaml.org,2002:";
const HINTS: ReadonlyMap<string, string> = new Map([
  ["TAB_AS_INDENT", "indent with spaces"],
  ["BLOCK_AS_IMPLICIT_KEY", 'put the value in quotes if it contains ": ", else check the indentation'],
  ["MULTILINE_IMPLICIT_KEY", 'check the indentation and look for a missing ":"'],
  ["MISSING_CHAR", 'add what is missing, such as ":" after a key or a closing quote'],
  ["BAD_INDENT", "check the indentation and the closing brackets"],
  ["UNEXPECTED_TOKEN", "check the indentation and the quotes"],
  ["BAD_SCALAR_START", "put the value in quotes"],
  ["BAD_DQ_ESCAPE", "write the backslash twice or use single quotes"],
]);

/** Reads all documents of a file. Never throws for bad input: each document has its own outcome. */
export function parseYaml(text: string): readonly YamlDocument[] {
  return split(text).map((part) => parseDocument(part.text, part.firstLine));
}

/** The value as plain JSON data; large integers become numbers that only `goJson` can write. */
export function yamlToJson(node: YamlNode): unknown {
  if (node.kind === "list") return node.items.map(yamlToJson);
  if (node.kind === "scalar") {
    return typeof node.value === "bigint" ? rawNumber(node.value) : node.value;
  }
  const object: Record<string, unknown> = {};
  for (const [key, entry] of node.entries) {
    // Plain assignment would call the setter for this one key.
    Object.defineProperty(object, key, { value: yamlToJson(entry.value), ...OWN_PROPERTY });
  }
  return object;
}

const OWN_PROPERTY = { enumerable: true, configurable: true, writable: true };

function rawNumber(value: bigint): unknown {
  return (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(value.toString());
}

/**
 * The value as text: strings as they are, null as an empty string, other scalars as their JSON text, lists and
 * maps as compact JSON.
 */
export function yamlToText(node: YamlNode): string {
  if (node.kind !== "scalar") return goJson(yamlToJson(node));
  if (node.value === null) return "";
  return typeof node.value === "string" ? node.value : String(node.value);
}

interface Part {
  readonly text: string;
  readonly firstLine: number;
}

function split(text: string): Part[] {
  const parts: Part[] = [];
  let start = 0;
  let firstLine = 1;
  for (const separator of text.matchAll(/\n---[^\n]*(?:\n|$)/g)) {
    // Two separators that share a line end leave no text between them.
    parts.push({ text: text.slice(start, Math.max(start, separator.index)), firstLine });
    firstLine += countLines(text.slice(start, separator.index + separator[0].length));
    start = separator.index + separator[0].length;
  }
  parts.push({ text: text.slice(start), firstLine });
  return parts;
}

function countLines(text: string): number {
  let count = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) count++;
  return count;
}

function parseDocument(text: string, firstLine: number): YamlDocument {
  const lines = new LineCounter();
  const locate = (offset: number): YamlPosition => {
    const { line, col } = lines.linePos(offset);
    return { line: line + firstLine - 1, column: col };
  };
  const deepest = tooDeepAt(text);
  if (deepest !== undefined) return failure({ ...locateIn(text, deepest, firstLine), message: TOO_DEEP });
  try {
    const parsed = parseAllDocuments(text, {
      version: "1.1",
      schema: "failsafe",
      prettyErrors: false,
      uniqueKeys: false,
      logLevel: "silent",
      lineCounter: lines,
    });
    // What follows an end marker (`...`) is not read.
    const document = "empty" in parsed ? undefined : parsed[0];
    const error = document?.errors[0];
    if (error !== undefined) {
      // The parser recurses, and says so in its own way.
      if (error.message.includes("call stack"))
        return failure({ ...locate(error.pos[0]), message: TOO_DEEP });
      const hint = HINTS.get(error.code) ?? "check the syntax of this line";
      return failure({ ...locate(error.pos[0]), message: `not valid YAML: ${error.message}; ${hint}` });
    }
    const warnings: YamlProblem[] = [];
    const contents = document?.contents ?? undefined;
    const root = contents === undefined ? undefined : new Converter(locate, warnings).convert(contents, 0);
    const empty = root?.kind === "scalar" && root.value === null;
    return { root: empty ? undefined : root, error: undefined, warnings };
  } catch (cause) {
    if (cause instanceof Refused) return failure(cause.problem);
    if (cause instanceof RangeError) return failure({ line: firstLine, column: 1, message: TOO_DEEP });
    throw cause;
  }
}

const TOO_DEEP = `not valid YAML: nested deeper than ${MAX_DEPTH} levels, or an anchor contains itself; take some out`;

/** Where brackets are nested too deeply to be read; those in texts count too, as nobody writes so many. */
function tooDeepAt(text: string): number | undefined {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === openBracket || code === openBrace) depth++;
    else if (code === closeBracket || code === closeBrace) depth = Math.max(0, depth - 1);
    if (depth > MAX_BRACKETS) return at;
  }
  return undefined;
}

const [openBracket, closeBracket, openBrace, closeBrace] = [0x5b, 0x5d, 0x7b, 0x7d];

function locateIn(text: string, offset: number, firstLine: number): YamlPosition {
  const before = text.slice(0, offset);
  return { line: firstLine + countLines(before), column: offset - before.lastIndexOf("\n") };
}

function failure(error: YamlProblem): YamlDocument {
  return { root: undefined, error, warnings: [] };
}

class Refused extends Error {
  readonly problem: YamlProblem;
  constructor(problem: YamlProblem) {
    super(problem.message);
    this.problem = problem;
  }
}

class Converter {
  readonly #locate: (offset: number) => YamlPosition;
  readonly #warnings: YamlProblem[];
  readonly #anchors = new Map<string, Node>();
  #nodes = 0;

  constructor(locate: (offset: number) => YamlPosition, warnings: YamlProblem[]) {
    this.#locate = locate;
    this.#warnings = warnings;
  }

  convert(node: Node, depth: number): YamlNode {
    const at = this.#locate(node.range?.[0] ?? 0);
    if (depth > MAX_DEPTH) throw new Refused({ ...at, message: TOO_DEEP });
    if (++this.#nodes > MAX_NODES) {
      throw new Refused({
        ...at,
        message: `not valid YAML: aliases expand to more than ${MAX_NODES} values`,
      });
    }
    if (isAlias(node)) return this.convert(this.#resolve(node, at), depth + 1);
    if ("anchor" in node && typeof node.anchor === "string") this.#anchors.set(node.anchor, node);
    if (isScalar(node)) return { kind: "scalar", ...at, value: scalarValue(node) };
    if (isSeq(node)) {
      return { kind: "list", ...at, items: node.items.map((item) => this.convert(item as Node, depth + 1)) };
    }
    if (!isMap(node)) throw new Refused({ ...at, message: "not valid YAML: a value of an unknown kind" });
    const entries = new Map<string, YamlEntry>();
    const merged: YamlNode[] = [];
    for (const pair of node.items) {
      const keyNode = pair.key as Node;
      const keyAt = this.#locate(keyNode.range?.[0] ?? 0);
      const value = pair.value === null ? nothing(keyAt) : this.convert(pair.value as Node, depth + 1);
      if (isScalar(keyNode) && keyNode.type === "PLAIN" && keyNode.value === "<<") {
        merged.push(value);
        continue;
      }
      const key = this.#key(keyNode, keyAt, depth);
      if (entries.has(key))
        this.#warnings.push({ ...keyAt, message: `"${key}" is given twice, the last one is used` });
      entries.set(key, { key, at: keyAt, value });
    }
    for (const source of merged) merge(entries, source);
    return { kind: "map", ...at, entries };
  }

  #resolve(alias: Alias, at: YamlPosition): Node {
    const target = this.#anchors.get(alias.source);
    if (target !== undefined) return target;
    throw new Refused({
      ...at,
      message: `not valid YAML: no anchor "&${alias.source}" stands before this alias`,
    });
  }

  #key(node: Node, at: YamlPosition, depth: number): string {
    const key = this.convert(node, depth + 1);
    if (key.kind === "scalar" && key.value !== null) return yamlToText(key);
    throw new Refused({ ...at, message: 'not valid YAML: a key must be a plain word before ":"' });
  }
}

function nothing(at: YamlPosition): YamlScalar {
  return { kind: "scalar", ...at, value: null };
}

function merge(entries: Map<string, YamlEntry>, source: YamlNode): void {
  if (source.kind === "list") for (const item of source.items) merge(entries, item);
  if (source.kind !== "map") return;
  for (const [key, entry] of source.entries) if (!entries.has(key)) entries.set(key, entry);
}

function scalarValue(node: Scalar): YamlScalarValue {
  const text = typeof node.value === "string" ? node.value : String(node.value ?? "");
  if (node.tag === undefined) return node.type === "PLAIN" ? resolvePlain(text) : text;
  if (node.tag === `${TAG}binary`) return Buffer.from(text, "base64").toString();
  return ["int", "float", "bool", "null"].some((name) => node.tag === TAG + name) ? resolvePlain(text) : text;
}

/** What a plain scalar means to Go's YAML 1.1 reader. */
export function resolvePlain(text: string): YamlScalarValue {
  if (NULLS.has(text)) return null;
  if (TRUES.has(text)) return true;
  if (FALSES.has(text)) return false;
  if (!NUMBER_START.test(text)) return text;
  const digits = text.replaceAll("_", "");
  const integer = parseInteger(digits);
  if (integer !== undefined) return integer;
  return FLOAT.test(digits) && Number.isFinite(Number(digits)) ? Number(digits) : text;
}

/** Decimal, `0x`, `0b`, `0o` or a leading zero for octal; undefined when it is none or needs more than 64 bits. */
function parseInteger(text: string): number | bigint | undefined {
  const match = INTEGER.exec(text);
  if (match === null) return undefined;
  const [, sign, hexMark, hex = "", binaryMark, binary = "", octal, decimal = ""] = match;
  let magnitude: bigint;
  if (hexMark !== undefined) magnitude = BigInt(`0x${hex}`);
  else if (binaryMark !== undefined) magnitude = BigInt(`0b${binary}`);
  else magnitude = octal === undefined ? BigInt(decimal) : BigInt(`0o${octal}`);
  const value = sign === "-" ? -magnitude : magnitude;
  if (value > 2n ** 64n - 1n || value < -(2n ** 63n)) return undefined;
  return BigInt(Number.MIN_SAFE_INTEGER) <= value && value <= BigInt(Number.MAX_SAFE_INTEGER)
    ? Number(value)
    : value;
}
