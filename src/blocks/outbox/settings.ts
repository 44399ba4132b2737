/** What the metadata of a state component say about its outbox. */
import { propertyOf } from "../../components/component.ts";
import type { OpenComponent } from "../../components/open.ts";
import { isTruthy } from "../../lib/truthy.ts";

export type OutboxSettings = {
  /** Where events go when their transaction was committed. */
  readonly publishPubsub: string;
  readonly publishTopic: string;
  /** Where they wait until then. */
  readonly waitPubsub: string;
  readonly waitTopic: string;
  /** An event whose transaction is not found in time is acknowledged, not given back to the broker. */
  readonly discardsMissing: boolean;
};

const fields = ["outboxPublishPubsub", "outboxPublishTopic", "outboxPubsub", "outboxDiscardWhenMissingState"];

/** Undefined without `outboxPublishPubsub` or `outboxPublishTopic`. Names count as they are written. */
export function outboxSettings(
  { properties }: Pick<OpenComponent, "properties">,
  app: { readonly namespace: string; readonly appId: string },
): OutboxSettings | undefined {
  const { outboxPublishPubsub: publishPubsub, outboxPublishTopic: publishTopic } = properties;
  if (!publishPubsub || !publishTopic) return undefined;
  return {
    publishPubsub,
    publishTopic,
    waitPubsub: properties["outboxPubsub"] || publishPubsub,
    waitTopic: `${app.namespace}${app.appId}${publishTopic}outbox`,
    discardsMissing: isTruthy(properties["outboxDiscardWhenMissingState"]),
  };
}

/** Why the metadata do not do what they seem to ask for; undefined when they do. */
export function outboxProblem({
  properties,
  port,
}: Pick<OpenComponent<{ transact?: unknown }>, "properties" | "port">): string | undefined {
  for (const field of fields) {
    if (properties[field] === undefined && propertyOf(properties, field) !== undefined)
      return `metadata ${field} must be written exactly so`;
  }
  const { outboxPublishPubsub, outboxPublishTopic } = properties;
  if (!outboxPublishPubsub && !outboxPublishTopic) return undefined;
  if (!outboxPublishPubsub) return "metadata outboxPublishTopic needs outboxPublishPubsub too";
  if (!outboxPublishTopic) return "metadata outboxPublishPubsub needs outboxPublishTopic too";
  return port.transact === undefined ? "this store has no transactions" : undefined;
}
