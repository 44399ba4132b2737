/**
 * Checks a component's metadata against its schema: names, required fields, types, bounds; every error names the
 * fix.
 */
import { isTruthy } from "../lib/truthy.ts";
import { MetadataError, type MetadataWarning } from "../config/kinds/component.ts";
import { parseDurationOrSeconds } from "../lib/duration.ts";
import { nearest } from "../lib/nearest.ts";
import { sharedFieldsOf } from "./categories.ts";
import type { MetadataField, MetadataSchema, MetadataValues } from "./component.ts";

export type MetadataOutcome<S extends MetadataSchema> = {
  readonly values: MetadataValues<S>;
  /** Unknown names: Dapr ignores them, we say which known one may be meant. */
  readonly warnings: readonly MetadataWarning[];
};

/** Typed values of a component's metadata. Throws a MetadataError that names field, value and what is allowed. */
export function readMetadata<S extends MetadataSchema>(
  schema: S,
  category: string,
  properties: Readonly<Record<string, string>>,
): MetadataOutcome<S> {
  const given = byLowerName(properties);
  const values: Record<string, unknown> = {};
  const used = new Set<string>();
  for (const [name, field] of Object.entries(schema)) {
    const found = [name, ...(field.aliases ?? [])].find((candidate) => given.has(candidate.toLowerCase()));
    if (found !== undefined) used.add(found.toLowerCase());
    const text = found === undefined ? field.default : given.get(found.toLowerCase());
    if (text === undefined || (text === "" && field.default === undefined)) {
      if (field.required === true) throw metadataProblem(found ?? name, ` is required: ${field.description}`);
      continue;
    }
    values[name] = readValue(name, field, text === "" ? field.default! : text);
  }
  return { values: values as MetadataValues<S>, warnings: unknownNames(schema, category, properties, used) };
}

function byLowerName(properties: Readonly<Record<string, string>>): Map<string, string> {
  const given = new Map<string, string>();
  for (const [name, value] of Object.entries(properties)) {
    const lower = name.toLowerCase();
    if (given.has(lower)) throw metadataProblem(name, " is given twice, in different case; keep one");
    given.set(lower, value);
  }
  return given;
}

function unknownNames(
  schema: MetadataSchema,
  category: string,
  properties: Readonly<Record<string, string>>,
  used: ReadonlySet<string>,
): MetadataWarning[] {
  const shared = sharedFieldsOf(category);
  const known = [...Object.keys(schema), ...shared];
  const sharedNames = new Set(shared.map((name) => name.toLowerCase()));
  return Object.keys(properties)
    .filter((name) => !used.has(name.toLowerCase()) && !sharedNames.has(name.toLowerCase()))
    .map((name) => {
      const guess = nearest(name, known);
      const hint = guess === undefined ? "" : `; did you mean "${guess}"?`;
      return { field: name, message: `metadata field "${name}" is not known and ignored${hint}` };
    });
}

function readValue(name: string, field: MetadataField, text: string): string | number | boolean {
  if (field.oneOf !== undefined) {
    const found = field.oneOf.find((value) => value.toLowerCase() === text.toLowerCase());
    if (found !== undefined) return found;
    throw metadataProblem(name, `: ${shown(field, text)} is not one of ${field.oneOf.join(", ")}`);
  }
  switch (field.kind) {
    case "string":
      return text;
    case "boolean":
      return field.strict === true ? readStrictBoolean(name, field, text) : isTruthy(text);
    case "duration":
      return readDuration(name, field, text);
    case "integer":
    case "number":
      return readNumber(name, field, text);
  }
}

function readNumber(name: string, field: MetadataField, text: string): number {
  const value = Number(text);
  const valid =
    text.trim() !== "" && (field.kind === "integer" ? Number.isSafeInteger(value) : Number.isFinite(value));
  if (!valid) {
    const wanted = field.kind === "integer" ? "an integer" : "a number";
    throw metadataProblem(name, `: ${shown(field, text)} is not ${wanted}${boundsOf(field)}`);
  }
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = field;
  if (value < min || value > max)
    throw metadataProblem(name, `: ${shown(field, text)} is not a number${boundsOf(field)}`);
  return value;
}

function boundsOf({ min, max }: MetadataField): string {
  if (min !== undefined && max !== undefined) return ` from ${min} to ${max}`;
  if (min !== undefined) return ` of at least ${min}`;
  return max === undefined ? "" : ` of at most ${max}`;
}

/** A value as a message may show it. */
function shown(field: MetadataField, text: string): string {
  return field.secret === true ? "its value" : JSON.stringify(text);
}

/** Exactly the spellings that Go's strconv takes. */
function readStrictBoolean(name: string, field: MetadataField, text: string): boolean {
  if (/^(1|t|T|TRUE|true|True)$/.test(text)) return true;
  if (/^(0|f|F|FALSE|false|False)$/.test(text)) return false;
  throw metadataProblem(name, `: ${shown(field, text)} is neither true nor false`);
}

function readDuration(name: string, field: MetadataField, text: string): number {
  const { bareUnit = "s", min = Number.NEGATIVE_INFINITY } = field;
  const isBareMs = bareUnit === "ms" && /^[-+]?\d{1,15}$/.test(text);
  let valueMs: number;
  try {
    valueMs = isBareMs ? Number(text) : parseDurationOrSeconds(text);
  } catch (cause) {
    const fix = `write e.g. 30s, 1h30m, or ${bareUnit === "ms" ? "milliseconds" : "seconds"}`;
    throw metadataProblem(name, `: ${shown(field, text)} is no duration; ${fix}`, cause);
  }
  if (valueMs < min) throw metadataProblem(name, `: ${shown(field, text)} is less than ${min}`);
  return valueMs;
}

function metadataProblem(field: string, rest: string, cause?: unknown): MetadataError {
  return new MetadataError(field, `metadata field "${field}"${rest}`, cause);
}
