/**
 * Checks a component's metadata against its schema: names, required fields, types, bounds; every error names the
 * fix.
 */
import { parseDurationOrSeconds } from "../lib/duration.ts";
import { nearest } from "../lib/nearest.ts";
import { sharedFieldsOf } from "./categories.ts";
import type { MetadataField, MetadataSchema, MetadataValues } from "./component.ts";

const truthy = new Set(["y", "yes", "true", "t", "on", "1"]);

export type MetadataOutcome<S extends MetadataSchema> = {
  readonly values: MetadataValues<S>;
  /** Unknown names: Dapr ignores them, we say which known one may be meant. */
  readonly warnings: readonly string[];
};

/** Typed values of a component's metadata. Throws an Error that names field, value and what is allowed. */
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
      if (field.required === true)
        throw new Error(`metadata field "${name}" is required: ${field.description}`);
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
    if (given.has(lower))
      throw new Error(`metadata field "${name}" is given twice, in different case; keep one`);
    given.set(lower, value);
  }
  return given;
}

function unknownNames(
  schema: MetadataSchema,
  category: string,
  properties: Readonly<Record<string, string>>,
  used: ReadonlySet<string>,
): string[] {
  const shared = sharedFieldsOf(category);
  const known = [...Object.keys(schema), ...shared];
  const sharedNames = new Set(shared.map((name) => name.toLowerCase()));
  return Object.keys(properties)
    .filter((name) => !used.has(name.toLowerCase()) && !sharedNames.has(name.toLowerCase()))
    .map((name) => {
      const guess = nearest(name, known);
      const hint = guess === undefined ? "" : `; did you mean "${guess}"?`;
      return `metadata field "${name}" is not known and ignored${hint}`;
    });
}

function readValue(name: string, field: MetadataField, text: string): string | number | boolean {
  if (field.oneOf !== undefined && !field.oneOf.includes(text)) {
    throw new Error(`metadata field "${name}": "${text}" is not one of ${field.oneOf.join(", ")}`);
  }
  switch (field.kind) {
    case "string":
      return text;
    case "boolean":
      return truthy.has(text.toLowerCase());
    case "duration":
      return readDuration(name, text);
    case "integer":
    case "number":
      return readNumber(name, field, text);
  }
}

function readNumber(name: string, field: MetadataField, text: string): number {
  const value = Number(text);
  const valid =
    text.trim() !== "" && (field.kind === "integer" ? Number.isSafeInteger(value) : Number.isFinite(value));
  if (!valid)
    throw new Error(
      `metadata field "${name}": "${text}" is not ${field.kind === "integer" ? "an integer" : "a number"}`,
    );
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = field;
  if (value < min || value > max)
    throw new Error(`metadata field "${name}": ${value} is not within ${min} and ${max}`);
  return value;
}

function readDuration(name: string, text: string): number {
  try {
    return parseDurationOrSeconds(text);
  } catch (cause) {
    throw new Error(`metadata field "${name}": "${text}" is no duration; write e.g. 30s, 1h30m, or seconds`, {
      cause,
    });
  }
}
