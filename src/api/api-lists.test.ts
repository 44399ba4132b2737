import { expect, test } from "vitest";
import { Dapr } from "../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import type { ApiRule } from "../config/kinds/configuration.ts";
import { compileApiLists } from "./api-lists.ts";
import { grpcGroup } from "./grpc-groups.ts";
import type { HttpRoute } from "./http.ts";

const route = (group: string, path: string): HttpRoute => ({
  verbs: ["GET"],
  path,
  name: path,
  group,
  handle: () => ({ status: 204 }),
});
const routes = [
  route("health", "/v1.0/healthz"),
  route("state", "/v1.0/state/{store}/{key}"),
  route("state", "/v1.0-alpha1/state/{store}/query"),
  route("state", "/v1.0-weft1/state/{store}/keys"),
  route("publish", "/v1.0/publish/{pubsub}/{topic...}"),
  route("workflows", "/v1.0-beta1/workflows/{component}/{id}"),
];
const rule = (text: string): ApiRule => {
  const [version = "", name = "", protocol = "http"] = text.split(" ");
  return { version, name, protocol };
};
const lists = (allowed: string[], denied: string[] = []) =>
  compileApiLists({ allowed: allowed.map(rule), denied: denied.map(rule) });

test("no rule leaves all open", () => {
  const open = lists([]);
  expect(open.routes(routes)).toEqual(routes);
  expect(open.invocation).toBe(true);
  expect(open.grpcGuard).toBeUndefined();
});

const httpTable: readonly [allowed: string[], denied: string[], left: string[]][] = [
  [["v1 state"], [], ["/v1.0/healthz", "/v1.0/state/{store}/{key}"]],
  [["v1.0 state"], [], ["/v1.0/healthz", "/v1.0/state/{store}/{key}"]],
  [["v1 state HTTP"], [], ["/v1.0/healthz", "/v1.0/state/{store}/{key}"]],
  [["v1alpha1 state"], [], ["/v1.0/healthz", "/v1.0-alpha1/state/{store}/query"]],
  [["v1weft1 state"], [], ["/v1.0/healthz", "/v1.0-weft1/state/{store}/keys"]],
  [["v1.0-weft1 state"], ["v1 state"], ["/v1.0/healthz"]],
  [["v1beta1 workflows"], [], ["/v1.0/healthz", "/v1.0-beta1/workflows/{component}/{id}"]],
  [["v1 state"], ["v1.0 state"], ["/v1.0/healthz"]],
  [["v1 stat"], [], ["/v1.0/healthz"]],
  [["v1.0 stat"], [], ["/v1.0/healthz", "/v1.0/state/{store}/{key}"]],
  [
    [],
    ["v1 publish", "v1 health"],
    routes.map(({ path }) => path).filter((path) => !path.includes("publish")),
  ],
];
test.for(httpTable)("HTTP: allowed %j, denied %j", ([allowed, denied, left]) => {
  expect(
    lists(allowed, denied)
      .routes(routes)
      .map(({ path }) => path),
  ).toEqual(left);
});

test("invocation is a group like any other", () => {
  expect(lists(["v1 invoke"]).invocation).toBe(true);
  expect(lists(["v1 state"]).invocation).toBe(false);
  expect(lists([], ["v1 invoke"]).invocation).toBe(false);
  expect(lists(["v1 state GRPC"]).invocation).toBe(true);
});

test("gRPC: what is shut throws, other services pass", () => {
  const passes = (guard: (path: string) => void, path: string): boolean => {
    try {
      guard(path);
      return true;
    } catch {
      return false;
    }
  };
  const allow = lists(["v1 state grpc", "v1alpha1 state grpc"], ["v1 secrets"]).grpcGuard!;
  const method = (name: string): string => `/dapr.proto.runtime.v1.Dapr/${name}`;
  expect(passes(allow, method("GetState"))).toBe(true);
  expect(passes(allow, method("QueryStateAlpha1"))).toBe(true);
  expect(passes(allow, method("PublishEvent"))).toBe(false);
  expect(passes(allow, method("NotThere"))).toBe(false);
  expect(passes(allow, "/my.Service/GetThing")).toBe(true);
  const deny = lists([], ["v1 invoke grpc"]).grpcGuard!;
  expect(passes(deny, method("InvokeService"))).toBe(false);
  expect(passes(deny, method("GetState"))).toBe(true);
  expect(lists(["v1.0 state GRPC"]).grpcGuard).toBeUndefined();
});

test("every method of the service belongs to a group", () => {
  const byGroup = new Map<string, string[]>();
  for (const { name } of Dapr.methods) {
    const group = grpcGroup(`/${Dapr.typeName}/${name}`);
    byGroup.set(group, [...(byGroup.get(group) ?? []), name]);
  }
  expect(byGroup.get("")).toBeUndefined();
  expect([...byGroup.keys()].sort()).toEqual(
    [
      "actors.v1",
      "actors.v1alpha1",
      "bindings.v1",
      "configuration.v1",
      "configuration.v1alpha1",
      "conversation.v1alpha1",
      "conversation.v1alpha2",
      "crypto.v1alpha1",
      "invoke.v1",
      "jobs.v1",
      "jobs.v1alpha1",
      "lock.v1alpha1",
      "metadata.v1",
      "publish.v1",
      "publish.v1alpha1",
      "secrets.v1",
      "shutdown.v1",
      "state.v1",
      "state.v1alpha1",
      "subscribe.v1alpha1",
      "subtlecrypto.v1alpha1",
      "unlock.v1alpha1",
      "workflows.v1alpha1",
      "workflows.v1beta1",
    ].sort(),
  );
  expect(byGroup.get("metadata.v1")).toEqual(["GetMetadata", "SetMetadata"]);
});
