/**
 * `spec.api` of the Configuration: which APIs this sidecar answers at all, compiled at boot. The two protocols have
 * lists of their own; a list without rules for a protocol leaves all of it open.
 */
import type { ApiRule } from "../config/kinds/configuration.ts";
import { grpcGroup } from "./grpc-groups.ts";
import type { HttpReply, HttpRoute } from "./http.ts";
import type { ApiError } from "./errors.ts";
import { grpcErrorOfHttp } from "./status.ts";

export type ApiLists = {
  /** The HTTP routes that stay, in their order. */
  routes(routes: readonly HttpRoute[]): readonly HttpRoute[];
  /** False when service invocation is shut, and with it the fallback of the HTTP port. */
  readonly invocation: boolean;
  /** Throws what a caller of a shut gRPC method gets; undefined when no rule speaks of gRPC. */
  readonly grpcGuard: ((path: string) => void) | undefined;
};

export type ApiRules = { readonly allowed: readonly ApiRule[]; readonly denied: readonly ApiRule[] };

/** What a request gets when neither a route nor service invocation is there for it. */
export const pageNotFound: HttpReply = Object.freeze({
  status: 404,
  headers: Object.freeze({
    "Content-Type": "text/plain; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
  }),
  body: "404 page not found\n",
});

/** Version of the HTTP APIs that Dapr does not have; `v1weft1` as the version of a group. */
const ownVersion = "/v1.0-weft1/";

const invokeRoute = { group: "invoke", path: "/v1.0/invoke/" };

/** Reads the rules. Those of a protocol other than HTTP (any case) and gRPC (lower case) count for nothing. */
export function compileApiLists({ allowed, denied }: ApiRules): ApiLists {
  const isHttp = (rule: ApiRule): boolean => rule.protocol.toLowerCase() === "http";
  const isGrpc = (rule: ApiRule): boolean => rule.protocol === "grpc";
  const http = { allowed: allowed.filter(isHttp), denied: denied.filter(isHttp) };
  const grpc = { allowed: allowed.filter(isGrpc), denied: denied.filter(isGrpc) };
  const open = ({ group, path }: Pick<HttpRoute, "group" | "path">): boolean => {
    const beside = path.startsWith(ownVersion)
      ? { group, path: path.replace(ownVersion, "/v1.0/") }
      : undefined;
    return isOpen(http, { group, path }, matchesRoute, beside);
  };
  return {
    routes: (routes) => routes.filter((route) => route.group === "health" || open(route)),
    invocation: open(invokeRoute),
    grpcGuard: grpc.allowed.length + grpc.denied.length === 0 ? undefined : guardOf(grpc),
  };
}

/**
 * What is denied is shut; of the rest, an allow list opens only what it names. Who denies an API of Dapr's denies what
 * is ours beside it too (`more`): rules that were written for daprd do not know of it.
 */
function isOpen<T>(
  rules: ApiRules,
  target: T,
  matches: (rule: ApiRule, target: T) => boolean,
  more?: T,
): boolean {
  if (rules.denied.some((rule) => matches(rule, target) || (more !== undefined && matches(rule, more))))
    return false;
  return rules.allowed.length === 0 || rules.allowed.some((rule) => matches(rule, target));
}

/** By group (`v1/state`), or by the beginning of the path (`v1.0/state`, `v1.0/state/mystore`). */
function matchesRoute(rule: ApiRule, { group, path }: Pick<HttpRoute, "group" | "path">): boolean {
  const wanted = `${rule.version}/${rule.name}`;
  return wanted === `${groupVersion(path)}/${group}` || path.startsWith(`/${wanted}`);
}

/** `/v1.0/state` is of version `v1`, `/v1.0-alpha1/lock` of `v1alpha1`. */
function groupVersion(path: string): string {
  const version = /^\/(v\d+)\.\d+(?:-([a-z]+\d+))?\//.exec(path);
  return version === null ? "" : version[1]! + (version[2] ?? "");
}

function guardOf(rules: ApiRules): (path: string) => void {
  // A method is asked for with every call, and there are few.
  const known = new Map<string, boolean>();
  return (path) => {
    if (!path.startsWith("/dapr.proto.runtime.") && !path.startsWith("/weft.runtime.")) return;
    let open = known.get(path);
    if (open === undefined) {
      const group = grpcGroup(path);
      const beside = group.endsWith("weft1") ? group.slice(0, -"weft1".length) : undefined;
      open = isOpen(rules, group, matchesGroup, beside);
      if (known.size < maxKnown) known.set(path, open);
    }
    if (!open) throw notAvailable();
  };
}

/** Paths remembered; clients may ask for any. */
const maxKnown = 1_000;

function matchesGroup(rule: ApiRule, group: string): boolean {
  return group === `${rule.name}.${rule.version}`;
}

function notAvailable(): ApiError {
  return grpcErrorOfHttp(501, "requested endpoint is not available");
}
