/**
 * Puts the block together: publishing, the app's subscriptions, and streams.
 */
import type { SubscriptionResource } from "../../config/resources.ts";
import type { Block, BlockHost } from "../block.ts";
import { createAppDelivery } from "./app-delivery.ts";
import { createBrokers } from "./broker.ts";
import { bulkLimits } from "./bulk-delivery.ts";
import { createBulkPublisher } from "./bulk-publish.ts";
import { createHandlers } from "./handlers.ts";
import { createWrapEvent } from "./envelope.ts";
import { httpRoutes } from "./http.ts";
import { asError, createPublisher } from "./publish.ts";
import type { Streams } from "./stream.ts";
import { createOpenSubscription } from "./subscriber.ts";
import { compileSubscription, describeSubscription } from "./subscription.ts";
import type { SubscriptionSpec, TopicSubscription } from "./subscription.ts";

export async function createPubSubBlock(host: BlockHost): Promise<Block> {
  const { appId, namespace } = host.options;
  const { clock, metrics, tracer } = host;
  const log = host.log.scope("dapr.runtime.pubsub");
  const brokers = createBrokers(host.components, appId, namespace, host.policies);
  const wrapEvent = createWrapEvent(appId, clock);
  const publisher = createPublisher({ appId, namespace, brokers, wrapEvent, clock, metrics });
  const open = createOpenSubscription(createHandlers({ namespace, publisher, clock, log, metrics, tracer }));
  const bulk = createBulkPublisher(publisher, appId, host, namespace);
  const declarative = await Promise.all(host.subscriptions.map(compileResource));
  const delivery = createAppDelivery({ host, log, brokers, open, declarative });
  let streams: Streams | undefined;

  return {
    name: "pubsub",
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
    async stop(graceMs) {
      await Promise.all([delivery.end(graceMs), streams?.stop(graceMs)]);
    },
    metadata: () => {
      const subscriptions: readonly SubscriptionSpec[] = delivery.list();
      return { subscriptions: [...subscriptions, ...(streams?.list() ?? [])].map(describeSubscription) };
    },
  };
}

/** A subscription of the resource files, ready to run. Rejects with an Error with its file and line. */
async function compileResource(resource: SubscriptionResource): Promise<TopicSubscription> {
  const { file, line } = resource.origin;
  const { enabled, maxMessagesCount, maxAwaitDurationMs } = resource.bulkSubscribe;
  try {
    return await compileSubscription({
      source: "DECLARATIVE",
      pubsub: resource.pubsubname,
      topic: resource.topic,
      metadata: resource.metadata,
      rules: resource.rules,
      deadLetterTopic: resource.deadLetterTopic,
      bulk: enabled ? bulkLimits(maxMessagesCount, maxAwaitDurationMs) : undefined,
    });
  } catch (error) {
    throw new Error(`${file}:${line}: subscription ${resource.name}: ${asError(error).message}`, {
      cause: error,
    });
  }
}
