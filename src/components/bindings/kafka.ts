/** Messages of Kafka topics for the app, and the app's messages to a topic. */
import type { Binding } from "../../blocks/bindings/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { connectKafka, handleEach, oneByOne } from "../connect/kafka.ts";
import { kafkaFields } from "../connect/kafka-fields.ts";

export const type = "bindings.kafka";
export const versions = ["v1"];
export const capabilities = ["INPUT_BINDING", "OUTPUT_BINDING"];
export const metadataSchema = {
  ...kafkaFields,
  topics: { kind: "string", description: "Input: topics to read, separated by commas" },
  publishTopic: { kind: "string", description: "Output: topic to write to" },
} as const satisfies MetadataSchema;

/** Rejects when no broker can be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<Binding> {
  const { metadata, appId } = context;
  const topics = (metadata.topics ?? "").split(",").flatMap((topic) => topic.trim() || []);
  const { publishTopic } = metadata;
  if (topics.length === 0 && publishTopic === undefined) {
    throw new Error('metadata field "topics" (input) or "publishTopic" (output) is required');
  }
  const kafka = await connectKafka(metadata, context);
  const group = metadata.consumerGroup ?? appId;
  return {
    operations: publishTopic === undefined ? [] : ["create"],
    ...(publishTopic !== undefined && {
      async invoke(request) {
        await kafka.publish(publishTopic, request);
        return undefined;
      },
    }),
    ...(topics.length > 0 && {
      read: (handler) =>
        kafka.read(topics, group, metadata.consumeRetryEnabled ?? false, oneByOne, handleEach(handler)),
    }),
    awaySinceMs: () => kafka.awaySinceMs(),
    close: () => kafka.close(),
  };
}
