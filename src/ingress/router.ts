/**
 * Finds the route of a cleaned, still escaped path. Segments are compared as written; parameters are decoded by query
 * rules (`+` is a space), as Dapr's clients rely on. Compiled once at boot, no allocation but the parameters.
 */
import type { HttpRoute } from "../api/http.ts";

type Node = {
  readonly fixed: Map<string, Node>;
  param: Node | undefined;
  /** Routes that end here, by verb. */
  readonly routes: Map<string, HttpRoute>;
  /** Routes whose last part takes the rest of the path, by verb. */
  readonly rest: Map<string, HttpRoute>;
};

export type Match = { readonly route: HttpRoute; readonly params: readonly string[] };

/** A path parameter had a broken percent escape. */
export class BadEscape extends Error {}

export class Router {
  readonly #root = newNode();
  readonly #knownVerbs: readonly string[];

  constructor(routes: readonly HttpRoute[]) {
    this.#knownVerbs = [...new Set(routes.flatMap((route) => route.verbs))];
    for (const route of routes) this.#add(route);
  }

  /** The route of a verb and path; undefined when none fits. Throws BadEscape. */
  find(verb: string, path: string): Match | undefined {
    return findFrom(this.#root, verb, path, 1, []);
  }

  /** Verbs that a path has routes for, in no particular order. Throws BadEscape. */
  verbs(path: string): string[] {
    return this.#knownVerbs.filter((verb) => this.find(verb, path) !== undefined);
  }

  #add(route: HttpRoute): void {
    let node = this.#root;
    const parts = route.path.split("/").slice(1);
    for (const [i, part] of parts.entries()) {
      if (part.endsWith("...}")) {
        if (i !== parts.length - 1) throw new Error(`${route.path}: only the last part may take the rest`);
        return addVerbs(node.rest, route);
      }
      if (part.startsWith("{")) node = node.param ??= newNode();
      else node = getOrAdd(node.fixed, part);
    }
    addVerbs(node.routes, route);
  }
}

function newNode(): Node {
  return { fixed: new Map(), param: undefined, routes: new Map(), rest: new Map() };
}

function getOrAdd(fixed: Map<string, Node>, part: string): Node {
  const found = fixed.get(part) ?? newNode();
  fixed.set(part, found);
  return found;
}

function addVerbs(routes: Map<string, HttpRoute>, route: HttpRoute): void {
  for (const verb of route.verbs) {
    if (routes.has(verb)) throw new Error(`two routes for ${verb} ${route.path}`);
    routes.set(verb, route);
  }
}

/** Depth is bounded by the routes' own depth, at most seven parts. */
function findFrom(
  node: Node,
  verb: string,
  path: string,
  start: number,
  params: readonly string[],
): Match | undefined {
  if (start > path.length) {
    const route = node.routes.get(verb);
    return route === undefined ? undefined : { route, params };
  }
  const slash = path.indexOf("/", start);
  const end = slash < 0 ? path.length : slash;
  const part = path.slice(start, end);
  const fixed = node.fixed.get(part);
  if (fixed !== undefined) {
    const match = findFrom(fixed, verb, path, end + 1, params);
    if (match !== undefined) return match;
  }
  if (node.param !== undefined && part !== "") {
    const match = findFrom(node.param, verb, path, end + 1, [...params, decodeParam(part)]);
    if (match !== undefined) return match;
  }
  const rest = start < path.length ? node.rest.get(verb) : undefined;
  return rest === undefined
    ? undefined
    : { route: rest, params: [...params, decodeParam(path.slice(start))] };
}

const needsDecoding = /[%+]/;

function decodeParam(text: string): string {
  if (!needsDecoding.test(text)) return text;
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw new BadEscape(text);
  }
}

const unclean = /\/\/|\/\.|\/$/;

/** Collapses `//`, resolves `.` and `..`, drops one trailing slash; the common clean path costs one test. */
export function cleanPath(path: string): string {
  if (!unclean.test(path) && path.startsWith("/")) return path;
  const kept: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") kept.pop();
    else if (part !== "" && part !== ".") kept.push(part);
  }
  return `/${kept.join("/")}`;
}
