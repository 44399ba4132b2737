/**
 * Labels `path` and `method` of the HTTP metrics by `spec.metrics.http`: reduced paths (keys and ids cut out), patterns
 * of the user's, or none.
 */
import type { MetricSettings } from "../config/kinds/configuration.ts";

export type HttpLabels = {
  /** Of a path, cleaned, with or without its leading slash. */
  path(path: string): string;
  method(verb: string): string;
  /** `increasedCardinality`: paths are labels. */
  readonly detailed: boolean;
};

const verbs = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"]);

/** What is labelled even when paths are not. */
const always = new Set(["/dapr/config", "/dapr/metrics", "/dapr/subscribe", "/healthz"]);

/** Of metrics that are off. */
export const noHttpLabels: HttpLabels = Object.freeze({ path: () => "", method: () => "", detailed: false });

/** Read once for each change of the settings. */
export function createHttpLabels({
  increasedCardinality,
  pathMatching,
  excludeVerbs,
}: MetricSettings["http"]): HttpLabels {
  const patterns = pathMatching.length === 0 ? undefined : new Patterns(pathMatching);
  const otherwise = increasedCardinality
    ? (path: string) => reducedPath(path)
    : (path: string) => (always.has(path) ? path : "");
  return {
    detailed: increasedCardinality,
    path:
      patterns === undefined
        ? otherwise
        : (path) => patterns.find(path) ?? patterns.find(reducedPath(path)) ?? otherwise(path),
    method: excludeVerbs ? () => "" : (verb) => (verbs.has(verb) ? verb : "UNKNOWN"),
  };
}

/** The path without keys, ids and names that have no end. Paths of invocations stay whole. */
export function reducedPath(path: string): string {
  if (path.startsWith("/v1.0/invoke/")) return path;
  const parts = (path.startsWith("/") ? path.slice(1) : path).split("/");
  if (parts[0] === "actors" && parts.length > 2) return withPart(parts, 2, "{id}").join("/");
  switch (parts[1]) {
    case "state":
    case "secrets":
      return parts.length < 4 ? path : `/${parts.slice(0, 3).join("/")}`;
    case "actors":
      return parts.length < 5 ? path : `/${withPart(parts, 3, "{id}").slice(0, 5).join("/")}`;
    case "workflows":
      return reducedWorkflow(parts, path);
    default:
      return path;
  }
}

/** `/v1.0/workflows/<component>/<id>/...`; a start has the name of the workflow where others have the id. */
function reducedWorkflow(parts: string[], path: string): string {
  if (parts.length < 4 || parts[4] === "start") return path;
  const reduced = withPart(parts, 3, "{instanceId}");
  const named = parts[4] === "raiseEvent" && parts.length > 5 ? withPart(reduced, 5, "{eventName}") : reduced;
  return `/${named.join("/")}`;
}

function withPart(parts: readonly string[], at: number, text: string): string[] {
  return parts.map((part, i) => (i === at ? text : part));
}

type Node = {
  readonly fixed: Map<string, Node>;
  param: Node | undefined;
  /** Pattern that ends here. */
  whole: string | undefined;
  /** Pattern with a trailing slash: takes what lies below. */
  prefix: string | undefined;
};

/** Patterns with `{name}` parts; the most specific one wins. */
class Patterns {
  readonly #root = newNode();

  constructor(patterns: readonly string[]) {
    for (const pattern of patterns) {
      this.#add(pattern);
      if (!pattern.startsWith("/v1.0/invoke/")) this.#add(`/v1.0/invoke/{app_id}/method${pattern}`);
    }
  }

  find(path: string): string | undefined {
    const parts = (path.startsWith("/") ? path.slice(1) : path).split("/");
    return findFrom(this.#root, parts, 0);
  }

  #add(pattern: string): void {
    const parts = pattern.replace(/^\//, "").split("/");
    let node = this.#root;
    for (const [i, part] of parts.entries()) {
      if (part === "" && i === parts.length - 1) {
        node.prefix = pattern;
        return;
      }
      if (part.startsWith("{") && part.endsWith("}")) node = node.param ??= newNode();
      else {
        const next = node.fixed.get(part) ?? newNode();
        node.fixed.set(part, next);
        node = next;
      }
    }
    node.whole = pattern;
  }
}

function newNode(): Node {
  return { fixed: new Map(), param: undefined, whole: undefined, prefix: undefined };
}

function findFrom(node: Node, parts: readonly string[], at: number): string | undefined {
  if (at === parts.length) return node.whole;
  const fixed = node.fixed.get(parts[at]!);
  const found = fixed === undefined ? undefined : findFrom(fixed, parts, at + 1);
  if (found !== undefined) return found;
  const part = parts[at] === "" ? undefined : node.param;
  return (part === undefined ? undefined : findFrom(part, parts, at + 1)) ?? node.prefix;
}
