/**
 * What a component file exports, and the check of its metadata. A component is one file in
 * components/<block>/<product>.ts with five exports: `type`, `versions`, `metadataSchema`, `capabilities`, `open`.
 */
import type { Clock, Mesh } from "../../mesh/index.ts";
import { CreationError, MetadataError } from "../config/kinds/component.ts";
import type { Log } from "../telemetry/log.ts";

/** Thrown by `open` for a field whose value turns out to be of no use: the message then gets the field's line. */
export { CreationError, MetadataError };

/** One metadata field. Names match case-insensitively. */
export type MetadataField = {
  readonly kind: "string" | "boolean" | "integer" | "duration" | "number";
  readonly description: string;
  readonly required?: boolean;
  /** Text as a user would write it. */
  readonly default?: string;
  readonly aliases?: readonly string[];
  readonly secret?: boolean;
  /** Inclusive bounds for integer and number; the lower one for durations too, ms. */
  readonly min?: number;
  readonly max?: number;
  readonly oneOf?: readonly string[];
  /** Booleans: only 1, t, true, 0, f, false are taken, other text is refused. */
  readonly strict?: boolean;
  /** Durations: what a number without unit counts; seconds when not given. */
  readonly bareUnit?: "ms" | "s";
};

export type MetadataSchema = Readonly<Record<string, MetadataField>>;

type FieldValue<F extends MetadataField> = F["kind"] extends "string"
  ? string
  : F["kind"] extends "boolean"
    ? boolean
    : number;

/** Values of a schema: fields that are required or have a default are always there. Durations are ms. */
export type MetadataValues<S extends MetadataSchema> = {
  readonly [K in keyof S]: S[K] extends { required: true } | { default: string }
    ? FieldValue<S[K]>
    : FieldValue<S[K]> | undefined;
};

/** What a component gets when it is opened. */
export type ComponentContext<S extends MetadataSchema = MetadataSchema> = {
  readonly name: string;
  readonly type: string;
  readonly version: string;
  readonly appId: string;
  readonly namespace: string;
  readonly metadata: MetadataValues<S>;
  /** All metadata as written, after templates and secrets; names as in the file. */
  readonly properties: Readonly<Record<string, string>>;
  /** Environment of the sidecar. What a user may not see of it is the component's own affair. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** `spec.wasm.strictSandbox` of the Configuration: holds for all WebAssembly, whatever their metadata say. */
  readonly strictWasm?: boolean;
  readonly mesh: Mesh;
  readonly clock: Clock;
  readonly log: Log;
  /** Aborted when the init timeout passes. */
  readonly signal: AbortSignal;
};

/** A metadata value by its name in any case; undefined when it is not written. */
export function propertyOf(properties: Readonly<Record<string, string>>, name: string): string | undefined {
  const wanted = name.toLowerCase();
  for (const [key, value] of Object.entries(properties)) if (key.toLowerCase() === wanted) return value;
  return undefined;
}

/** Who shares events with whom: metadata `consumerID`, else the app. */
export function consumerGroup({ properties, appId }: ComponentContext): string {
  return propertyOf(properties, "consumerID")?.trim() || appId;
}

/** What metadata `direction` of a binding asks for; both when it says nothing. */
export type BindingDirection = {
  readonly input: boolean;
  readonly output: boolean;
  readonly explicit: boolean;
};

/** Throws MetadataError for a direction that is neither `input` nor `output`. */
export function directionOf(properties: Readonly<Record<string, string>>): BindingDirection {
  const words = (propertyOf(properties, "direction") ?? "")
    .split(",")
    .map((word) => word.trim().toLowerCase());
  const given = words.filter((word) => word !== "");
  const wrong = given.find((word) => word !== "input" && word !== "output");
  if (wrong !== undefined) {
    const fix = 'write "input", "output" or "input, output"';
    throw new MetadataError("direction", `metadata field "direction": "${wrong}" is no direction; ${fix}`);
  }
  const explicit = given.length > 0;
  return {
    explicit,
    input: !explicit || given.includes("input"),
    output: !explicit || given.includes("output"),
  };
}

/** Shape of a component module; `open` may take its time up to the init timeout and rejects with a readable Error. */
export type ComponentFile<P = unknown> = {
  readonly type: string;
  /** Further type names, e.g. `state.sqlite3`. */
  readonly aliases?: readonly string[];
  /** First one is the default for an empty version. */
  readonly versions: readonly string[];
  readonly metadataSchema: MetadataSchema;
  /** The schema does not say all: other fields are the business of a program outside. */
  readonly openMetadata?: boolean;
  /** As the metadata API lists them. Where they hang on the metadata, the port has a property of that name too. */
  readonly capabilities: readonly string[];
  readonly open: (context: never) => Promise<P>;
};
