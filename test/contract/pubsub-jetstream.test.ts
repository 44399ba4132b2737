/** pubsub.jetstream under the contract suite, and what it alone does: consumers of others, ids, lost consumers. */
import { createHash, randomUUID } from "node:crypto";
import { jetstreamManager } from "@nats-io/jetstream";
import { describe, expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../mesh/index.ts";
import type { BrokerMessage, MessageHandler, PubSub, Subscription } from "../../src/blocks/pubsub/port.ts";
import type { ComponentContext } from "../../src/components/component.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import * as jetstream from "../../src/components/pubsub/jetstream.ts";
import { eventually } from "../kit/eventually.ts";
import { type Nats, startNats } from "../kit/nats.ts";
import { durable, pubsubContract } from "./pubsub.ts";
import { silentLog } from "./silent-log.ts";

type Properties = Readonly<Record<string, string>>;
type Manager = Awaited<ReturnType<typeof jetstreamManager>>;

function openComponent(nats: Nats, properties: Properties): Promise<PubSub> {
  const given = { natsURL: nats.url, ...properties };
  const { values } = readMetadata(jetstream.metadataSchema, "pubsub", given);
  const who = { name: "pubsub", type: jetstream.type, version: "v1", appId: "app", namespace: "default" };
  const rest = { env: {}, mesh: undefined as never, clock: systemClock, log: silentLog };
  const context: ComponentContext<typeof jetstream.metadataSchema> = {
    ...who,
    ...rest,
    signal: new AbortController().signal,
    metadata: values,
    properties: given,
  };
  return jetstream.open(context);
}

/** All topics of the suite stand under it, for one stream to have them. */
const prefix = "event.";

/** One component per group and topic, since a durable consumer serves one topic. */
function openGroup(nats: Nats, group: string): PubSub {
  const opened: Promise<PubSub>[] = [];
  const one = (properties: Properties): Promise<PubSub> => {
    opened.push(openComponent(nats, properties));
    return opened.at(-1)!;
  };
  const publisher = one({});
  return {
    publish: async (message, signal) =>
      (await publisher).publish({ ...message, topic: `${prefix}${message.topic}` }, signal),
    async subscribe(request, handler) {
      const durableName = createHash("sha256").update(`${group}\n${request.topic}`).digest("hex");
      const queue = { durableName, queueGroupName: durableName, streamName: "EVENTS" };
      const port = await one({ ...queue, concurrencyMode: "parallel", maxAckPending: "8", ackWait: "5s" });
      return port.subscribe({ ...request, topic: `${prefix}${request.topic}` }, (message, signal) =>
        handler({ ...message, topic: message.topic.slice(prefix.length) }, signal),
      );
    },
    close: async () => void (await Promise.all(opened.map(async (port) => (await port).close()))),
  };
}

pubsubContract(
  "pubsub.jetstream",
  {
    ...durable,
    metadata: "nothing",
    concurrency: 8,
    // By the JSON id, which the suite keeps: see below.
    dropsRepeated: false,
    ackWaitMs: 5_000,
    takesTopic: (topic) => /^[^\s.*>]+(\.[^\s.*>]+)*$/.test(topic),
    wildcard: (prefix) => ({ pattern: `${prefix}.>`, fits: `${prefix}.a.b`, other: `${prefix}x.a` }),
  },
  async () => {
    const nats = await startNats();
    const manager = await jetstreamManager(await nats.connect());
    await manager.streams.add({ name: "EVENTS", subjects: [`${prefix}>`] });
    return { open: async (group) => openGroup(nats, group), close: async () => nats[Symbol.asyncDispose]() };
  },
);

describe("pubsub.jetstream", () => {
  it("publishes under the JSON id, which JetStream stores once", async () => {
    const { manager, open } = await broker();
    const port = await open({});
    for (const data of ['{"id":"a","n":1}', '{"id":"a","n":2}', '{"id":7}', '{"id":7}', "no JSON", "no JSON"])
      await publish(port, "shop.orders", data);
    expect((await manager.streams.info("SHOP")).state.messages).toBe(5);
  });

  it("stores a dead letter beside the event of that id", async () => {
    const { manager, open } = await broker();
    const port = await open({});
    await publish(port, "shop.orders", '{"id":"a"}');
    const of: BrokerMessage = {
      topic: "shop.orders",
      data: Buffer.from('{"id":"a"}'),
      metadata: {},
      contentType: undefined,
    };
    const copy = { ...of, topic: "shop.dead", id: undefined, deadLetter: { of, reason: "no" } };
    await port.publish(copy, new AbortController().signal);
    expect((await manager.streams.info("SHOP")).state.messages).toBe(2);
  });

  it("creates no stream: publishing fails in Dapr's words, subscribing names the subject", async () => {
    const { open } = await broker();
    const port = await open({});
    await expect(publish(port, "other.orders", "{}")).rejects.toThrow("nats: no response from stream");
    await expect(subscribe(port, "other.orders")).rejects.toThrow("no stream matches subject other.orders");
    const named = await open({ streamName: "NONE" });
    await expect(subscribe(named, "shop.orders")).rejects.toThrow("nats: stream not found");
  });

  it("takes over a push consumer that Dapr made, with what it has not handled, and its queue group", async () => {
    const { manager, open } = await broker();
    const port = await open({});
    await publish(port, "shop.orders", '{"id":"handled"}');
    await publish(port, "shop.orders", '{"id":"open"}');
    const theirs = {
      durable_name: "dapr",
      deliver_group: "pricing",
      deliver_subject: "_INBOX.made.by.dapr",
      filter_subject: "shop.orders",
      ack_policy: "explicit" as const,
      ack_wait: 500e6,
    };
    await manager.consumers.add("SHOP", theirs);
    await handleOne(theirs.deliver_subject);
    const mine = await open({ durableName: "dapr", queueGroupName: "pricing", ackWait: "10s" });
    const { got } = await subscribe(mine, "shop.orders");
    await publish(port, "shop.orders", '{"id":"new"}');
    await eventually(() => expect(texts(got).sort()).toEqual(['{"id":"new"}', '{"id":"open"}']));
    const { config } = await manager.consumers.info("SHOP", "dapr");
    expect(config.deliver_subject).toBe("_INBOX.made.by.dapr");
    expect(config.ack_wait).toBe(10e9);

    async function handleOne(subject: string): Promise<void> {
      const client = await server().connect();
      const subscription = client.subscribe(subject, { queue: "pricing", max: 1 });
      for await (const message of subscription) message.respond("+ACK");
      await client.flush();
      await client.close();
    }
  });

  it("pulls from a durable consumer that is made for that", async () => {
    const { manager, open } = await broker();
    await manager.consumers.add("SHOP", {
      durable_name: "pulled",
      filter_subject: "shop.orders",
      ack_policy: "explicit" as const,
    });
    const port = await open({ durableName: "pulled" });
    const { got } = await subscribe(port, "shop.orders");
    for (const n of [1, 2, 3]) await publish(port, "shop.orders", `{"id":"${n}"}`);
    await eventually(() => expect(got.length).toBe(3));
  });

  it("refuses a consumer of another topic, another group, or in use", async () => {
    const { open } = await broker();
    const port = await open({ durableName: "one", queueGroupName: "g" });
    await subscribe(port, "shop.orders");
    await expect(subscribe(port, "shop.bills")).rejects.toThrow("reads shop.orders");
    const others = await open({ durableName: "one", queueGroupName: "h" });
    await expect(subscribe(others, "shop.orders")).rejects.toThrow("belongs to queue group g, not to h");
    const alone = await open({ durableName: "alone" });
    await subscribe(alone, "shop.bills");
    const second = await open({ durableName: "alone" });
    await expect(subscribe(second, "shop.bills")).rejects.toThrow("pushes to another client");
  });

  it("begins where deliverPolicy says, one handler at a time", async () => {
    const { open } = await broker();
    const port = await open({});
    for (const n of [1, 2, 3]) await publish(port, "shop.orders", `{"id":"${n}"}`);
    let running = 0;
    const singly: MessageHandler = async () => {
      expect(++running).toBe(1);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
    };
    const from = await open({ deliverPolicy: "sequence", startSequence: "2" });
    const { got } = await subscribe(from, "shop.orders", singly);
    const last = await subscribe(await open({ deliverPolicy: "last" }), "shop.orders");
    const fresh = await subscribe(await open({ deliverPolicy: "new" }), "shop.orders");
    await publish(port, "shop.orders", '{"id":"4"}');
    await eventually(() => expect(texts(got)).toEqual(['{"id":"2"}', '{"id":"3"}', '{"id":"4"}']));
    await eventually(() => expect(texts(last.got)).toEqual(['{"id":"3"}', '{"id":"4"}']));
    await eventually(() => expect(texts(fresh.got)).toEqual(['{"id":"4"}']));
    expect(got[0]!.metadata).toEqual({ Topic: "shop.orders" });
    const sequence = { deliverPolicy: "sequence" };
    await expect(open(sequence)).rejects.toThrow('deliverPolicy "sequence" go together');
    const first = await subscribe(await open({ startSequence: "3", startTime: "4102444800" }), "shop.orders");
    await eventually(() => expect(texts(first.got)).toHaveLength(4));
  });

  it("keeps an event out of anybody's hands while its handler runs longer than ackWait", async () => {
    const { manager, open } = await broker();
    const port = await open({ durableName: "slow", ackWait: "4500ms" });
    const { promise: gate, resolve } = Promise.withResolvers<void>();
    const { got } = await subscribe(port, "shop.orders", () => gate);
    await publish(port, "shop.orders", '{"id":"slow"}');
    // Others come again and again meanwhile: far more time than the deadline.
    const other = await open({ durableName: "other", ackWait: "2s" });
    const { got: noise } = await subscribe(other, "shop.bills", async () => {
      if (noise.length < 6) throw new Error("not yet");
    });
    await publish(port, "shop.bills", '{"id":"noise"}');
    await eventually(() => expect(noise.length).toBe(6), { timeoutMs: 30_000 });
    expect(texts(got)).toEqual(['{"id":"slow"}']);
    expect((await manager.consumers.info("SHOP", "slow")).num_redelivered).toBe(0);
    resolve();
  });

  it("ends within its grace while the server is away", async () => {
    const { open } = await broker();
    const port = await open({ durableName: "ending" });
    const { subscription } = await subscribe(port, "shop.orders");
    await server().kill();
    const startMs = performance.now();
    await subscription.stop(60_000);
    expect(performance.now() - startMs).toBeLessThan(20_000);
    await server().restart();
  });

  it.each([
    ["a durable consumer", { durableName: "lost" }],
    ["a consumer of its own", {}],
  ])("makes %s again where it stood when it is lost", async (_, properties) => {
    const { manager, open } = await broker();
    const port = await open({ ...properties, ackWait: "100ms", concurrencyMode: "parallel" });
    const fails = new Set(['{"id":"2"}']);
    const { got } = await subscribe(port, "shop.orders", async ({ data }) => {
      if (fails.has(Buffer.from(data).toString())) throw new Error("not now");
    });
    for (const n of [1, 2, 3]) await publish(port, "shop.orders", `{"id":"${n}"}`);
    await eventually(() => expect(new Set(texts(got)).size).toBe(3));
    const consumers = await manager.consumers.list("SHOP").next();
    // The server learns later than the handlers that the first event is done.
    const floors = async (): Promise<number[]> =>
      Promise.all(
        consumers.map(async ({ name }) => (await manager.consumers.info("SHOP", name)).ack_floor.stream_seq),
      );
    await eventually(async () => expect(await floors()).toEqual([1]));
    for (const { name } of consumers) await manager.consumers.delete("SHOP", name);
    fails.clear();
    const before = got.length;
    await server().restart();
    await publish(port, "shop.orders", '{"id":"4"}');
    await eventually(
      () => expect(texts(got.slice(before))).toEqual(expect.arrayContaining(['{"id":"2"}', '{"id":"4"}'])),
      { timeoutMs: 30_000 },
    );
    expect(texts(got.slice(before))).not.toContain('{"id":"1"}');
  });
});

let started: Nats | undefined;
const server = (): Nats => started!;

/** A server with the stream SHOP of the subjects `shop.>`. */
async function broker(): Promise<{ manager: Manager; open: (properties: Properties) => Promise<PubSub> }> {
  const nats = await startNats();
  started = nats;
  const ports: PubSub[] = [];
  onTestFinished(async () => {
    await Promise.all(ports.map((port) => port.close()));
    await nats[Symbol.asyncDispose]();
  });
  const manager = await jetstreamManager(await nats.connect());
  await manager.streams.add({ name: "SHOP", subjects: ["shop.>"] });
  return {
    manager,
    async open(properties) {
      const port = await openComponent(nats, properties);
      ports.push(port);
      return port;
    },
  };
}

function publish(port: PubSub, topic: string, text: string): Promise<void> {
  const message = { topic, data: Buffer.from(text), metadata: {}, contentType: undefined, id: randomUUID() };
  return port.publish(message, new AbortController().signal);
}

async function subscribe(
  port: PubSub,
  topic: string,
  handler: MessageHandler = async () => {},
): Promise<{ got: BrokerMessage[]; subscription: Subscription }> {
  const got: BrokerMessage[] = [];
  const request = { topic, metadata: {}, rawPayload: false, batch: 1 };
  const subscription = await port.subscribe(request, (message, signal) => {
    got.push(message);
    return handler(message, signal);
  });
  onTestFinished(() => subscription.stop(0));
  return { got, subscription };
}

const texts = (got: readonly BrokerMessage[]): string[] =>
  got.map(({ data }) => Buffer.from(data).toString());
