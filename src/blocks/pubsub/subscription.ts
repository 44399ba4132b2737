/**
 * A subscription of the app, wherever it was declared, and what of it counts when several name one topic.
 */
import type { BatchLimits } from "./port.ts";
import type { Metadata } from "./event.ts";
import { compileRoute } from "./routes.ts";
import type { Route, RouteRule } from "./routes.ts";

export type SubscriptionSource = "DECLARATIVE" | "PROGRAMMATIC" | "STREAMING";

/** As its source wrote it; the default path is the last rule, with an empty match. */
export type SubscriptionSpec = {
  readonly source: SubscriptionSource;
  readonly pubsub: string;
  readonly topic: string;
  readonly metadata: Metadata;
  readonly rules: readonly RouteRule[];
  /** Empty = none. */
  readonly deadLetterTopic: string;
  /** Asks for several events in one call, with 0 for limits it does not name; undefined = one by one. */
  readonly bulk: BatchLimits | undefined;
};

/** Ready to run: its routes are compiled. */
export type TopicSubscription = SubscriptionSpec & { readonly route: Route };

/** Compiles the routes. Rejects with an Error in words that name what cannot be run. */
export async function compileSubscription(spec: SubscriptionSpec): Promise<TopicSubscription> {
  return { ...spec, route: await compileRoute(spec.rules) };
}

/**
 * One subscription per component and topic: the first declarative one, unless the app itself subscribes;
 * of the app's own the last one.
 */
export function chooseSubscriptions<S extends SubscriptionSpec>(
  declarative: readonly S[],
  programmatic: readonly S[],
): S[] {
  const chosen = new Map<string, S>();
  const keyOf = (spec: S): string => JSON.stringify([spec.pubsub, spec.topic]);
  for (const spec of declarative) if (!chosen.has(keyOf(spec))) chosen.set(keyOf(spec), spec);
  for (const spec of programmatic) chosen.set(keyOf(spec), spec);
  return [...chosen.values()];
}

/** The item of GET /v1.0/metadata: empty members are left out, except `deadLetterTopic`. */
export function describeSubscription(spec: SubscriptionSpec): Record<string, unknown> {
  const rules = spec.rules.map(({ match, path }) => ({
    ...(match.trim() === "" ? {} : { match: match.trim() }),
    ...(path === "" ? {} : { path }),
  }));
  return {
    pubsubname: spec.pubsub,
    topic: spec.topic,
    ...(Object.keys(spec.metadata).length === 0 ? {} : { metadata: spec.metadata }),
    ...(rules.length === 0 ? {} : { rules }),
    deadLetterTopic: spec.deadLetterTopic,
    type: spec.source,
  };
}
