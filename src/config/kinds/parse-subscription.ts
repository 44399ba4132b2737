/**
 * Reads the body of a Subscription document of either version: v1alpha1 has one `route`, v2alpha1 has `routes`.
 */
import type { Section } from "../section.ts";
import type { ResourceHeader } from "./header.ts";
import type { BulkSubscribe, SubscriptionResource, SubscriptionRule } from "./subscription.ts";

const COMMON = ["topic", "pubsubname", "metadata", "deadLetterTopic", "bulkSubscribe"];
const ROUTE_KEY = { v1alpha1: "route", v2alpha1: "routes" } as const;

export type SubscriptionVersion = keyof typeof ROUTE_KEY;

/** The subscription, or undefined after noting errors. */
export function parseSubscription(
  root: Section,
  header: ResourceHeader,
  version: SubscriptionVersion,
): SubscriptionResource | undefined {
  root.warnUnknown(["apiVersion", "kind", "metadata", "spec", "scopes"]);
  const spec = root.section("spec");
  if (spec === undefined) {
    if (root.node("spec") === undefined) {
      root.problems.error(root.at, "spec is missing, a subscription needs spec.pubsubname and spec.topic");
    }
    return undefined;
  }
  warnOtherVersion(spec, version);
  const subscription: SubscriptionResource = {
    kind: "Subscription",
    name: header.name,
    namespace: header.namespace,
    pubsubname: spec.requiredText("pubsubname", "pubsub"),
    topic: spec.requiredText("topic", "orders"),
    rules: version === "v1alpha1" ? defaultRule(spec.text("route")) : parseRoutes(spec),
    deadLetterTopic: spec.text("deadLetterTopic") ?? "",
    metadata: spec.textMap("metadata") ?? {},
    bulkSubscribe: parseBulkSubscribe(spec),
    scopes: header.scopes,
    origin: header.origin,
  };
  if (root.problems.failed) return undefined;
  if (subscription.rules.length === 0) {
    const key = ROUTE_KEY[version];
    root.problems.warn(spec.at, `spec.${key} is missing: every event of the topic will be dropped`);
  }
  return subscription;
}

/** A route written in the other version's way is the commonest mistake here, so it gets its own words. */
function warnOtherVersion(spec: Section, version: SubscriptionVersion): void {
  const other = version === "v1alpha1" ? "v2alpha1" : "v1alpha1";
  const key = ROUTE_KEY[other];
  if (spec.node(key) !== undefined) {
    const fix = `use apiVersion: dapr.io/${other}, or ${ROUTE_KEY[version]}`;
    spec.problems.warn(spec.positionOf(key), `spec.${key} is ignored in dapr.io/${version}, ${fix}`);
  }
  spec.warnUnknown([...COMMON, ROUTE_KEY[version], key]);
}

function defaultRule(path: string | undefined): SubscriptionRule[] {
  return path === undefined || path === "" ? [] : [{ match: "", path }];
}

function parseRoutes(spec: Section): readonly SubscriptionRule[] {
  const routes = spec.section("routes");
  if (routes === undefined) return [];
  routes.warnUnknown(["rules", "default"]);
  const rules = routes.sections("rules").map((rule): SubscriptionRule => {
    rule.warnUnknown(["match", "path"]);
    return { match: rule.text("match") ?? "", path: rule.text("path") ?? "" };
  });
  return [...rules, ...defaultRule(routes.text("default"))];
}

function parseBulkSubscribe(spec: Section): BulkSubscribe {
  const bulk = spec.section("bulkSubscribe");
  bulk?.warnUnknown(["enabled", "maxMessagesCount", "maxAwaitDurationMs"]);
  return {
    enabled: bulk?.boolean("enabled") ?? false,
    maxMessagesCount: bulk?.integer("maxMessagesCount") ?? 0,
    maxAwaitDurationMs: bulk?.integer("maxAwaitDurationMs") ?? 0,
  };
}
