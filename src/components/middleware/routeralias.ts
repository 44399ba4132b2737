/** Gives paths of the API other names: `/mall/{id}` becomes `/v1.0/invoke/shop/method/mall?id=...`. */
import { parseYaml, yamlToText } from "../../lib/yaml.ts";
import type { Middleware } from "../../middleware/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { readPattern } from "./path-filter.ts";

export const type = "middleware.http.routeralias";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  routes: {
    kind: "string",
    required: true,
    description: "JSON or YAML mapping from the path of a request to the path that it means",
  },
} as const satisfies MetadataSchema;

type Alias = {
  readonly pattern: RegExp;
  readonly names: readonly string[];
  readonly path: string;
  readonly query: string;
};

export function open({ metadata }: ComponentContext<typeof metadataSchema>): Promise<Middleware> {
  const aliases = readRoutes(metadata.routes);
  return Promise.resolve({
    handle(request, next) {
      for (const alias of aliases) {
        const match = alias.pattern.exec(request.path);
        if (match === null) continue;
        request.path = alias.path;
        request.query = queryOf(alias, match, request.query);
        break;
      }
      return next();
    },
    close: () => Promise.resolve(),
  });
}

function readRoutes(text: string): Alias[] {
  const [document] = parseYaml(text);
  const root = document?.root;
  if (document?.error !== undefined || root?.kind !== "map") {
    const reason = document?.error?.message ?? "it is no mapping";
    throw new Error(`metadata field "routes": ${reason}; write {"/from": "/to"}, as JSON or YAML`);
  }
  return [...root.entries.values()].map(({ key, value }) => readAlias(key, yamlToText(value)));
}

/** `{name}` stands for one segment, `{name:pattern}` for what the pattern matches. */
function readAlias(from: string, to: string): Alias {
  const names: string[] = [];
  const source = from.replace(
    /\{([^{}:]+)(?::((?:[^{}]|\{[^{}]*\})+))?\}|[^{]+|\{/g,
    (part, name?: string, own?: string) => {
      if (name === undefined) return escaped(part);
      names.push(name);
      return `(${own === undefined ? "[^/]+" : own.replace(/\((?!\?)/g, "(?:")})`;
    },
  );
  const mark = to.indexOf("?");
  const path = mark < 0 ? to : to.slice(0, mark);
  const query = mark < 0 ? "" : to.slice(mark + 1);
  return { pattern: readPattern("routes", `^${source}$`), names, path, query };
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/** The request's own parameters, the alias's and those of the path, sorted by name. */
function queryOf({ names, query: own }: Alias, match: readonly string[], query: string): string {
  if (own === "" && names.length === 0) return query;
  const parameters = new URLSearchParams(query);
  for (const [name, value] of new URLSearchParams(own)) parameters.append(name, value);
  for (const [i, name] of names.entries()) parameters.append(name, decoded(match[i + 1] ?? ""));
  parameters.sort();
  return parameters.toString();
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
