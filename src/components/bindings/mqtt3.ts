/** Messages of an MQTT 3.1.1 topic for the app, and the app's messages to it. */
import type { Binding } from "../../blocks/bindings/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { connectMqtt, type Mqtt, mqttFields } from "../connect/mqtt.ts";

export const type = "bindings.mqtt3";
export const aliases = ["bindings.mqtt"];
export const versions = ["v1"];
export const capabilities = ["INPUT_BINDING", "OUTPUT_BINDING"];
export const metadataSchema = {
  ...mqttFields,
  topic: { kind: "string", required: true, description: "Topic to read and to write to" },
  consumerID: {
    kind: "string",
    required: true,
    description: "Client ids are this with -consumer and -producer; one per instance",
  },
  qos: { kind: "integer", min: 0, max: 2, description: "Accepted; messages go and come with 1" },
  backOffMaxRetries: {
    kind: "integer",
    default: "0",
    min: 0,
    max: 1_000,
    description: "Further tries of an event that the app refused, 5 s apart",
  },
} as const satisfies MetadataSchema;

const retryWaitMs = 5_000;
const publishTries = 4;
const publishWaitMs = 200;
/** After so long no further try begins, ms: the broker is away, and one try takes up to 20 s. */
const publishTimeMs = 5_000;

/** Rejects when the broker cannot be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<Binding> {
  const { metadata, clock } = context;
  const producer = await connectMqtt(metadata, `${metadata.consumerID}-producer`, context);
  let consumer: Promise<Mqtt> | undefined;
  return {
    operations: ["create"],
    async invoke({ data, metadata: request }, signal) {
      const topic = request["topic"] || metadata.topic;
      const startMs = clock.monotonicMs();
      for (let tries = 1; ; tries++) {
        try {
          await producer.publish(topic, data, { qos: 1, retain: metadata.retain });
          return undefined;
        } catch (error) {
          if (tries === publishTries || clock.monotonicMs() - startMs >= publishTimeMs) throw error;
          await clock.sleep(publishWaitMs, signal);
        }
      }
    },
    async read(handler) {
      consumer ??= connectMqtt(metadata, `${metadata.consumerID}-consumer`, context);
      const mqtt = await consumer.catch((error: unknown) => {
        consumer = undefined;
        throw error;
      });
      return mqtt.subscribe(metadata.topic, { qos: 1, keep: true }, async ({ topic, data }, signal) => {
        for (let tries = 0; ; tries++) {
          try {
            await handler({ data, metadata: { topic } }, signal);
            return;
          } catch (error) {
            if (tries >= metadata.backOffMaxRetries) throw error;
            await clock.sleep(retryWaitMs, signal);
          }
        }
      });
    },
    awaySinceMs: () => producer.awaySinceMs(),
    async close() {
      await Promise.all([producer.close(), consumer?.then((mqtt) => mqtt.close())]);
    },
  };
}
