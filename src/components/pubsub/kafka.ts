/** Publish/subscribe through Kafka. All instances of an app are one consumer group. */
import { consumerGroup } from "../component.ts";
import type { MessageHandler, PubSub, SubscribeRequest, Subscription } from "../../blocks/pubsub/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { connectKafka } from "../connect/kafka.ts";
import { kafkaFields } from "../connect/kafka-fields.ts";

export const type = "pubsub.kafka";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = kafkaFields satisfies MetadataSchema;

/** Rejects when no broker can be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<PubSub> {
  const { metadata } = context;
  const kafka = await connectKafka(metadata, context);
  const group = metadata.consumerGroup ?? consumerGroup(context);
  const retry = metadata.consumeRetryEnabled ?? true;
  return {
    publish: ({ topic, data, metadata: sent }) => kafka.publish(topic, data, sent),
    subscribe({ topic, group: asked }: SubscribeRequest, handler: MessageHandler): Promise<Subscription> {
      return kafka.read([topic], asked ?? group, retry, (message, signal) =>
        handler({ ...message, contentType: undefined }, signal),
      );
    },
    awaySinceMs: () => kafka.awaySinceMs(),
    close: () => kafka.close(),
  };
}
