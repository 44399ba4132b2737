/** Publish/subscribe through Kafka. All instances of an app are one consumer group. */
import { consumerGroup } from "../component.ts";
import type {
  BatchHandler,
  BatchLimits,
  MessageHandler,
  PubSub,
  SubscribeRequest,
  Subscription,
} from "../../blocks/pubsub/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { connectKafka, handleEach, oneByOne, refuseAvro } from "../connect/kafka.ts";
import { kafkaFields } from "../connect/kafka-fields.ts";

export const type = "pubsub.kafka";
export const versions = ["v1"];
export const capabilities = ["BULK_PUBSUB"];
export const metadataSchema = kafkaFields satisfies MetadataSchema;

/** Rejects when no broker can be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<PubSub> {
  const { metadata } = context;
  const kafka = await connectKafka(metadata, context);
  const group = metadata.consumerGroup ?? consumerGroup(context);
  const retry = metadata.consumeRetryEnabled ?? true;
  return {
    publish: (message) => kafka.publish(message.topic, message),
    async publishMany({ topic, entries }) {
      const messages = entries.map(({ message }) => message);
      const failed = await kafka.publishMany(topic, messages);
      return new Map([...failed].map(([place, error]) => [entries[place]!.entryId, error]));
    },
    async subscribe(
      { topic, group: asked, metadata: own }: SubscribeRequest,
      handler: MessageHandler,
    ): Promise<Subscription> {
      refuseAvro(own);
      const each = handleEach((message, signal) => handler({ ...message, contentType: undefined }, signal));
      return kafka.read([topic], asked ?? group, retry, oneByOne, each);
    },
    batchLimits: { maxMessages: 80, maxAwaitMs: 10_000 },
    async subscribeBatches(
      { topic, group: asked, metadata: own }: SubscribeRequest,
      limits: BatchLimits,
      handler: BatchHandler,
    ) {
      refuseAvro(own);
      return kafka.read([topic], asked ?? group, retry, limits, (messages, signal) =>
        handler(
          messages.map((message) => ({ ...message, contentType: undefined })),
          signal,
        ),
      );
    },
    awaySinceMs: () => kafka.awaySinceMs(),
    close: () => kafka.close(),
  };
}
