/** Servers that go away and come back on command, each with the metadata of the components that use it. */
import { jetstreamManager } from "@nats-io/jetstream";
import { SMTPServer } from "smtp-server";
import { faultProxy, freePort, startApp, startNats } from "../../kit/index.ts";
import { startKafka } from "../../kit/servers/kafka.ts";
import { startMosquitto } from "../../kit/servers/mosquitto.ts";
import { startPostgres } from "../../kit/servers/postgres.ts";
import { startRabbit } from "../../kit/servers/rabbitmq.ts";
import { startRedis } from "../../kit/servers/redis.ts";

type Metadata = Readonly<Record<string, string>>;

export type Broker = AsyncDisposable & {
  /** Of the pub/sub component or the binding. */
  readonly metadata: Metadata;
  away(): Promise<void>;
  back(): Promise<void>;
};

type Restartable = AsyncDisposable & { kill(): Promise<unknown>; restart(): Promise<void> };

/** The server itself is killed and started again with its data. */
function killed(server: Restartable, metadata: Metadata): Broker {
  return {
    metadata,
    away: async () => void (await server.kill()),
    back: () => server.restart(),
    [Symbol.asyncDispose]: async () => server[Symbol.asyncDispose](),
  };
}

/** The way to the server is cut. */
async function cutOff(
  server: AsyncDisposable,
  port: number,
  metadata: (address: string, port: number) => Metadata,
): Promise<Broker> {
  const proxy = await faultProxy(port);
  return {
    metadata: metadata(`127.0.0.1:${proxy.port}`, proxy.port),
    away: async () => proxy.cut(),
    back: async () => proxy.heal(),
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

async function natsWithStream(): Promise<Awaited<ReturnType<typeof startNats>>> {
  const nats = await startNats();
  const client = await nats.connect();
  await (await jetstreamManager(client)).streams.add({ name: "EVENTS", subjects: ["orders"] });
  await client.close();
  return nats;
}

/** By component type. `hard`: servers that keep what they acknowledged are killed, not only cut off. */
export const pubsubBrokers: Readonly<Record<string, (hard: boolean) => Promise<Broker>>> = {
  async "pubsub.jetstream"(hard) {
    const nats = await natsWithStream();
    const more = { durableName: "reader", ackWait: "2s", concurrencyMode: "parallel" };
    if (hard) return killed(nats, { natsURL: nats.url, ...more });
    return cutOff(nats, nats.port, (address) => ({ natsURL: `nats://${address}`, ...more }));
  },
  async "pubsub.redis"(hard) {
    const redis = await startRedis();
    const more = { processingTimeout: "2s", redeliverInterval: "500ms" };
    if (hard) return killed(redis, { redisHost: redis.address, ...more });
    return cutOff(redis, redis.port, (redisHost) => ({ redisHost, ...more }));
  },
  async "pubsub.rabbitmq"(hard) {
    const rabbit = await startRabbit();
    const more = { deletedWhenUnused: "false", deliveryMode: "2", requeueInFailure: "true" };
    const url = (address: string): string => `amqp://guest:guest@${address}`;
    const metadata = (address: string): Metadata => ({
      connectionString: url(address),
      reconnectWaitSeconds: "1",
      ...more,
    });
    return hard ? killed(rabbit, metadata(rabbit.address)) : cutOff(rabbit, rabbit.port, metadata);
  },
  async "pubsub.mqtt3"() {
    // Mosquitto writes what it has acknowledged once a second: killing it would test that.
    const mosquitto = await startMosquitto();
    return cutOff(mosquitto, mosquitto.port, (address) => ({ url: `mqtt://${address}` }));
  },
  async "pubsub.kafka"() {
    // Brokers tell clients their own addresses, so a proxy would not be in the way.
    const kafka = await startKafka();
    return killed(kafka, {
      brokers: kafka.address,
      authType: "none",
      initialOffset: "oldest",
      sessionTimeout: "6s",
      dialTimeout: "2s",
      readTimeout: "5s",
    });
  },
};

/** Bindings that read what they write. */
export const loopBrokers: Readonly<Record<string, (hard: boolean) => Promise<Broker>>> = {
  async "bindings.nats"(hard) {
    const nats = await natsWithStream();
    const more = { subject: "orders", subscribeSubject: "orders", jetstream: "true", ackWait: "2s" };
    if (hard) return killed(nats, { natsURL: nats.url, ...more });
    return cutOff(nats, nats.port, (address) => ({ natsURL: `nats://${address}`, ...more }));
  },
  async "bindings.rabbitmq"(hard) {
    const rabbit = await startRabbit();
    const metadata = (address: string): Metadata => ({
      host: `amqp://guest:guest@${address}`,
      queueName: "orders",
      durable: "true",
      reconnectWaitInSeconds: "1",
    });
    return hard ? killed(rabbit, metadata(rabbit.address)) : cutOff(rabbit, rabbit.port, metadata);
  },
  async "bindings.mqtt3"() {
    const mosquitto = await startMosquitto();
    return cutOff(mosquitto, mosquitto.port, (address) => ({
      url: `mqtt://${address}`,
      topic: "orders",
      consumerID: "looper",
    }));
  },
  async "bindings.kafka"() {
    const kafka = await startKafka();
    const topics = { topics: "orders", publishTopic: "orders", initialOffset: "oldest" };
    const times = { sessionTimeout: "6s", dialTimeout: "2s", readTimeout: "5s" };
    return killed(kafka, { brokers: kafka.address, authType: "none", ...topics, ...times });
  },
};

export type OutputBroker = {
  readonly start: () => Promise<Broker>;
  /** A call that works while the server is there. */
  readonly operation: string;
  readonly data: unknown;
  readonly metadata: Metadata;
  /** Opening the component connects. */
  readonly connects: boolean;
};

/** Bindings that only write. */
export const outputBrokers: Readonly<Record<string, OutputBroker>> = {
  "bindings.redis": {
    operation: "create",
    data: "x",
    metadata: { key: "order" },
    connects: true,
    async start() {
      const redis = await startRedis();
      return cutOff(redis, redis.port, (redisHost) => ({ redisHost }));
    },
  },
  "bindings.postgresql": {
    operation: "query",
    data: null,
    metadata: { sql: "SELECT 1" },
    connects: true,
    async start() {
      const postgres = await startPostgres();
      return cutOff(postgres, postgres.port, (_, port) => ({
        host: "127.0.0.1",
        port: String(port),
        user: "postgres",
        database: "postgres",
      }));
    },
  },
  "bindings.http": {
    operation: "get",
    data: null,
    metadata: {},
    connects: false,
    async start() {
      const server = await startApp({ routes: { "GET /": () => ({ body: "here" }) } });
      return cutOff(server, server.port, (address) => ({ url: `http://${address}/` }));
    },
  },
  "bindings.smtp": {
    operation: "create",
    data: "hello",
    metadata: {},
    connects: false,
    async start() {
      const port = await freePort();
      const server = new SMTPServer({
        authOptional: true,
        onData: (stream, _, done) => stream.on("end", done).resume(),
      });
      await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", () => resolve()));
      const closing = {
        [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
      };
      const mail = {
        emailFrom: "a@example.org",
        emailTo: "b@example.org",
        subject: "News",
        skipTLSVerify: "true",
      };
      return cutOff(closing, port, (_, proxied) => ({ host: "127.0.0.1", port: String(proxied), ...mail }));
    },
  },
};
