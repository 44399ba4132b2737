// What pubsub.rabbitmq leaves at the broker, which other programs and daprd share: exchanges, queues, properties.
import { type ConfirmChannel, connect, type GetMessage } from "amqplib";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type App,
  eventually,
  type Nats,
  type Sidecar,
  startApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { startRabbit } from "../../kit/servers/rabbitmq.ts";
import type { Server } from "../../kit/servers/server.ts";
import { pubsubComponent } from "./resources.ts";

const stack = new AsyncDisposableStack();
let nats: Nats;
let rabbit: Server;
let channel: ConfirmChannel;

beforeAll(async () => {
  nats = stack.use(await startNats());
  rabbit = stack.use(await startRabbit());
  const connection = await connect(`amqp://guest:guest@${rabbit.address}`);
  stack.defer(() => connection.close());
  channel = await connection.createConfirmChannel();
}, 180_000);
afterAll(() => stack.disposeAsync());

function start(app: App | undefined, metadata: Readonly<Record<string, string>>): Promise<Sidecar> {
  const login = { hostname: rabbit.address, username: "guest", password: "guest" };
  const component = pubsubComponent("pubsub.rabbitmq", { ...login, ...metadata });
  const port = app === undefined ? {} : { appPort: app.port };
  return startSidecar({ appId: "shop", nats, resources: { "p.yaml": component }, ...port });
}

async function publish(
  sidecar: Sidecar,
  topic: string,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const query = new URLSearchParams(
    Object.entries({ rawPayload: "true", ...metadata }).map(([name, value]): [string, string] => [
      `metadata.${name}`,
      value,
    ]),
  );
  const answer = await sidecar.post(`/v1.0/publish/pubsub/${topic}?${query.toString()}`, '{"n":1}');
  expect([answer.status, answer.text]).toEqual([204, ""]);
}

/** The next message of a queue. */
function next(queue: string): Promise<GetMessage> {
  return eventually(async () => {
    const message = await channel.get(queue, { noAck: true });
    if (message === false) throw new Error(`queue ${queue} is empty`);
    return message;
  });
}

test("a publish goes to the exchange of its topic with the properties that its metadata name", async () => {
  await using sidecar = await start(undefined, {
    exchangeKind: "topic",
    deliveryMode: "2",
    ttlInSeconds: "1h",
  });
  await publish(sidecar, "tea", {});
  // The exchange is there as the sidecar declared it, else this would fail.
  await channel.assertExchange("tea", "topic", { durable: true, autoDelete: false });
  const { queue } = await channel.assertQueue("", { exclusive: true });
  await channel.bindQueue(queue, "tea", "green.*");
  await publish(sidecar, "tea", { routingKey: "black.loose" });
  await publish(sidecar, "tea", {
    routingKey: "green.loose",
    priority: "7",
    TTL: "90s",
    contentType: "application/x-tea",
    messageID: "m",
    correlationID: "c",
    type: "t",
  });
  const { content, properties, fields } = await next(queue);
  expect([content.toString(), fields.routingKey]).toEqual(['{"n":1}', "green.loose"]);
  expect(properties).toMatchObject({
    priority: 7,
    expiration: "90000",
    contentType: "application/x-tea",
    messageId: "m",
    correlationId: "c",
    type: "t",
    deliveryMode: 2,
  });
  // RabbitMQ takes ten years at most, and would close the channel.
  await publish(sidecar, "tea", { routingKey: "green.x", ttl: "2562047h" });
  expect((await next(queue)).properties).toMatchObject({ expiration: "315360000000" });
  await publish(sidecar, "tea", { routingKey: "green.x", ttlInSeconds: "soon" });
  expect((await next(queue)).properties).toMatchObject({ contentType: "text/plain", expiration: "3600000" });
});

test("queues: their names, routing keys, dead letters and limits, and properties as metadata", async () => {
  const subscription = (topic: string, metadata: Readonly<Record<string, string>>) => ({
    pubsubname: "pubsub",
    topic,
    route: `/${topic}`,
    metadata: { rawPayload: "true", ...metadata },
  });
  await using app = await startApp({
    subscriptions: [
      subscription("plain", { maxLen: "5", maxPriority: "9" }),
      subscription("keyed", { queueName: "own", routingKey: "a, b", queueType: "quorum" }),
    ],
    routes: { "/plain": () => ({ status: 500 }), "/keyed": () => ({}) },
  });
  await using sidecar = await start(app, {
    consumerID: "group",
    exchangeKind: "direct",
    enableDeadLetter: "true",
    deletedWhenUnused: "false",
    maxLen: "0",
    maxLenBytes: "1000",
    publishMessagePropertiesToMetadata: "true",
  });
  for (const topic of ["plain", "keyed"])
    await sidecar.logged(new RegExp(`app is subscribed to topic ${topic}`), 30_000);
  // A declaration with other arguments than those of the sidecar would fail.
  await channel.assertQueue("group-plain", {
    durable: true,
    autoDelete: false,
    maxPriority: 9,
    maxLength: 5,
    arguments: { "x-max-length-bytes": 1000, "x-dead-letter-exchange": "dlx-group-plain" },
  });
  await channel.checkExchange("dlx-group-plain");
  await publish(sidecar, "plain", { messageID: "m", correlationID: "c", type: "t" });
  expect((await next("dlq-group-plain")).content.toString()).toBe('{"n":1}');
  const [plain] = await app.received("/plain", 1);
  expect(plain!.headers).toMatchObject({
    "metadata.messageid": "m",
    "metadata.correlationid": "c",
    "metadata.type": "t",
    "metadata.contenttype": "text/plain",
  });
  for (const routingKey of ["a", "other", "b"])
    await publish(sidecar, "keyed", { routingKey, messageID: routingKey });
  const keyed = await app.received("/keyed", 2);
  expect(new Set(keyed.map(({ headers }) => headers["metadata.messageid"]))).toEqual(new Set(["a", "b"]));
  expect(await channel.checkQueue("own")).toMatchObject({ consumerCount: 1 });
});
