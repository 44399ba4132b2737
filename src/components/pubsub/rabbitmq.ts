/**
 * Publish/subscribe through RabbitMQ: a topic is an exchange, each consumer group has a queue of its own on it. Every
 * publish waits for the broker's confirmation, also where Dapr's component would not.
 */
import { consumerGroup } from "../component.ts";
import { isTruthy } from "../../lib/truthy.ts";
import type { ConfirmChannel, ConsumeMessage } from "amqplib";
import type { MessageHandler, PubSub, SubscribeRequest, Subscription } from "../../blocks/pubsub/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import {
  connectRabbit,
  consume,
  type LastingChannel,
  messageProperties,
  publishConfirmed,
  type Rabbit,
  rabbitCertificates,
} from "../connect/rabbitmq.ts";

export const type = "pubsub.rabbitmq";
export const versions = ["v1"];
export const capabilities = ["MESSAGE_TTL"];
export const metadataSchema = {
  connectionString: {
    kind: "string",
    secret: true,
    aliases: ["host"],
    description: "amqp://user:password@host:5672; or give hostname, username, password",
  },
  protocol: {
    kind: "string",
    default: "amqp",
    oneOf: ["amqp", "amqps"],
    description: "Without connectionString",
  },
  hostname: {
    kind: "string",
    default: "localhost",
    description: "Without connectionString; host or host:port",
  },
  username: { kind: "string", description: "Without connectionString" },
  password: { kind: "string", secret: true, description: "Without connectionString" },
  durable: { kind: "boolean", default: "true", description: "Queues survive a restart of the broker" },
  deletedWhenUnused: { kind: "boolean", default: "true", description: "A queue goes with its last consumer" },
  autoAck: { kind: "boolean", default: "false", description: "Messages count as handled when they are sent" },
  deliveryMode: {
    kind: "integer",
    default: "0",
    min: 0,
    max: 2,
    description: "2: messages are kept on disk",
  },
  requeueInFailure: { kind: "boolean", default: "false", description: "What failed goes back to the queue" },
  prefetchCount: {
    kind: "integer",
    default: "0",
    min: 0,
    max: 65_535,
    description: "Messages in hand; 0: 1,000",
  },
  reconnectWaitSeconds: { kind: "duration", default: "3", description: "Wait before a reconnect" },
  concurrencyMode: {
    kind: "string",
    default: "parallel",
    oneOf: ["parallel", "single"],
    description: "Handlers of one subscription: at once, or one after the other",
  },
  publisherConfirm: {
    kind: "boolean",
    default: "false",
    description: "Accepted; publishes are always confirmed",
  },
  enableDeadLetter: {
    kind: "boolean",
    default: "false",
    description: "What failed goes to queue dlq-<queue> through exchange dlx-<queue>",
  },
  maxLen: { kind: "integer", min: 0, description: "Messages that a queue keeps; 0: all" },
  maxLenBytes: { kind: "integer", min: 0, description: "Bytes that a queue keeps; 0: all" },
  exchangeKind: {
    kind: "string",
    default: "fanout",
    oneOf: ["fanout", "topic", "direct", "headers"],
    description: "Kind of the exchanges",
  },
  saslExternal: { kind: "boolean", default: "false", description: "The client certificate says who this is" },
  ttlInSeconds: { kind: "duration", min: 0, description: "Time to live of messages that have none" },
  clientName: { kind: "string", description: "Name of the connection at the broker" },
  heartBeat: { kind: "duration", default: "10s", description: "Time between heartbeats" },
  publishMessagePropertiesToMetadata: {
    kind: "boolean",
    default: "false",
    description: "Message properties come as metadata",
  },
  ...rabbitCertificates,
} as const satisfies MetadataSchema;

type Settings = ComponentContext<typeof metadataSchema>["metadata"];

/** Exchanges known to exist, before they are declared again. */
const maxDeclared = 10_000;

/** Rejects when the broker cannot be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<PubSub> {
  const { metadata, appId, name } = context;
  const options = {
    url: metadata.connectionString ?? urlOf(metadata),
    name: metadata.clientName ?? `${appId}/${name}`,
    reconnectMs: metadata.reconnectWaitSeconds,
    heartbeatMs: metadata.heartBeat,
    external: metadata.saslExternal,
    caCert: metadata.caCert,
    clientCert: metadata.clientCert,
    clientKey: metadata.clientKey,
  };
  const rabbit = await connectRabbit(options, context);
  const declared = new Set<string>();
  // What a lost connection knew is not known of the next one: an exchange may be gone with the broker's disk.
  const publisher = await rabbit.channel(() => Promise.resolve(declared.clear()));
  return new RabbitPubSub(rabbit, publisher, declared, context, consumerGroup(context));
}

function urlOf({ protocol, hostname, username, password }: Settings): string {
  const user =
    username === undefined ? "" : `${encodeURIComponent(username)}:${encodeURIComponent(password ?? "")}@`;
  return `${protocol}://${user}${hostname}`;
}

class RabbitPubSub implements PubSub {
  readonly #rabbit: Rabbit;
  readonly #publisher: LastingChannel;
  readonly #declared: Set<string>;
  readonly #context: ComponentContext<typeof metadataSchema>;
  readonly #group: string;

  constructor(
    rabbit: Rabbit,
    publisher: LastingChannel,
    declared: Set<string>,
    context: ComponentContext<typeof metadataSchema>,
    group: string,
  ) {
    this.#rabbit = rabbit;
    this.#publisher = publisher;
    this.#declared = declared;
    this.#context = context;
    this.#group = group;
  }

  async publish(message: Parameters<PubSub["publish"]>[0], signal: AbortSignal): Promise<void> {
    const { clock, metadata: settings } = this.#context;
    const { topic, data, metadata } = message;
    const properties = {
      contentType: "text/plain",
      ...messageProperties(metadata, settings.ttlInSeconds),
      ...(settings.deliveryMode > 0 && { deliveryMode: settings.deliveryMode }),
    };
    await this.#declare(topic, signal);
    const target = { exchange: topic, key: metadata["routingKey"] ?? "" };
    await publishConfirmed(this.#publisher, target, data, properties, clock, signal);
  }

  async subscribe(request: SubscribeRequest, handler: MessageHandler): Promise<Subscription> {
    const { topic, metadata } = request;
    const settings = this.#context.metadata;
    const toMetadata = settings.publishMessagePropertiesToMetadata ? propertiesOf : () => ({});
    const options = {
      single: settings.concurrencyMode === "single" || isTruthy(metadata["singleActiveConsumer"]),
      autoAck: settings.autoAck,
      requeue: settings.requeueInFailure,
      prefetch: settings.prefetchCount,
    };
    const declare = (channel: ConfirmChannel): Promise<string> => this.#declareQueue(channel, request);
    const handle = (message: ConsumeMessage, signal: AbortSignal): Promise<void> =>
      handler(
        { topic, data: message.content, metadata: toMetadata(message), contentType: undefined },
        signal,
      );
    return consume(this.#rabbit, declare, options, handle, this.#context);
  }

  awaySinceMs(): number | undefined {
    return this.#rabbit.awaySinceMs();
  }

  async close(): Promise<void> {
    await this.#publisher.close();
    await this.#rabbit.close();
  }

  async #declare(topic: string, signal: AbortSignal): Promise<void> {
    if (this.#declared.has(topic)) return;
    const channel = await this.#publisher.get(signal);
    await channel.assertExchange(topic, this.#context.metadata.exchangeKind, {
      durable: true,
      autoDelete: false,
    });
    if (this.#declared.size >= maxDeclared) this.#declared.clear();
    this.#declared.add(topic);
  }

  /** Exchange, queue and bindings of one subscription; resolves with the queue's name. */
  async #declareQueue(
    channel: ConfirmChannel,
    { topic, metadata: subscription, group = this.#group }: SubscribeRequest,
  ): Promise<string> {
    const settings = this.#context.metadata;
    const queue = subscription["queueName"] || `${group}-${topic}`;
    await channel.assertExchange(topic, settings.exchangeKind, { durable: true, autoDelete: false });
    const lifetime = { durable: settings.durable, autoDelete: settings.deletedWhenUnused };
    const more: Record<string, unknown> = queueArguments(settings, subscription);
    if (settings.enableDeadLetter) {
      const exchange = `dlx-${queue}`;
      await channel.assertExchange(exchange, "fanout", { durable: true, autoDelete: false });
      const dead = await channel.assertQueue(`dlq-${queue}`, lifetime);
      await channel.bindQueue(dead.queue, exchange, "");
      more["x-dead-letter-exchange"] = exchange;
    }
    await channel.assertQueue(queue, { ...lifetime, arguments: more });
    for (const key of (subscription["routingKey"] ?? "").split(","))
      await channel.bindQueue(queue, topic, key.trim());
    return queue;
  }
}

function queueArguments(
  settings: Settings,
  subscription: Readonly<Record<string, string>>,
): Record<string, unknown> {
  const number = (name: string): number | undefined => {
    const text = subscription[name];
    if (text === undefined || text === "") return undefined;
    if (!/^\d{1,15}$/.test(text))
      throw new Error(`subscription metadata ${name} "${text}" is no whole number`);
    return Number(text);
  };
  const given = {
    "x-max-priority": number("maxPriority"),
    "x-max-length": (number("maxLen") ?? settings.maxLen) || undefined,
    "x-max-length-bytes": (number("maxLenBytes") ?? settings.maxLenBytes) || undefined,
    "x-queue-type": subscription["queueType"] || undefined,
    "x-single-active-consumer": isTruthy(subscription["singleActiveConsumer"]) || undefined,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

function propertiesOf({ properties }: ConsumeMessage): Record<string, string> {
  const given = {
    "metadata.messageID": properties.messageId as unknown,
    "metadata.correlationID": properties.correlationId as unknown,
    "metadata.type": properties.type as unknown,
    "metadata.contentType": properties.contentType as unknown,
  };
  return Object.fromEntries(
    Object.entries(given).flatMap(([name, value]) =>
      typeof value === "string" && value !== "" ? [[name, value]] : [],
    ),
  );
}
