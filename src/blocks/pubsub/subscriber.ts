/**
 * Keeps the app's subscriptions running: starts them, tries again for ever where the broker refuses, stops them.
 */
import type { Clock } from "../../../mesh/index.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Broker, Brokers } from "./broker.ts";
import type { CreateHandler, Delivering } from "./handlers.ts";
import { readRawPayload } from "./raw-payload.ts";
import type { Subscription } from "./port.ts";
import { asError } from "./publish.ts";
import type { TopicSubscription } from "./subscription.ts";

/** Opens a subscription at its broker. Rejects with the component's error. */
export type OpenSubscription = (
  broker: Broker,
  subscription: TopicSubscription,
  deliver: Delivering,
) => Promise<Subscription>;

export function createOpenSubscription(createHandler: CreateHandler): OpenSubscription {
  return (broker, subscription, deliver) => {
    const request = {
      topic: broker.stored(subscription.topic),
      metadata: subscription.metadata,
      rawPayload: readRawPayload(subscription.metadata) === true,
      batch: deliver.many === undefined ? 1 : (subscription.bulk?.maxMessages ?? 1),
    };
    return broker.port.subscribe(request, createHandler(broker, subscription, deliver));
  };
}

export type SubscriberParts = {
  readonly appId: string;
  readonly brokers: Brokers;
  readonly open: OpenSubscription;
  readonly clock: Clock;
  readonly log: Log;
};

export type Subscriber = {
  /** Resolves when each subscription has been tried once; those that failed are tried on in the background. */
  start(subscriptions: readonly TopicSubscription[], deliver: Delivering): Promise<void>;
  /** Ends all, waiting for running handlers up to `graceMs`. */
  stop(graceMs: number): Promise<void>;
};

/** Waits between tries to subscribe, ms: doubled each time up to the limit. */
const firstRetryMs = 500;
const maxRetryMs = 30_000;

export function createSubscriber(parts: SubscriberParts): Subscriber {
  const { appId, brokers, clock, log } = parts;
  const stopped = new AbortController();
  const running = new Set<Subscription>();

  /** True when it runs now, or never will. */
  async function attempt(
    broker: Broker,
    subscription: TopicSubscription,
    deliver: Delivering,
  ): Promise<boolean> {
    try {
      const opened = await parts.open(broker, subscription, deliver);
      if (stopped.signal.aborted) await opened.stop(0);
      else running.add(opened);
      log.info(`app is subscribed to topic ${subscription.topic} through pubsub=${broker.name}`);
      return true;
    } catch (error) {
      log.error(
        `cannot subscribe to topic ${subscription.topic} of ${broker.name}: ${asError(error).message}`,
      );
      return stopped.signal.aborted;
    }
  }

  async function keepTrying(
    broker: Broker,
    subscription: TopicSubscription,
    deliver: Delivering,
  ): Promise<void> {
    for (let delayMs = firstRetryMs; ; delayMs = Math.min(delayMs * 2, maxRetryMs)) {
      await clock.sleep(delayMs, stopped.signal);
      if (await attempt(broker, subscription, deliver)) return;
    }
  }

  async function begin(subscription: TopicSubscription, deliver: Delivering): Promise<void> {
    const { pubsub, topic } = subscription;
    const broker = brokers.get(pubsub);
    if (broker === undefined)
      return log.warn(`subscription to topic ${topic} waits: there is no pubsub ${pubsub}`);
    if (!broker.scopes.maySubscribe(topic)) {
      return log.error(
        `subscription to topic '${topic}' on pubsub '${pubsub}' is not allowed for app id ${appId}`,
      );
    }
    if (await attempt(broker, subscription, deliver)) return;
    // Ends only at the stop, whose abort is the one thing that it can reject with.
    keepTrying(broker, subscription, deliver).catch(() => {});
  }

  return {
    async start(subscriptions, deliver) {
      await Promise.all(subscriptions.map((subscription) => begin(subscription, deliver)));
    },
    async stop(graceMs) {
      stopped.abort(new Error("the sidecar stops"));
      await Promise.all([...running].map((subscription) => subscription.stop(graceMs)));
      running.clear();
    },
  };
}
