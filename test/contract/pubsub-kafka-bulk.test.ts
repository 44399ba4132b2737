/** Batches of pubsub.kafka on a real broker: many published at once, many handed over at once. */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../mesh/index.ts";
import type {
  BatchHandler,
  BatchLimits,
  PublishMessage,
  PubSub,
  Subscription,
} from "../../src/blocks/pubsub/port.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import * as kafka from "../../src/components/pubsub/kafka.ts";
import { eventually } from "../kit/eventually.ts";
import { startKafka } from "../kit/servers/kafka.ts";
import { silentLog } from "./silent-log.ts";

let server: Awaited<ReturnType<typeof startKafka>>;
const never = new AbortController().signal;

beforeAll(async () => {
  server = await startKafka();
}, 150_000);
afterAll(() => server[Symbol.asyncDispose]());

async function open(more: Readonly<Record<string, string>> = {}): Promise<PubSub> {
  const given = {
    brokers: server.address,
    authType: "none",
    initialOffset: "oldest",
    backOffDuration: "50ms",
    heartbeatInterval: "200ms",
    consumerID: "bulk",
    ...more,
  };
  const { values } = readMetadata(kafka.metadataSchema, "pubsub", given);
  const who = { name: "pubsub", type: kafka.type, version: "v1", appId: "app", namespace: "default" };
  const rest = { env: {}, mesh: undefined as never, clock: systemClock, log: silentLog, signal: never };
  const port = await kafka.open({ ...who, ...rest, metadata: values, properties: given });
  onTestFinished(() => port.close());
  return port;
}

/** One key, so that all stand in one partition. */
function message(topic: string, text: string): PublishMessage {
  const metadata = { partitionKey: "k" };
  return { topic, data: Buffer.from(text), metadata, contentType: undefined, id: undefined };
}

function publishAll(
  port: PubSub,
  topic: string,
  texts: readonly string[],
): Promise<ReadonlyMap<string, Error>> {
  const entries = texts.map((text, at) => ({
    entryId: `entry ${at}`,
    message: message(topic, text),
    contentType: "text/plain",
  }));
  return port.publishMany!({ topic, entries, metadata: {} }, never);
}

async function batches(
  port: PubSub,
  topic: string,
  limits: BatchLimits,
  handler: (texts: readonly string[]) => Promise<readonly (Error | undefined)[]>,
): Promise<{ got: string[][]; subscription: Subscription }> {
  const got: string[][] = [];
  const take: BatchHandler = (messages) => {
    const texts = messages.map(({ data }) => Buffer.from(data).toString());
    got.push(texts);
    return handler(texts);
  };
  const request = { topic, metadata: {}, rawPayload: true, batch: limits.maxMessages };
  const subscription = await port.subscribeBatches!(request, limits, take);
  onTestFinished(() => subscription.stop(0));
  return { got, subscription };
}

const handled = async (texts: readonly string[]): Promise<undefined[]> => texts.map(() => undefined);
const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, at) => String(from + at));

describe("pubsub.kafka in batches", () => {
  it("publishes many at once, and tells which it refused", async () => {
    const [port, topic] = [await open({ maxMessageBytes: "2000" }), `t-${randomUUID()}`];
    const texts = [...numbers(1, 150), "x".repeat(3_000), "y".repeat(1_900), ...numbers(151, 300)];
    const failed = await publishAll(port, topic, texts);
    expect([...failed.keys()]).toEqual(["entry 150"]);
    expect(failed.get("entry 150")!.message).toContain("maxMessageBytes 2000");
    const { got } = await batches(port, topic, { maxMessages: 100, maxAwaitMs: 2_000 }, handled);
    const wanted = texts.filter((text) => text.length < 3_000);
    await eventually(() => expect(got.flat()).toEqual(wanted), { timeoutMs: 30_000 });
    expect(Math.max(...got.map((batch) => batch.length))).toBe(100);
  });

  it("hands over full batches, what waits long enough, and again only what failed", async () => {
    const [port, topic] = [await open(), `t-${randomUUID()}`];
    await publishAll(port, topic, numbers(1, 12));
    const failures = new Set(["2", "4"]);
    const { got, subscription } = await batches(
      port,
      topic,
      { maxMessages: 5, maxAwaitMs: 3_000 },
      async (texts) => texts.map((text) => (failures.delete(text) ? new Error("not yet") : undefined)),
    );
    const wanted = [numbers(1, 5), ["2", "4"], numbers(6, 10), numbers(11, 12)];
    await eventually(() => expect(got).toEqual(wanted), { timeoutMs: 30_000 });
    await subscription.stop(5_000);
    await port.publish(message(topic, "13"), never);
    const later = await batches(port, topic, { maxMessages: 5, maxAwaitMs: 100 }, handled);
    await eventually(() => expect(later.got).toEqual([["13"]]), { timeoutMs: 30_000 });
  });

  it("keeps at its end what its last batch did, and leaves the rest to the next reader", async () => {
    const [port, topic] = [await open(), `t-${randomUUID()}`];
    await publishAll(port, topic, numbers(1, 5));
    const { promise: gate, resolve } = Promise.withResolvers<void>();
    // The third of a batch never works; the other two wait behind it.
    const { got, subscription } = await batches(
      port,
      topic,
      { maxMessages: 3, maxAwaitMs: 60_000 },
      async (texts) => {
        await gate;
        return texts.map((text) => (text === "3" ? new Error("never") : undefined));
      },
    );
    await eventually(() => expect(got).toEqual([numbers(1, 3)]), { timeoutMs: 30_000 });
    const stopping = subscription.stop(10_000);
    resolve();
    await stopping;
    const later = await batches(port, topic, { maxMessages: 3, maxAwaitMs: 100 }, handled);
    await eventually(() => expect(later.got.flat()).toEqual(numbers(3, 5)), { timeoutMs: 30_000 });
  });

  it("refuses Avro, not a schema registry; metadata are headers, beside what Kafka says", async () => {
    const [port, topic] = [await open({ schemaRegistryURL: "http://127.0.0.1:1" }), `t-${randomUUID()}`];
    const asked = (metadata: Record<string, string>): PublishMessage => ({
      ...message(topic, "1"),
      metadata,
    });
    await expect(port.publish(asked({ valueSchemaType: "Avro" }), never)).rejects.toThrow("is not supported");
    await port.publish(asked({ __key: "k", partitionNumber: "2", __offset: "77", color: "red" }), never);
    const got: unknown[] = [];
    const request = { topic, metadata: {}, rawPayload: false, batch: 1 };
    const subscription = await port.subscribe(request, async (event) => void got.push(event.metadata));
    onTestFinished(() => subscription.stop(1_000));
    const __timestamp = expect.stringMatching(/^\d{13}$/) as string;
    const told = { __key: "k", __topic: topic, __partition: "2", __offset: "0", __timestamp, color: "red" };
    await eventually(() => expect(got).toEqual([told]), { timeoutMs: 30_000 });
  });
});
