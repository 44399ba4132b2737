import { describe, expect, it } from "vitest";
import { silentLog } from "../../../test/contract/silent-log.ts";
import { systemClock } from "../../../mesh/index.ts";
import type {
  Mesh,
  TopicHandler,
  TopicMessage,
  TopicStream,
  TopicSubscribeOptions,
} from "../../../mesh/index.ts";
import type { BrokerMessage, PubSub } from "../../blocks/pubsub/port.ts";
import { readMetadata } from "../metadata.ts";
import { metadataSchema, open } from "./nats.ts";

type Published = Parameters<TopicStream["publish"]>;

type Tested = {
  readonly port: PubSub;
  readonly published: Published[];
  readonly opened: unknown[];
  /** What a subscription asks of the stream, and what its handler gets of a stored message. */
  subscribe(rawPayload?: boolean): Promise<TopicSubscribeOptions>;
  read(message: Stored, rawPayload?: boolean): Promise<BrokerMessage>;
};

type Stored = { readonly data: string | Buffer; readonly headers?: Readonly<Record<string, string>> };

async function tested(properties: Readonly<Record<string, string>> = {}): Promise<Tested> {
  const published: Published[] = [];
  const opened: unknown[] = [];
  let subscribed: { options: TopicSubscribeOptions; handler: TopicHandler } | undefined;
  const stream: TopicStream = {
    stream: "weft_topics",
    async publish(...args) {
      published.push(args);
      return { sequence: 1, duplicate: false };
    },
    async cancelScheduled() {},
    async subscribe(options, handler) {
      subscribed = { options, handler };
      return { stop: async () => {} };
    },
  };
  const mesh = {
    topics: async (options: unknown) => {
      opened.push(options);
      return stream;
    },
  } as unknown as Mesh;
  const { values } = readMetadata(metadataSchema, "pubsub", properties);
  const who = { name: "pubsub", type: "pubsub.nats", version: "v1", appId: "app", namespace: "prod" };
  const signal = new AbortController().signal;
  const rest = { metadata: values, properties, mesh, clock: systemClock, log: silentLog, signal };
  const port = await open({ ...who, ...rest, env: {} });
  const got: BrokerMessage[] = [];
  const begin = async (rawPayload = false): Promise<NonNullable<typeof subscribed>> => {
    await port.subscribe(
      { topic: "orders", metadata: {}, rawPayload, batch: 1 },
      async (message) => void got.push(message),
    );
    return subscribed!;
  };
  return {
    port,
    published,
    opened,
    subscribe: async (rawPayload) => (await begin(rawPayload)).options,
    async read(message, rawPayload) {
      const { handler } = await begin(rawPayload);
      await handler(stored(message), signal);
      return got.at(-1)!;
    },
  };
}

function stored({ data, headers = {} }: Stored): TopicMessage {
  return {
    topic: "orders",
    data: Buffer.from(data),
    header: (name) => headers[name],
    headers: () => Object.entries(headers),
    sequence: 7,
    deliveries: 1,
    timestampMs: Date.UTC(2025, 0, 1),
  };
}

const signal = new AbortController().signal;

describe("pubsub.nats", () => {
  it("opens one stream for its namespace and name", async () => {
    const week = 168 * 3600 * 1000;
    expect((await tested()).opened).toEqual([
      { name: ["prod", "pubsub"], maxAgeMs: week, maxBytes: -1, partitions: 16, duplicateWindowMs: 120_000 },
    ]);
    const { opened } = await tested({ maxAge: "1h", maxBytes: "1000" });
    expect(opened).toEqual([
      {
        name: ["prod", "pubsub"],
        maxAgeMs: 3_600_000,
        maxBytes: 1000,
        partitions: 16,
        duplicateWindowMs: 120_000,
      },
    ]);
  });

  it("subscribes as its metadata say", async () => {
    expect(await (await tested()).subscribe()).toEqual({
      topic: "orders",
      group: "app",
      deliver: "all",
      ackWaitMs: 10_000,
      concurrency: 32,
      backoffMs: [100, 500, 2_000, 10_000],
      maxDeliver: -1,
      ordered: false,
      broadcast: false,
      shared: "keep",
    });
    const properties = {
      consumerID: " g ",
      deliverPolicy: "new",
      ackWait: "1m",
      concurrency: "1",
      backOff: "1s, 2s",
    };
    expect(await (await tested({ ...properties, maxDeliver: "3" })).subscribe()).toEqual({
      topic: "orders",
      group: "g",
      deliver: "new",
      ackWaitMs: 60_000,
      concurrency: 1,
      backoffMs: [1_000, 2_000],
      maxDeliver: 3,
      ordered: false,
      broadcast: false,
      shared: "keep",
    });
  });

  it("shares a consumer where it is told so, but not in order", async () => {
    expect(await (await tested({ sharedConsumer: "true" })).subscribe()).toMatchObject({ shared: "join" });
    const ordered = await tested({ sharedConsumer: "true", ordered: "true" });
    expect((await ordered.subscribe()).shared).toBeUndefined();
  });

  it.each(["soon", "1s,,2s", "-1s"])("refuses the backOff %j", async (backOff) => {
    await expect(tested({ backOff })).rejects.toThrow('metadata field "backOff"');
  });

  it.each([{ ackWait: "1s" }, { publishTimeout: "0" }, { duplicateWindow: "48h" }, { maxAge: "-1s" }])(
    "refuses %j",
    async (properties) => {
      const [name] = Object.keys(properties);
      await expect(tested(properties as Record<string, string>)).rejects.toThrow(
        `metadata field "${name}": use`,
      );
    },
  );

  it("stores envelopes in structured mode, metadata in headers", async () => {
    const { port, published } = await tested({ publishTimeout: "5s" });
    const id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    const message = {
      topic: "orders",
      data: Buffer.from("{}"),
      contentType: "application/cloudevents+json",
      id,
    };
    await port.publish({ ...message, metadata: {} }, signal);
    await port.publish({ ...message, metadata: { ttl: "5s", "x y:ü": "a\r\nb%", empty: "" } }, signal);
    const structured = ["Content-Type", "application/cloudevents+json"];
    const options = { id, headers: structured, timeoutMs: 5_000, signal };
    expect(published[0]).toEqual(["orders", message.data, options]);
    expect(published[1]![2].headers).toEqual([
      ...structured,
      ...["Weft-Meta-ttl", "5s", "Weft-Meta-x%20y%3A%C3%BC", "a%0D%0Ab%25", "Weft-Meta-empty", "%"],
    ]);
  });

  it("makes ids for raw bytes, and ids within the topic of those an app chose", async () => {
    const { port, published } = await tested();
    const raw = { data: Buffer.from("x"), metadata: {}, contentType: undefined };
    for (const topic of ["a", "a", "b"]) await port.publish({ ...raw, topic, id: undefined }, signal);
    for (const topic of ["a", "a", "b"]) await port.publish({ ...raw, topic, id: '"s""1\r\n"' }, signal);
    expect(published[0]![2].headers).toEqual(["Weft-Raw", "1"]);
    const ids = published.map(([, , options]) => options.id);
    expect(new Set(ids.slice(0, 3)).size).toBe(3);
    expect(ids[3]).toBe(ids[4]);
    expect(ids[5]).not.toBe(ids[3]);
    expect(ids[3]).toMatch(/^[A-Za-z0-9_-]{43}$/);
  });
});

describe("a dead letter", () => {
  it("is kept with why and whence, whatever its metadata ask for", async () => {
    const { port, published } = await tested();
    const delivery = { group: "mail é", subscription: "orders.*", tries: 2, sequence: 7 };
    const of = {
      topic: "orders.eu",
      data: Buffer.from("{}"),
      contentType: undefined,
      metadata: {},
      delivery,
    };
    const metadata = { delay: "junk", scheduleId: "x", cancelSchedule: "true", orderingKey: "k".repeat(300) };
    const dead = { ...of, topic: "dead", metadata, id: undefined };
    const reason = `no\nroom ${"x".repeat(2_000)}`;
    await port.publish({ ...dead, deadLetter: { of, reason } }, signal);
    const { headers, key, schedule } = published[0]![2];
    expect([key, schedule]).toEqual([undefined, undefined]);
    expect(headers!.slice(4)).toEqual([
      ...["Weft-Dead-Topic", "orders.eu"],
      ...["Weft-Dead-Reason", `no%0Aroom%20${"x".repeat(992)}%E2%80%A6`],
      ...["Weft-Dead-Group", "mail%20%C3%A9", "Weft-Dead-Subscription", "orders.*"],
      ...["Weft-Dead-Tries", "2", "Weft-Dead-Sequence", "7"],
    ]);
    await port.publish({ ...dead, metadata: { partitionKey: "k" }, deadLetter: { of, reason } }, signal);
    expect(published[1]![2].key).toBe("k");
  });
});

describe("a message of another NATS program", () => {
  const read = async (message: Stored): Promise<Record<string, unknown>> => {
    const { data } = await (await tested()).read(message);
    return JSON.parse(Buffer.from(data).toString()) as Record<string, unknown>;
  };
  const madeUp = {
    id: "weft_topics-7",
    source: "/weft_topics/orders",
    specversion: "1.0",
    type: "com.dapr.event.sent",
    time: "2025-01-01T00:00:00.000Z",
    topic: "orders",
  };

  it.each([
    [{ data: '{"a": 1.0}' }],
    [{ data: '{"id":"1"} ', headers: { "content-type": "application/json" } }],
    [{ data: "not json", headers: { "Content-Type": "application/cloudevents+json" } }],
    [{ data: "not json", headers: { "content-type": "application/cloudevents+json; charset=utf-8" } }],
  ])("%j passes as it is", async (message) => {
    const got = await (await tested()).read(message);
    expect(Buffer.from(got.data).toString()).toBe(message.data);
  });

  it.each([
    [{ data: "hello" }, { datacontenttype: "text/plain", data: "hello" }],
    [{ data: "5.0" }, { datacontenttype: "application/json", data: 5 }],
    [{ data: "[1]" }, { datacontenttype: "application/json", data: [1] }],
    [{ data: "" }, { datacontenttype: "text/plain", data: "" }],
    [{ data: Buffer.from([255]) }, { datacontenttype: "application/octet-stream", data_base64: "/w==" }],
    [
      { data: "[1]", headers: { "Content-Type": "text/csv" } },
      { datacontenttype: "text/csv", data: "[1]" },
    ],
    [
      { data: "x", headers: { "Content-Type": "application/octet-stream" } },
      { datacontenttype: "application/octet-stream", data_base64: "eA==" },
    ],
  ])("%j is wrapped", async (message, data) => expect(await read(message)).toEqual({ ...madeUp, ...data }));

  it("in binary mode becomes an envelope, with its numbers as they were", async () => {
    const headers = {
      "ce-specversion": "1.0",
      "CE-Id": "1",
      "ce-source": "/a%20b",
      "ce-type": "t",
      "ce-time": "2020-01-01T00:00:00Z",
      "ce-extra": "x",
      "Content-Type": "application/json",
      "Weft-Meta-a": "b%25",
    };
    const got = await (await tested()).read({ data: '{"b":1.0,"a":2}', headers });
    expect(got).toMatchObject({ metadata: { a: "b%" }, contentType: "application/cloudevents+json" });
    expect(Buffer.from(got.data).toString()).toBe(
      '{"data":{"a":2,"b":1.0},"datacontenttype":"application/json","extra":"x","id":"1","source":"/a b",' +
        '"specversion":"1.0","time":"2020-01-01T00:00:00Z","topic":"orders","type":"t"}',
    );
  });

  it("is left alone for raw subscriptions, as are raw publishes for all", async () => {
    const headers = { "ce-specversion": "1.0", "Weft-Meta-a": "b" };
    const plain = await (await tested()).read({ data: "hello", headers }, true);
    expect(plain).toEqual({
      topic: "orders",
      data: Buffer.from("hello"),
      metadata: { a: "b" },
      contentType: undefined,
      delivery: { group: "app", subscription: "orders", tries: 1, sequence: 7 },
    });
    const raw = await (await tested()).read({ data: "hello", headers: { "Weft-Raw": "1" } });
    expect(raw).toMatchObject({ data: Buffer.from("hello"), contentType: undefined });
  });
});
