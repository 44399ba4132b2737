/**
 * Reads the body of a Component document.
 */
import { DurationError, parseGoDuration } from "../../lib/duration.ts";
import type { Section } from "../section.ts";
import {
  type ComponentResource,
  DEFAULT_INIT_TIMEOUT_MS,
  type MetadataItem,
  type SecretKeyRef,
} from "./component.ts";
import type { ResourceHeader } from "./header.ts";

/** The component, or undefined after noting errors. */
export function parseComponent(root: Section, header: ResourceHeader): ComponentResource | undefined {
  root.warnUnknown(["apiVersion", "kind", "metadata", "spec", "auth", "scopes"]);
  const spec = root.section("spec");
  if (spec === undefined) {
    if (root.node("spec") === undefined) {
      root.problems.error(
        root.at,
        "spec is missing, a component needs at least spec.type, such as type: state.redis",
      );
    }
    return undefined;
  }
  spec.warnUnknown(["type", "version", "metadata", "initTimeout", "ignoreErrors"]);
  const auth = root.section("auth");
  auth?.warnUnknown(["secretStore"]);
  const component: ComponentResource = {
    kind: "Component",
    name: header.name,
    namespace: header.namespace,
    type: spec.requiredText("type", "state.redis"),
    typeOrigin: root.problems.origin(spec.positionOf("type")),
    version: spec.text("version") ?? "",
    metadata: parseMetadata(spec),
    initTimeoutMs: parseInitTimeout(spec),
    ignoreErrors: spec.boolean("ignoreErrors") ?? false,
    scopes: header.scopes,
    secretStore: auth?.text("secretStore") || undefined,
    origin: header.origin,
  };
  return root.problems.failed ? undefined : component;
}

function parseMetadata(spec: Section): readonly MetadataItem[] {
  const items = new Map<string, MetadataItem>();
  for (const entry of spec.sections("metadata")) {
    entry.warnUnknown(["name", "value", "secretKeyRef", "envRef"]);
    const name = entry.text("name") ?? "";
    if (name === "") {
      entry.problems.warn(
        entry.at,
        `${entry.path} has no name and is ignored, write name: and value: on two lines`,
      );
      continue;
    }
    if (items.delete(name)) {
      entry.problems.warn(entry.at, `${entry.path}: "${name}" is given twice, the last one is used`);
    }
    items.set(name, {
      name,
      value: entry.anyText("value"),
      secretKeyRef: parseSecretKeyRef(entry),
      envRef: entry.text("envRef") || undefined,
      origin: entry.problems.origin(entry.at),
    });
  }
  return [...items.values()];
}

/** Undefined also for one whose texts are empty: Go programs write it beside every value. */
export function parseSecretKeyRef(entry: Section): SecretKeyRef | undefined {
  const reference = entry.section("secretKeyRef");
  if (reference === undefined) return undefined;
  reference.warnUnknown(["name", "key"]);
  const key = reference.text("key") ?? "";
  if (key === "" && (reference.text("name") ?? "") === "") return undefined;
  return { name: reference.requiredText("name", "my-secret"), key };
}

function parseInitTimeout(spec: Section): number {
  const text = spec.text("initTimeout");
  if (text === undefined || text === "") return DEFAULT_INIT_TIMEOUT_MS;
  try {
    const timeoutMs = parseGoDuration(text);
    if (timeoutMs > 0) return timeoutMs;
  } catch (error) {
    if (!(error instanceof DurationError)) throw error;
  }
  const at = spec.positionOf("initTimeout");
  spec.problems.warn(
    at,
    `spec.initTimeout ${JSON.stringify(text)} is no duration such as 30s or 1m, 5s is used`,
  );
  return DEFAULT_INIT_TIMEOUT_MS;
}
