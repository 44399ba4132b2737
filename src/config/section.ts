/**
 * Typed reading of one YAML mapping. Values are taken as Go's loader takes them (a plain `5` is fine where text is
 * wanted, `"5"` is not where a number is), and everything that does not fit is noted with its line and the fix.
 */
import { nearest } from "../lib/nearest.ts";
import {
  type YamlEntry,
  type YamlMap,
  type YamlNode,
  type YamlPosition,
  yamlToJson,
  yamlToText,
} from "../lib/yaml.ts";
import type { Origin, Problem } from "./problem.ts";

/** Collects the problems of one document. */
export class ProblemList {
  readonly file: string;
  readonly #problems: Problem[] = [];

  constructor(file: string) {
    this.file = file;
  }

  get all(): readonly Problem[] {
    return this.#problems;
  }

  /** True when the document must be skipped. */
  get failed(): boolean {
    return this.#problems.some((problem) => problem.severity === "error");
  }

  error(at: YamlPosition, message: string): void {
    this.#add("error", at, message);
  }

  warn(at: YamlPosition, message: string): void {
    this.#add("warning", at, message);
  }

  origin(at: YamlPosition): Origin {
    return { file: this.file, line: at.line, column: at.column };
  }

  #add(severity: Problem["severity"], { line, column }: YamlPosition, message: string): void {
    this.#problems.push({ severity, file: this.file, line, column, message });
  }
}

/**
 * A mapping in a resource, known by its path such as `spec.metadata[0]`. Readers return undefined for a key that is
 * absent or null, and after noting an error for one of the wrong kind. Keys match in any letter case.
 */
export class Section {
  readonly problems: ProblemList;
  /** Empty for the top of a document. */
  readonly path: string;
  readonly #map: YamlMap;

  constructor(problems: ProblemList, path: string, map: YamlMap) {
    this.problems = problems;
    this.path = path;
    this.#map = map;
  }

  /** Where the mapping starts. */
  get at(): YamlPosition {
    return this.#map;
  }

  /** Where the key stands, else where the mapping starts. */
  positionOf(key: string): YamlPosition {
    return this.#find(key)?.at ?? this.#map;
  }

  /** All keys, in file order, for a mapping whose keys are names. */
  keys(): readonly string[] {
    return [...this.#map.entries.values()].map((entry) => entry.key);
  }

  /** Full name of a key, for messages. */
  nameOf(key: string): string {
    return this.path === "" ? key : `${this.path}.${key}`;
  }

  node(key: string): YamlNode | undefined {
    const node = this.#find(key)?.value;
    return node?.kind === "scalar" && node.value === null ? undefined : node;
  }

  /** Any scalar, as text. */
  text(key: string): string | undefined {
    const node = this.node(key);
    if (node === undefined || node.kind === "scalar") return node && yamlToText(node);
    return this.#refuse(key, node, "text");
  }

  /** A text that must be there and not empty; `example` is shown when it is not. */
  requiredText(key: string, example: string): string {
    const text = this.text(key);
    if (text !== undefined && text !== "") return text;
    const kind = this.node(key)?.kind ?? "scalar";
    if (kind === "scalar") {
      const state = this.#find(key) === undefined ? "missing" : "empty";
      this.problems.error(
        this.positionOf(key),
        `${this.nameOf(key)} is ${state}, write for example ${key}: ${example}`,
      );
    }
    return "";
  }

  /** Any value, as text: lists and mappings become compact JSON. */
  anyText(key: string): string | undefined {
    const node = this.node(key);
    return node && yamlToText(node);
  }

  boolean(key: string): boolean | undefined {
    const node = this.node(key);
    if (node === undefined) return undefined;
    if (node.kind === "scalar" && typeof node.value === "boolean") return node.value;
    return this.#refuse(key, node, "true or false");
  }

  integer(key: string): number | undefined {
    const node = this.node(key);
    if (node === undefined) return undefined;
    if (node.kind === "scalar" && Number.isSafeInteger(node.value)) return Number(node.value);
    return this.#refuse(key, node, "a whole number");
  }

  /** A list of scalars, as texts. */
  texts(key: string): readonly string[] | undefined {
    const node = this.node(key);
    if (node === undefined) return undefined;
    if (node.kind !== "list")
      return this.#refuse(key, node, 'a list, one line for each item and starting with "- "');
    const texts: string[] = [];
    node.items.forEach((item, index) => {
      if (item.kind === "scalar") texts.push(yamlToText(item));
      else this.#refuse(`${key}[${index}]`, item, "text");
    });
    return texts;
  }

  /** A mapping of scalars, as texts. */
  textMap(key: string): Readonly<Record<string, string>> | undefined {
    const node = this.node(key);
    if (node === undefined) return undefined;
    if (node.kind !== "map")
      return this.#refuse(key, node, "a mapping with a line `name: value` for each entry");
    const texts = new Map<string, string>();
    for (const [name, { value }] of node.entries) {
      if (value.kind === "scalar") texts.set(name, yamlToText(value));
      else this.#refuse(`${key}.${name}`, value, "text");
    }
    return Object.fromEntries(texts);
  }

  section(key: string): Section | undefined {
    const node = this.node(key);
    if (node === undefined) return undefined;
    if (node.kind !== "map")
      return this.#refuse(key, node, "a mapping, its fields on indented lines of their own");
    return new Section(this.problems, this.nameOf(key), node);
  }

  /** A list of mappings. */
  sections(key: string): readonly Section[] {
    const node = this.node(key);
    if (node === undefined) return [];
    const wanted = 'a list of mappings, each starting with "- "';
    if (node.kind !== "list") {
      this.#refuse(key, node, wanted);
      return [];
    }
    return node.items.flatMap((item, index) => {
      const name = `${key}[${index}]`;
      if (item.kind === "map") return [new Section(this.problems, this.nameOf(name), item)];
      this.#refuse(name, item, "a mapping");
      return [];
    });
  }

  /** Plain JSON data of whatever stands there. */
  json(key: string): unknown {
    const node = this.node(key);
    return node && yamlToJson(node);
  }

  /** Notes every key that is not among the known ones, with the one that was probably meant. */
  warnUnknown(known: readonly string[]): void {
    for (const { key, at } of this.#map.entries.values()) {
      if (known.some((name) => name.toLowerCase() === key.toLowerCase())) continue;
      const meant = nearest(key, known);
      const hint = meant === undefined ? `known are ${known.join(", ")}` : `did you mean "${meant}"?`;
      this.problems.warn(at, `${this.nameOf(key)} is not known and is ignored, ${hint}`);
    }
  }

  #find(key: string): YamlEntry | undefined {
    const exact = this.#map.entries.get(key);
    if (exact !== undefined) return exact;
    const lower = key.toLowerCase();
    for (const entry of this.#map.entries.values()) if (entry.key.toLowerCase() === lower) return entry;
    return undefined;
  }

  #refuse(key: string, node: YamlNode, wanted: string): undefined {
    this.problems.error(node, `${this.nameOf(key)} must be ${wanted}, not ${describe(node)}`);
    return undefined;
  }
}

/** What the user wrote, for "must be a list, not ...". */
export function describe(node: YamlNode): string {
  if (node.kind !== "scalar") return node.kind === "list" ? "a list" : "a mapping";
  const { value } = node;
  if (typeof value !== "string") return String(value);
  const short = value.length > 40 ? `${value.slice(0, 40)}…` : value;
  const hint = /^(?:true|false|[-+]?[0-9.]+)$/.test(value) ? " (remove the quotes)" : "";
  return `the text ${JSON.stringify(short)}${hint}`;
}
