/** Resource files for the pub/sub tests. */
import { stateComponent } from "../state/resources.ts";

/** A pub/sub component named `pubsub`. */
export function pubsubComponent(
  type = "pubsub.nats",
  metadata: Readonly<Record<string, string>> = {},
): string {
  return stateComponent("pubsub", type, metadata);
}

/** A v2alpha1 Subscription to `pubsub` with one default route; `more` are further lines of its spec. */
export function subscription(topic: string, route: string, more = ""): string {
  return [
    "apiVersion: dapr.io/v2alpha1\nkind: Subscription\n",
    `metadata: { name: ${JSON.stringify(topic)} }\nspec:\n  pubsubname: pubsub\n`,
    `  topic: ${JSON.stringify(topic)}\n  routes: { default: ${route} }\n${more}`,
  ].join("");
}

export type Event = Readonly<Record<string, unknown>> & { readonly id: string; readonly data: unknown };
