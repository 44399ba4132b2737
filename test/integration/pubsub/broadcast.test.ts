// Broadcasts, and where subscriptions of pubsub.nats begin: a time, a number, the last event, where the CLI moves them.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import type { GrpcClient, GrpcError } from "../../kit/index.ts";
import { eventually, grpcClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, Nats, Sidecar } from "../../kit/index.ts";
import { makePlace, type Place } from "../cli/place.ts";
import { pubsubComponent } from "./resources.ts";

const resources = { "p.yaml": pubsubComponent("pubsub.nats", { backOff: "50ms" }) };
type Metadata = Readonly<Record<string, string>>;

const appOn = (topic: string, metadata: Metadata = {}): Promise<App> =>
  startApp({
    subscriptions: [{ pubsubname: "pubsub", topic, route: "/on", metadata }],
    routes: { "/on": () => undefined },
  });
const numbers = (app: App): number[] =>
  app.requestsTo("/on").map((request) => request.json<{ data: number }>().data);
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

async function publishAll(
  sidecar: Sidecar,
  topic: string,
  from: number,
  to: number,
  key = "",
): Promise<void> {
  for (const n of range(from, to)) {
    const { status } = await sidecar.post(`/v1.0/publish/pubsub/${topic}?metadata.orderingKey=${key}`, n);
    expect(status).toBe(204);
  }
}

test("every replica gets each event of a broadcast, also over a short outage; its consumers go", async () => {
  await using nats = await startNats();
  await using one = await appOn("news", { broadcast: "true" });
  await using two = await appOn("news", { broadcast: "true" });
  await using shop = await startSidecar({ appId: "shop", nats, resources });
  await publishAll(shop, "news", 0, 5);
  await using first = await startSidecar({ appId: "web", nats, resources, appPort: one.port });
  await using second = await startSidecar({ appId: "web", nats, resources, appPort: two.port });
  const begun = /app is subscribed to topic news/;
  await Promise.all([first.logged(begun), second.logged(begun)]);
  await publishAll(shop, "news", 5, 10);
  await publishAll(shop, "news", 10, 15, "key");
  for (const app of [one, two])
    await eventually(() => expect(numbers(app).toSorted((a, b) => a - b)).toEqual(range(5, 15)));

  // Away from NATS: killed, with events published before its members are back.
  await nats.kill();
  await nats.restart();
  await publishAll(shop, "news", 15, 25);
  for (const app of [one, two])
    await eventually(() => expect(new Set(numbers(app))).toEqual(new Set(range(5, 25))), {
      timeoutMs: 60_000,
    });

  // A consumer that is lost begins where it was.
  const client = await nats.connect();
  const list = async (): Promise<{ name: string; config: { inactive_threshold?: number } }[]> => {
    const answer = await client.request("$JS.API.CONSUMER.LIST.weft__topics__default__pubsub", "", {
      timeout: 5_000,
    });
    return answer.json<{ consumers: { name: string; config: { inactive_threshold?: number } }[] }>()
      .consumers;
  };
  const consumers = await list();
  expect(consumers).toHaveLength(2);
  for (const { config } of consumers) expect(config.inactive_threshold).toBe(300e9);
  for (const { name } of consumers)
    await client.request(`$JS.API.CONSUMER.DELETE.weft__topics__default__pubsub.${name}`, "", {
      timeout: 5_000,
    });
  await publishAll(shop, "news", 25, 30);
  for (const app of [one, two])
    await eventually(() => expect(new Set(numbers(app))).toEqual(new Set(range(5, 30))), {
      timeoutMs: 60_000,
    });
}, 180_000);

describe("a subscription begins", () => {
  const stack = new AsyncDisposableStack();
  let nats: Nats;
  let shop: Sidecar;
  let client: GrpcClient;
  let here: Place;
  let middle: string;
  beforeAll(async () => {
    nats = stack.use(await startNats());
    here = stack.use(await makePlace({ natsUrl: nats.url }));
    shop = stack.use(await startSidecar({ appId: "shop", nats, resources }));
    client = stack.use(grpcClient(shop.grpcPort));
    await publishAll(shop, "log", 0, 5, "a");
    middle = new Date(Date.now() + 20).toISOString();
    // NATS' own clock has to be past it.
    await eventually(() => Date.now() > Date.parse(middle) + 50);
    await publishAll(shop, "log", 5, 10);
  }, 60_000);
  afterAll(() => stack.disposeAsync());

  let groups = 0;
  /** Events of a streaming subscription until `count` have come. */
  async function streamed(
    metadata: Metadata,
    count: number,
    group = `g${groups++}`,
    topic = "log",
  ): Promise<number[]> {
    const stream = client.stream(Dapr.method.subscribeTopicEventsAlpha1);
    const initialRequest = {
      pubsubName: "pubsub",
      topic,
      metadata: { consumerID: group, ...metadata },
    };
    stream.send({ subscribeTopicEventsRequestType: { case: "initialRequest", value: initialRequest } });
    const got: number[] = [];
    for await (const message of stream) {
      const type = message.subscribeTopicEventsResponseType;
      if (type.case !== "eventMessage") continue;
      got.push(Number(Buffer.from(type.value.data).toString()));
      stream.send({
        subscribeTopicEventsRequestType: {
          case: "eventProcessed",
          value: { id: type.value.id, status: { status: 0 } },
        },
      });
      if (got.length === count) break;
    }
    stream.cancel();
    return got.toSorted((a, b) => a - b);
  }

  test("where its metadata say, for a new group, a stream, and a broadcast each time", async () => {
    expect(await streamed({}, 10)).toEqual(range(0, 10));
    expect(await streamed({ startTime: middle }, 5)).toEqual(range(5, 10));
    expect(await streamed({ startTime: "-1h" }, 10)).toEqual(range(0, 10));
    expect(await streamed({ startSequence: "8" }, 3)).toEqual(range(7, 10));
    expect(await streamed({ deliverPolicy: "last" }, 1)).toEqual([9]);
    expect(await streamed({ ordered: "true", startSequence: "4" }, 7)).toEqual(range(3, 10));
    expect(await streamed({ startTime: middle }, 5, "wild", "*")).toEqual(range(5, 10));
    expect(await streamed({ broadcast: "true", startSequence: "8" }, 3, "wild", ">")).toEqual(range(7, 10));
    for (let i = 0; i < 2; i++)
      expect(await streamed({ broadcast: "true", startTime: middle }, 5, "all")).toEqual(range(5, 10));
  });

  test("and weft groups moves it while it runs", async () => {
    await using app = await appOn("log", { ordered: "true" });
    await using sidecar = await startSidecar({ appId: "mover", nats, resources, appPort: app.port });
    await sidecar.subscribed("log");
    await app.received("/on", 10);
    const weft = async (...args: string[]): Promise<string> => {
      const { code, logs } = await here.weft("groups", ...args);
      expect({ code, logs }).toMatchObject({ code: 0 });
      return logs;
    };
    // The app has the last event before the server knows that it was handled.
    await eventually(async () => expect(await weft("list")).toMatch(/mover__log +log +\d+ +0 +0/));
    expect(await weft("move", "mover", "log", middle)).toContain("group mover of log goes on with event 6");
    await eventually(() =>
      expect(
        numbers(app)
          .slice(10)
          .toSorted((a, b) => a - b),
      ).toEqual(range(5, 10)),
    );
    await weft("move", "mover", "log", "all");
    await eventually(() =>
      expect(
        numbers(app)
          .slice(15)
          .toSorted((a, b) => a - b),
      ).toEqual(range(0, 10)),
    );
    await weft("move", "mover", "log", "1h");
    await app.received("/on", 35);

    await using late = await appOn("log", { deliverPolicy: "new" });
    await using other = await startSidecar({ appId: "late", nats, resources, appPort: late.port });
    await other.logged(/app is subscribed to topic log/);
    await weft("move", "late", "log", "3");
    await eventually(() => expect(new Set(numbers(late))).toEqual(new Set(range(2, 10))), {
      timeoutMs: 30_000,
    });
    const wrong = await here.weft("groups", "move", "nobody", "log", "all");
    expect([wrong.code, wrong.logs]).toEqual([
      1,
      expect.stringContaining("there is no group nobody on topic log"),
    ]);
    const odd = await here.weft("groups", "move", "late", "log", "yesterday");
    expect([odd.code, odd.logs]).toEqual([255, expect.stringContaining('"yesterday" is no place')]);
  }, 150_000);

  test.each([
    [{ startTime: "yesterday" }, 'metadata field "startTime": "yesterday" is no time'],
    [{ startTime: "2999-01-01T00:00:00Z" }, "is in the future"],
    [{ startTime: "1h" }, "is in the future"],
    [{ startSequence: "0" }, 'metadata field "startSequence": "0" is no whole number above 0'],
    [{ startSequence: "1e3" }, 'metadata field "startSequence"'],
    [{ startSequence: "1", startTime: "-1h" }, 'metadata field "startSequence": startTime says already'],
    [{ deliverPolicy: "some" }, 'metadata field "deliverPolicy": "some" is none of all, new, last'],
    [{ broadcast: "yes please" }, 'metadata field "broadcast"'],
    [{ broadcast: "true", ordered: "true" }, 'metadata field "broadcast": it keeps no order'],
  ])("nowhere with %j", async (metadata, words) => {
    const refused = await streamed(metadata as Metadata, 1).catch((error: GrpcError) => [
      error.code,
      error.details,
    ]);
    expect(refused).toEqual([3, expect.stringContaining(words)]);
  });
});
