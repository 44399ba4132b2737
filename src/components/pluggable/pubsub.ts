/** Events that a plug-in carries. */
import { PubSub } from "../../../proto/gen/dapr/proto/components/v1/pubsub_pb.ts";
import type {
  MessageHandler,
  PublishBatch,
  PubSub as Port,
  SubscribeRequest,
  Subscription,
} from "../../blocks/pubsub/port.ts";
import { textOf } from "../../lib/thrown.ts";
import { keepDelivering } from "./delivery.ts";
import type { OpenPlugin } from "./find.ts";
import type { Plugin } from "./plugin.ts";

export async function openPubSub({ plugin, context }: OpenPlugin): Promise<Port> {
  const { method } = PubSub;
  const metadata = { properties: context.properties };
  await plugin.initialise(
    async (signal) => void (await plugin.bare(method.init, { metadata }, signal)),
    context.signal,
  );
  const { features } = await plugin.call(method.features, {}, context.signal);
  const port: Port & { readonly capabilities: readonly string[] } = {
    capabilities: features,
    async publish({ topic, data, metadata: asked, contentType = "" }, signal) {
      const request = { pubsubName: context.name, topic, data, metadata: asked, contentType };
      await plugin.call(method.publish, request, signal);
    },
    ...(features.includes("BULK_PUBSUB") && {
      publishMany: (batch: PublishBatch, signal: AbortSignal) =>
        publishMany(plugin, context.name, batch, signal),
    }),
    subscribe: async (request, handler) => pull(plugin, request, handler),
    async close() {
      plugin.close();
    },
  };
  return port;
}

async function publishMany(
  plugin: Plugin,
  pubsubName: string,
  { topic, entries, metadata }: PublishBatch,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Error>> {
  const wireEntries = entries.map(({ entryId, message, contentType }) => ({
    entryId,
    event: message.data,
    contentType: message.contentType ?? contentType,
    metadata: message.metadata,
  }));
  const request = { entries: wireEntries, pubsubName, topic, metadata };
  const { failedEntries } = await plugin.call(PubSub.method.bulkPublish, request, signal);
  return new Map(
    failedEntries.map(({ entryId, error }) => [
      entryId,
      new Error(error === "" ? "the plug-in did not take it" : error),
    ]),
  );
}

/** The first message names the topic; each later one says what became of an event. */
function pull(plugin: Plugin, { topic, metadata }: SubscribeRequest, handler: MessageHandler): Subscription {
  return keepDelivering(plugin, `topic ${topic}`, ({ signal, handle }) =>
    plugin.stream(
      PubSub.method.pullMessages,
      (wire) => {
        wire.send({ topic: { name: topic, metadata } });
        return async (event) => {
          const { id, data, topicName, contentType } = event;
          const message = {
            topic: topicName,
            data,
            metadata: event.metadata,
            contentType: contentType || undefined,
          };
          try {
            const handled = handle(() => handler(message, signal));
            if (handled === undefined) return;
            await handled;
            wire.send({ ackMessageId: id });
          } catch (error) {
            wire.send({ ackMessageId: id, ackError: { message: textOf(error) } });
          }
        };
      },
      signal,
    ),
  );
}
