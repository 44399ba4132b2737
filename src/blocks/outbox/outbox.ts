/**
 * The outbox: events of state transactions that are published exactly when their transaction was committed. Before the
 * transaction its events go to a topic where they wait, and a marker for each goes into the transaction itself.
 */
import { noTrace } from "../../telemetry/tracing/trace-context.ts";
import type { Block, BlockHost } from "../block.ts";
import type { Brokers } from "../pubsub/broker.ts";
import { cloudEventsType } from "../pubsub/envelope.ts";
import type { BrokerMessage, SubscribeRequest } from "../pubsub/port.ts";
import type { Publisher } from "../pubsub/publish.ts";
import { createSubscriber, type Subscriber } from "../pubsub/subscriber.ts";
import type { TopicSubscription } from "../pubsub/subscription.ts";
import type { OutboxOf, OutboxRound } from "../state/outbox.ts";
import type { StateStore } from "../state/port.ts";
import { outboxFailed } from "./errors.ts";
import { type Plan, planEvents, waitingEnvelope } from "./event.ts";
import { createRelay, type OutboxStore, type Relay } from "./relay.ts";
import { Rounds } from "./rounds.ts";
import { outboxProblem, type OutboxSettings, outboxSettings } from "./settings.ts";

export type OutboxParts = {
  readonly brokers: Brokers;
  readonly publisher: Pick<Publisher, "allow" | "send">;
};

export type OutboxBlock = Block & { readonly outboxOf: OutboxOf };

/** Events that may wait in this sidecar at once: those that look for their transaction hold nobody back. */
const maxWaiting = 512;

export function createOutboxBlock(host: BlockHost, { brokers, publisher }: OutboxParts): OutboxBlock {
  const { clock, components } = host;
  const { appId, namespace } = host.options;
  const log = host.log.scope("dapr.outbox");
  const rounds = new Rounds();

  const stores = (): OutboxStore[] =>
    components.all<StateStore>("state").flatMap(({ resource: { name }, port, properties }) => {
      const settings = outboxSettings({ properties }, { appId, namespace });
      return settings === undefined ? [] : [{ name, port, settings }];
    });
  const storesOf = (waitPubsub: string, waitTopic: string): OutboxStore[] =>
    stores().filter(({ settings }) => settings.waitPubsub === waitPubsub && settings.waitTopic === waitTopic);
  const relay = createRelay({ brokers, publisher, rounds, clock, log, storesOf });

  let subscriber: Subscriber<Relay> | undefined;
  const follow = async (graceMs: number): Promise<void> =>
    subscriber?.set(
      stores().map(({ settings }) => waitingSubscription(settings)),
      relay,
      graceMs,
    );
  const end = async (graceMs: number): Promise<void> => {
    const ending = subscriber;
    subscriber = undefined;
    await ending?.stop(graceMs);
  };
  const parts = { appId, brokers, open: openWaiting(appId), scoped: false, clock, log };

  return {
    name: "outbox",
    http: [],
    grpc: async () => [],
    outboxOf(component) {
      const problem = outboxProblem(component);
      if (problem !== undefined)
        log.warn(`state store ${component.resource.name}: no outbox event is published: ${problem}`);
      const settings = outboxSettings(component, { appId, namespace });
      const of = { appId, store: component.resource.name, brokers, publisher, rounds, clock };
      return settings === undefined || component.port.transact === undefined
        ? undefined
        : { plan: (operations) => roundOf(of, settings, planEvents(operations)) };
    },
    async appReady() {
      subscriber ??= createSubscriber(parts);
      await follow(0);
    },
    appUnready: end,
    async componentChanged({ category }, graceMs) {
      if (category === "state" || category === "pubsub") await follow(graceMs);
    },
    stop: end,
  };
}

/** The topic on which events of a store wait. */
function waitingSubscription({ waitPubsub, waitTopic }: OutboxSettings): TopicSubscription {
  return {
    source: "DECLARATIVE",
    pubsub: waitPubsub,
    topic: waitTopic,
    metadata: {},
    rules: [],
    deadLetterTopic: "",
    bulk: undefined,
    route: () => undefined,
  };
}

function openWaiting(appId: string): Parameters<typeof createSubscriber<Relay>>[0]["open"] {
  return (broker, { pubsub, topic }, relay) => {
    const request: SubscribeRequest = {
      topic: broker.stored(topic),
      metadata: {},
      rawPayload: false,
      batch: 1,
      atOnce: maxWaiting,
      // The death of a sidecar is a delivery too, and the relay itself gives up what has no transaction.
      untilHandled: true,
      // One replica handles an event, also where each gets every event of the app's own subscriptions.
      ...(broker.groupPerReplica && { group: appId }),
    };
    return broker.port.subscribe(request, (message: BrokerMessage, signal) =>
      relay(pubsub, topic, message, signal),
    );
  };
}

type StoreParts = OutboxParts & {
  readonly appId: string;
  /** Name of the state component. */
  readonly store: string;
  readonly rounds: Rounds;
  readonly clock: BlockHost["clock"];
};

function roundOf(parts: StoreParts, { waitPubsub, waitTopic }: OutboxSettings, plan: Plan): OutboxRound {
  const { appId, brokers, publisher, rounds, clock, store } = parts;
  const markers = plan.events.map(({ marker }) => marker);
  let settle: ReturnType<Rounds["begin"]> | undefined;
  return {
    operations: plan.operations,
    markers,
    settle: (outcome) => settle?.(outcome),
    async announce(span, signal) {
      if (markers.length === 0) return;
      settle = rounds.begin(store, markers);
      const trace = span?.valid === true ? span : noTrace;
      try {
        const broker = brokers.get(waitPubsub);
        if (broker === undefined) throw new Error(`pubsub ${waitPubsub} is not found`);
        publisher.allow({ broker, topic: waitTopic, raw: false });
        const topic = broker.stored(waitTopic);
        const messages = plan.events.map((event) => ({
          topic,
          data: waitingEnvelope(event, appId, trace, clock.nowMs()),
          metadata: {},
          contentType: cloudEventsType,
          id: event.marker,
          waiting: true as const,
        }));
        for (const message of messages) await publisher.send(broker, message, signal, "grpc");
      } catch (error) {
        throw outboxFailed(appId, error);
      }
    },
  };
}
