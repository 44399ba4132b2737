/**
 * Publish/subscribe through an MQTT 3.1.1 broker. The consumerID is the MQTT client id, so every instance of an app
 * needs its own (`consumerID: "{uuid}"`) or a shared subscription (`$share/group/topic`).
 */
import { consumerGroup } from "../component.ts";
import { isTruthy } from "../../lib/truthy.ts";
import type { MessageHandler, PubSub, SubscribeRequest, Subscription } from "../../blocks/pubsub/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { connectMqtt, type Mqtt, mqttFields, type Qos } from "../connect/mqtt.ts";

export const type = "pubsub.mqtt3";
export const aliases = ["pubsub.mqtt"];
export const versions = ["v1"];
export const capabilities = ["SUBSCRIBE_WILDCARDS"];
export const metadataSchema = {
  ...mqttFields,
  qos: {
    kind: "integer",
    default: "1",
    min: 0,
    max: 2,
    description: "Quality of service of publishing: 0, 1 or 2; 2 is read as 1",
  },
} as const satisfies MetadataSchema;

/** Rejects when the broker cannot be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<PubSub> {
  const { metadata } = context;
  const mqtt = await connectMqtt(metadata, consumerGroup(context), context);
  return new MqttPubSub(mqtt, metadata.qos as Qos, metadata.retain);
}

class MqttPubSub implements PubSub {
  readonly #mqtt: Mqtt;
  readonly #qos: Qos;
  readonly #retain: boolean;

  constructor(mqtt: Mqtt, qos: Qos, retain: boolean) {
    this.#mqtt = mqtt;
    this.#qos = qos;
    this.#retain = retain;
  }

  publish({ topic, data, metadata }: Parameters<PubSub["publish"]>[0]): Promise<void> {
    const wanted = metadata["retain"];
    const retain = wanted === undefined ? this.#retain : isTruthy(wanted);
    return this.#mqtt.publish(topic, data, { qos: this.#qos, retain });
  }

  subscribe({ topic, metadata }: SubscribeRequest, handler: MessageHandler): Promise<Subscription> {
    const leave = isTruthy(metadata["unsubscribeOnClose"]);
    // With 2 the broker would forget a message before its handler is done.
    const qos = this.#qos === 0 ? 0 : 1;
    return this.#mqtt.subscribe(topic, { qos, keep: !leave }, (message, signal) =>
      handler(
        {
          topic: message.topic,
          data: message.data,
          metadata: { retained: String(message.retained) },
          contentType: undefined,
        },
        signal,
      ),
    );
  }

  awaySinceMs(): number | undefined {
    return this.#mqtt.awaySinceMs();
  }

  close(): Promise<void> {
    return this.#mqtt.close();
  }
}
