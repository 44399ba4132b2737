/** The pub/sub components of other brokers under the contract suite, on real servers. */
import { systemClock } from "../../mesh/index.ts";
import type { PubSub } from "../../src/blocks/pubsub/port.ts";
import type { ComponentContext, MetadataSchema } from "../../src/components/component.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import * as kafka from "../../src/components/pubsub/kafka.ts";
import * as mqtt3 from "../../src/components/pubsub/mqtt3.ts";
import * as rabbitmq from "../../src/components/pubsub/rabbitmq.ts";
import * as redis from "../../src/components/pubsub/redis.ts";
import { startKafka } from "../kit/servers/kafka.ts";
import { startMosquitto } from "../kit/servers/mosquitto.ts";
import { startRabbit } from "../kit/servers/rabbitmq.ts";
import { startRedis } from "../kit/servers/redis.ts";
import { durable, type PubSubFixture, pubsubContract } from "./pubsub.ts";
import { silentLog } from "./silent-log.ts";

type File<S extends MetadataSchema> = {
  readonly type: string;
  readonly metadataSchema: S;
  readonly open: (context: ComponentContext<S>) => Promise<PubSub>;
};

/** A component on a server; the group is its consumerID. */
function fixture<S extends MetadataSchema>(
  file: File<S>,
  server: AsyncDisposable,
  properties: Readonly<Record<string, string>>,
): PubSubFixture {
  return {
    open(group) {
      const given = { ...properties, consumerID: group };
      const { values } = readMetadata(file.metadataSchema, "pubsub", given);
      const who = { name: "pubsub", type: file.type, version: "v1", appId: "app", namespace: "default" };
      const signal = new AbortController().signal;
      const rest = { env: {}, mesh: undefined as never, clock: systemClock, log: silentLog, signal };
      return file.open({ ...who, ...rest, metadata: values, properties: given });
    },
    close: async () => server[Symbol.asyncDispose](),
  };
}

const onRedis = { ...durable, concurrency: 8, dropsRepeated: false, ackWaitMs: 4_000 };

pubsubContract("pubsub.redis", onRedis, async () => {
  const server = await startRedis();
  const quick = { processingTimeout: "4s", redeliverInterval: "100ms", concurrency: "8" };
  return fixture(redis, server, { redisHost: server.address, ...quick });
});

pubsubContract(
  "pubsub.rabbitmq",
  {
    ...durable,
    metadata: "nothing",
    keepsForNewGroups: false,
    concurrency: 8,
    dropsRepeated: false,
    takesTopic: (topic) => !topic.includes("\n"),
  },
  async () => {
    const server = await startRabbit();
    return fixture(rabbitmq, server, {
      connectionString: `amqp://guest:guest@${server.address}`,
      deletedWhenUnused: "false",
      requeueInFailure: "true",
      prefetchCount: "8",
    });
  },
);

pubsubContract(
  "pubsub.kafka",
  {
    ...durable,
    metadata: "among others",
    // Partitions run side by side, each in order, and a failed event is tried again in its place.
    concurrency: undefined,
    passesFailures: false,
    dropsRepeated: false,
    ackWaitMs: 6_000,
    takesTopic: (topic) => /^[\w.-]{1,249}$/.test(topic),
  },
  async () => {
    const server = await startKafka();
    return fixture(kafka, server, {
      brokers: server.address,
      authType: "none",
      initialOffset: "oldest",
      backOffDuration: "50ms",
      heartbeatInterval: "200ms",
      sessionTimeout: "6s",
      clientConnectionTopicMetadataRefreshInterval: "1s",
    });
  },
);

pubsubContract(
  "pubsub.mqtt3",
  {
    ...durable,
    metadata: "nothing",
    // A second client of the same id takes the place of the first, and only a new connection gets events again.
    shares: false,
    handsOver: false,
    redelivers: false,
    keepsForNewGroups: false,
    concurrency: undefined,
    dropsRepeated: false,
    takesTopic: (topic) => !/[+#\0\t\r\n]/.test(topic),
    wildcard: (prefix) => ({ pattern: `${prefix}/#`, fits: `${prefix}/a/b c`, other: `${prefix}x/a` }),
  },
  async () => {
    const server = await startMosquitto();
    // Sessions of earlier tests would bring their messages along.
    return fixture(mqtt3, server, { url: `mqtt://${server.address}`, cleanSession: "true" });
  },
);
