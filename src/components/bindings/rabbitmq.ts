/** Messages of a RabbitMQ queue for the app, and the app's messages to it. */
import type { ConfirmChannel, ConsumeMessage } from "amqplib";
import type { Binding } from "../../blocks/bindings/port.ts";
import { demandTtlMs } from "../../lib/time-to-live.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import {
  connectRabbit,
  consume,
  messageProperties,
  publishConfirmed,
  rabbitCertificates,
} from "../connect/rabbitmq.ts";

export const type = "bindings.rabbitmq";
export const versions = ["v1"];
export const capabilities = ["INPUT_BINDING", "OUTPUT_BINDING"];
export const metadataSchema = {
  host: { kind: "string", required: true, secret: true, description: "amqp://user:password@host:5672" },
  queueName: {
    kind: "string",
    required: true,
    description: "Queue to read and to write to; created when absent",
  },
  durable: { kind: "boolean", default: "false", description: "The queue survives a restart of the broker" },
  deleteWhenUnused: {
    kind: "boolean",
    default: "false",
    description: "The queue goes with its last consumer",
  },
  exclusive: { kind: "boolean", default: "false", description: "Only this connection may use the queue" },
  prefetchCount: {
    kind: "integer",
    default: "0",
    min: 0,
    max: 65_535,
    description: "Messages in hand; 0: 1,000",
  },
  maxPriority: { kind: "integer", min: 1, max: 255, description: "Makes it a priority queue" },
  ttlInSeconds: {
    kind: "duration",
    min: 0,
    aliases: ["ttl"],
    description: "Time to live of messages in the queue",
  },
  reconnectWaitInSeconds: { kind: "duration", default: "5", description: "Wait before a reconnect" },
  externalSasl: { kind: "boolean", default: "false", description: "The client certificate says who this is" },
  ...rabbitCertificates,
} as const satisfies MetadataSchema;

type Settings = ComponentContext<typeof metadataSchema>["metadata"];

/** Rejects when the broker cannot be reached or the queue is there with other settings. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<Binding> {
  const { metadata, clock, appId, name } = context;
  const options = {
    url: metadata.host,
    name: `${appId}/${name}`,
    reconnectMs: metadata.reconnectWaitInSeconds,
    external: metadata.externalSasl,
    caCert: metadata.caCert,
    clientCert: metadata.clientCert,
    clientKey: metadata.clientKey,
  };
  const rabbit = await connectRabbit(options, context);
  const declare = (channel: ConfirmChannel): Promise<string> => declareQueue(channel, metadata);
  const publisher = await rabbit
    .channel(async (channel) => void (await declare(channel)))
    .catch(async (error) => {
      await rabbit.close();
      throw error;
    });
  return {
    operations: ["create"],
    async invoke({ data, metadata: request }, signal) {
      // The properties would leave out a time that is none.
      demandTtlMs(request);
      const properties = {
        headers: { ...request },
        ...messageProperties(request, undefined),
        persistent: true,
      };
      await publishConfirmed(
        publisher,
        { exchange: "", key: metadata.queueName },
        data,
        properties,
        clock,
        signal,
      );
      return undefined;
    },
    read(handler) {
      const limits = { single: false, autoAck: false, requeue: true, prefetch: metadata.prefetchCount };
      const handle = async (message: ConsumeMessage, signal: AbortSignal): Promise<void> =>
        void (await handler({ data: message.content, metadata: headersOf(message) }, signal));
      return consume(rabbit, declare, limits, handle, context);
    },
    awaySinceMs: () => rabbit.awaySinceMs(),
    async close() {
      await publisher.close();
      await rabbit.close();
    },
  };
}

async function declareQueue(channel: ConfirmChannel, settings: Settings): Promise<string> {
  const { queueName, durable, deleteWhenUnused, exclusive, ttlInSeconds, maxPriority } = settings;
  const { queue } = await channel.assertQueue(queueName, {
    durable,
    autoDelete: deleteWhenUnused,
    exclusive,
    ...(ttlInSeconds === undefined ? {} : { messageTtl: ttlInSeconds }),
    ...(maxPriority === undefined ? {} : { maxPriority }),
  });
  return queue;
}

/** Headers that are text, under names that HTTP can carry: escaped as in a query, by Go's rules. */
function headersOf({ properties }: ConsumeMessage): Record<string, string> {
  const metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(properties.headers ?? {})) {
    if (typeof value === "string") metadata[queryEscaped(name)] = value;
  }
  return metadata;
}

function queryEscaped(text: string): string {
  return encodeURIComponent(text.toWellFormed())
    .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll("%20", "+");
}
