import { describe, expect, it } from "vitest";
import { createHttpLabels } from "./http-labels.ts";

const settings = { increasedCardinality: true, pathMatching: [] as string[], excludeVerbs: false };

describe("paths of requests as labels", () => {
  const { path } = createHttpLabels(settings);
  it.each([
    ["/v1.0/state/store", "/v1.0/state/store"],
    ["/v1.0/state/store/key", "/v1.0/state/store"],
    ["/v1.0/state/store/bulk", "/v1.0/state/store"],
    ["/v1.0/secrets/vault/name", "/v1.0/secrets/vault"],
    ["/v1.0/actors/Cat/7/method/meow", "/v1.0/actors/Cat/{id}/method"],
    ["/v1.0/actors/Cat/7/state", "/v1.0/actors/Cat/{id}/state"],
    ["actors/Cat/7/method/meow", "actors/Cat/{id}/method/meow"],
    ["/actors/Cat/7/method/timer/t", "actors/Cat/{id}/method/timer/t"],
    ["/v1.0/workflows/dapr/flow/start", "/v1.0/workflows/dapr/flow/start"],
    ["/v1.0/workflows/dapr/abc", "/v1.0/workflows/dapr/{instanceId}"],
    ["/v1.0/workflows/dapr/abc/raiseEvent/e", "/v1.0/workflows/dapr/{instanceId}/raiseEvent/{eventName}"],
    ["/v1.0/invoke/app/method/state/a/b/c", "/v1.0/invoke/app/method/state/a/b/c"],
    ["/v1.0/publish/pubsub/topic", "/v1.0/publish/pubsub/topic"],
    ["/dapr/subscribe", "/dapr/subscribe"],
    ["orders", "orders"],
    ["/", "/"],
  ])("%s is %s", (given, label) => expect(path(given)).toBe(label));
});

it("leaves paths out without increased cardinality, but for a few", () => {
  const labels = createHttpLabels({ ...settings, increasedCardinality: false });
  expect(labels.detailed).toBe(false);
  expect(["/v1.0/state/s/k", "/dapr/config", "/healthz", "/x"].map((path) => labels.path(path))).toEqual([
    "",
    "/dapr/config",
    "/healthz",
    "",
  ]);
});

describe("patterns", () => {
  const pathMatching = ["/orders", "/orders/{id}", "/orders/new", "/files/", "/v1.0/state/s"];
  const of = (increasedCardinality: boolean) =>
    createHttpLabels({ ...settings, increasedCardinality, pathMatching });
  it.each([
    ["/orders", "/orders", "/orders"],
    ["orders/7", "/orders/{id}", "/orders/{id}"],
    ["/orders/new", "/orders/new", "/orders/new"],
    ["/orders/7/items", "/orders/7/items", ""],
    ["/files/a/b", "/files/", "/files/"],
    ["/v1.0/state/s/key", "/v1.0/state/s", "/v1.0/state/s"],
    [
      "/v1.0/invoke/app/method/orders/7",
      "/v1.0/invoke/{app_id}/method/orders/{id}",
      "/v1.0/invoke/{app_id}/method/orders/{id}",
    ],
    ["/v1.0/invoke/app/method/other", "/v1.0/invoke/app/method/other", ""],
  ])("%s", (path, detailed, plain) => {
    expect(of(true).path(path)).toBe(detailed);
    expect(of(false).path(path)).toBe(plain);
  });

  it("a slash catches all", () => {
    const labels = createHttpLabels({ ...settings, increasedCardinality: false, pathMatching: ["/", "/a"] });
    expect(["/a", "/b/c", "/v1.0/invoke/x/method/b"].map((path) => labels.path(path))).toEqual([
      "/a",
      "/",
      "/v1.0/invoke/{app_id}/method/",
    ]);
  });
});

it("verbs are known ones, or left out", () => {
  const { method } = createHttpLabels(settings);
  expect(["GET", "BREW"].map((verb) => method(verb))).toEqual(["GET", "UNKNOWN"]);
  expect(createHttpLabels({ ...settings, excludeVerbs: true }).method("GET")).toBe("");
});
