/**
 * Puts the block together: publishing, the app's subscriptions, and streams.
 */
import { asError } from "../../lib/thrown.ts";
import type { SubscriptionResource } from "../../config/resources.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Block, BlockHost } from "../block.ts";
import { createAppDelivery } from "./app-delivery.ts";
import { type Brokers, createBrokers } from "./broker.ts";
import { createBulkPublisher } from "./bulk-publish.ts";
import { createSubscribe } from "./handlers.ts";
import { createWrapEvent } from "./envelope.ts";
import { httpRoutes } from "./http.ts";
import { createPublisher, type Publisher } from "./publish.ts";
import type { Streams } from "./stream.ts";
import { compileSubscription, describeSubscription } from "./subscription.ts";
import type { SubscriptionSpec, TopicSubscription } from "./subscription.ts";

/** With what the outbox publishes by. */
export type PubSubBlock = Block & { readonly brokers: Brokers; readonly publisher: Publisher };

export async function createPubSubBlock(host: BlockHost): Promise<PubSubBlock> {
  const { appId, namespace } = host.options;
  const { clock, metrics, tracing } = host;
  const log = host.log.scope("dapr.runtime.pubsub");
  const brokers = createBrokers(host.components, appId, namespace, host.policies);
  const wrapEvent = createWrapEvent(appId, clock);
  const publisher = createPublisher({ appId, namespace, brokers, wrapEvent, clock, metrics });
  const open = createSubscribe({ namespace, publisher, clock, log, metrics, tracing });
  const bulk = createBulkPublisher(publisher, appId, host, namespace);
  let declarative: readonly Compiled[] = await Promise.all(host.subscriptions.map(compileResource));
  const first = declarative.map(({ subscription }) => subscription);
  const delivery = createAppDelivery({ host, log, brokers, open, declarative: first });
  let streams: Streams | undefined;

  return {
    name: "pubsub",
    brokers,
    publisher,
    http: httpRoutes(publisher, bulk),
    async grpc() {
      const [{ grpcMethods }, { createStreams }] = await Promise.all([
        import("./grpc.ts"),
        import("./stream.ts"),
      ]);
      streams = createStreams({ brokers, open });
      return [...grpcMethods(publisher, bulk), streams.method];
    },
    appReady: () => delivery.start(),
    async appUnready(graceMs, why) {
      // Streams are the app's own doing: while it is ill it may close them or not.
      await Promise.all([delivery.end(graceMs), why === "ending" ? streams?.stop(graceMs) : undefined]);
    },
    async componentChanged({ category, name }, graceMs) {
      if (category !== "pubsub") return;
      await Promise.all([delivery.refresh(graceMs), streams?.brokerChanged(name, graceMs)]);
    },
    async subscriptionsChanged(resources, graceMs) {
      declarative = await compileAgain(resources, declarative, log);
      const now = declarative.map(({ subscription }) => subscription);
      await delivery.refresh(graceMs, now);
    },
    async stop(graceMs) {
      await Promise.all([delivery.end(graceMs), streams?.stop(graceMs)]);
    },
    metadata: () => {
      const subscriptions: readonly SubscriptionSpec[] = delivery.list();
      return { subscriptions: [...subscriptions, ...(streams?.list() ?? [])].map(describeSubscription) };
    },
  };
}

/** A subscription of the resource files by the name of its resource. */
type Compiled = { readonly name: string; readonly subscription: TopicSubscription };

/** One that cannot be run is told, and goes on as it was before. */
async function compileAgain(
  resources: readonly SubscriptionResource[],
  before: readonly Compiled[],
  log: Log,
): Promise<readonly Compiled[]> {
  const compiled: Compiled[] = [];
  for (const resource of resources) {
    try {
      compiled.push(await compileResource(resource));
    } catch (error) {
      const old = before.find(({ name }) => name === resource.name);
      log.error(
        `${asError(error).message}; ${old === undefined ? "it is not there" : "it goes on as before"}`,
      );
      if (old !== undefined) compiled.push(old);
    }
  }
  return compiled;
}

/** A subscription of the resource files, ready to run. Rejects with an Error with its file and line. */
async function compileResource(resource: SubscriptionResource): Promise<Compiled> {
  const { file, line } = resource.origin;
  const { enabled, maxMessagesCount, maxAwaitDurationMs } = resource.bulkSubscribe;
  try {
    const subscription = await compileSubscription({
      source: "DECLARATIVE",
      pubsub: resource.pubsubname,
      topic: resource.topic,
      metadata: resource.metadata,
      rules: resource.rules,
      deadLetterTopic: resource.deadLetterTopic,
      bulk: enabled ? { maxMessages: maxMessagesCount, maxAwaitMs: maxAwaitDurationMs } : undefined,
    });
    return { name: resource.name, subscription };
  } catch (error) {
    throw new Error(`${file}:${line}: subscription ${resource.name}: ${asError(error).message}`, {
      cause: error,
    });
  }
}
