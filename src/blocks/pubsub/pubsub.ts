/**
 * Puts the block together: publishing, the app's subscriptions, and streams.
 */
import type { AppChannel } from "../../app/channel.ts";
import type { SubscriptionResource } from "../../config/resources.ts";
import type { Block, BlockHost } from "../block.ts";
import type { Deliver } from "./answer.ts";
import { createBrokers } from "./broker.ts";
import { createBulkPublisher } from "./bulk-publish.ts";
import { createHandlers } from "./delivery.ts";
import { createWrapEvent } from "./envelope.ts";
import { deliverToHttpApp } from "./http-app.ts";
import { httpRoutes } from "./http.ts";
import { asError, createPublisher } from "./publish.ts";
import type { Streams } from "./stream.ts";
import { askForSubscriptions } from "./subscribe-list.ts";
import { createOpenSubscription, createSubscriber } from "./subscriber.ts";
import type { Subscriber } from "./subscriber.ts";
import { chooseSubscriptions, compileSubscription, describeSubscription } from "./subscription.ts";
import type { SubscriptionSpec, TopicSubscription } from "./subscription.ts";

export function createPubSubBlock(host: BlockHost): Block {
  const { appId, namespace } = host.options;
  const { app, clock, metrics } = host;
  const log = host.log.scope("dapr.runtime.pubsub");
  const brokers = createBrokers(host.components, appId, namespace);
  const wrapEvent = createWrapEvent(appId, clock);
  const publisher = createPublisher({ appId, namespace, brokers, wrapEvent, clock, metrics });
  const open = createOpenSubscription(createHandlers({ namespace, publisher, clock, log, metrics }));
  const bulk = createBulkPublisher(publisher, appId);
  const declarative = host.subscriptions.map(compileResource);
  const unstarted = chooseSubscriptions(declarative, []);
  let streams: Streams | undefined;
  /** What the app listed, once it did; it is not asked again. */
  let chosen: readonly TopicSubscription[] | undefined;
  /** From `appReady` until `appUnready`. */
  let delivery: { readonly ending: AbortController; readonly subscriber: Subscriber } | undefined;

  async function choose(signal: AbortSignal): Promise<readonly TopicSubscription[]> {
    if (host.options.app.skipSubscribe || !brokers.any()) return unstarted;
    const specs = await askForSubscriptions({ app, appId, clock, log }, signal);
    const programmatic = specs.flatMap((spec) => {
      try {
        return [compileSubscription(spec)];
      } catch (error) {
        log.error(
          `the app's subscription to ${spec.topic} of ${spec.pubsub} does not start: ${asError(error).message}`,
        );
        return [];
      }
    });
    return chooseSubscriptions(declarative, programmatic);
  }

  async function startDelivery(): Promise<void> {
    const ending = new AbortController();
    const subscriber = createSubscriber({ appId, brokers, open, clock, log });
    delivery = { ending, subscriber };
    try {
      chosen ??= await choose(ending.signal);
      if (chosen.length > 0 && !ending.signal.aborted) await subscriber.start(chosen, await deliverTo(app));
    } catch (error) {
      if (ending.signal.aborted) return;
      log.error(`no subscription of the app starts: ${asError(error).message}`);
    }
  }

  async function endDelivery(graceMs: number): Promise<void> {
    delivery?.ending.abort(new Error("delivery to the app ends"));
    await delivery?.subscriber.stop(graceMs);
  }

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
    appReady: () => (app.protocol === "none" ? Promise.resolve() : startDelivery()),
    async appUnready(graceMs, why) {
      // Streams are the app's own doing: while it is ill it may close them or not.
      await Promise.all([endDelivery(graceMs), why === "ending" ? streams?.stop(graceMs) : undefined]);
    },
    async stop(graceMs) {
      await Promise.all([endDelivery(graceMs), streams?.stop(graceMs)]);
    },
    metadata: () => {
      const subscriptions: readonly SubscriptionSpec[] = chosen ?? unstarted;
      return { subscriptions: [...subscriptions, ...(streams?.list() ?? [])].map(describeSubscription) };
    },
  };
}

/** The gRPC side is imported only for gRPC apps, since generated messages cost start time. */
async function deliverTo(app: AppChannel): Promise<Deliver> {
  return app.protocol === "grpc"
    ? (await import("./grpc-app.ts")).deliverToGrpcApp(app)
    : deliverToHttpApp(app);
}

/** A subscription of the resource files, ready to run. Throws Error with its file and line. */
function compileResource(resource: SubscriptionResource): TopicSubscription {
  const { file, line } = resource.origin;
  try {
    return compileSubscription({
      source: "DECLARATIVE",
      pubsub: resource.pubsubname,
      topic: resource.topic,
      metadata: resource.metadata,
      rules: resource.rules,
      deadLetterTopic: resource.deadLetterTopic,
      bulk: resource.bulkSubscribe.enabled,
    });
  } catch (error) {
    throw new Error(`${file}:${line}: subscription ${resource.name}: ${asError(error).message}`, {
      cause: error,
    });
  }
}
