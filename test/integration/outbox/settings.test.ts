// What the metadata of components say about an outbox: scopes, an unknown broker, groups, memory, and hot reload.
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { pubsubComponent } from "../pubsub/resources.ts";
import { put as write } from "../reload/place.ts";
import { eventsOf, outboxStore, type Published, relays, startTaker, transact } from "./events.ts";

test("publishing scopes hold for both topics", async () => {
  await using nats = await startNats();
  await using app = await startTaker();
  const plain = pubsubComponent();
  await using mail = await startSidecar({
    appId: "mail",
    nats,
    resources: { "p.yaml": plain },
    appPort: app.port,
  });
  await mail.subscribed("orders");
  const start = (publishingScopes: string, more = {}): ReturnType<typeof startSidecar> =>
    startSidecar({
      appId: "shop",
      nats,
      resources: {
        "p.yaml": pubsubComponent("pubsub.nats", { publishingScopes, ...more }),
        "s.yaml": outboxStore("state.nats"),
      },
    });
  {
    await using shop = await start("shop=orders");
    const { status, text } = await transact(shop, [{ key: "a", value: 1 }]);
    const error = "topic defaultshopordersoutbox is not allowed for app id shop";
    expect(status).toBe(500);
    expect(JSON.parse(text)).toEqual({
      errorCode: "ERR_PUBLISH_OUTBOX",
      message: `error while publishing outbox message: ${error}`,
      details: [
        {
          "@type": "type.googleapis.com/google.rpc.ErrorInfo",
          domain: "dapr.io",
          metadata: { appID: "shop", error },
          reason: "DAPR_PUBSUB_OUTBOX",
        },
      ],
    });
    expect((await shop.get("/v1.0/state/store/a")).status).toBe(204);
  }
  // What the app may subscribe to says nothing of the topic on which its events wait.
  await using shop = await start("shop=defaultshopordersoutbox", { subscriptionScopes: "shop=" });
  expect((await transact(shop, [{ key: "a", value: 1 }])).status).toBe(204);
  await shop.logged(/outbox event \S+ cannot be published .*topic orders is not allowed for app id shop/);
  expect(eventsOf(app)).toEqual([]);
});

test("a broker that is not there ends the transaction before anything is stored", async () => {
  await using nats = await startNats();
  const resources = {
    "s.yaml": outboxStore("state.nats"),
    "half.yaml": outboxStore("state.nats", {}, { outboxPublishTopic: "" }, "half"),
  };
  await using shop = await startSidecar({ appId: "shop", nats, resources });
  const { status, text } = await transact(shop, [{ key: "a", value: 1 }]);
  expect([status, text]).toEqual([500, expect.stringContaining("ERR_PUBLISH_OUTBOX")]);
  expect(text).toContain("pubsub pubsub is not found");
  expect((await shop.get("/v1.0/state/store/a")).status).toBe(204);
  expect((await transact(shop, ["a"])).status).toBe(204);
  expect((await transact(shop, [{ key: "a", value: 1 }], "", "half")).status).toBe(204);
  await shop.logged(/state store half: no outbox event is published: .*needs outboxPublishTopic/);
});

test("state and events in memory: many in one transaction, side by side, and a failed one between", async () => {
  await using nats = await startNats();
  await using app = await startTaker();
  const resources = {
    "p.yaml": pubsubComponent("pubsub.in-memory"),
    "s.yaml": outboxStore("state.in-memory"),
  };
  await using shop = await startSidecar({ appId: "shop", nats, resources, appPort: app.port });
  await relays(shop);
  await shop.logged(/app is subscribed to topic orders/);
  expect(
    (
      await transact(shop, [
        { key: "a", value: 0 },
        { key: "b", value: 0 },
      ])
    ).status,
  ).toBe(204);
  const replies = await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      transact(shop, [{ key: `k${index}`, value: index, ...(index % 2 === 1 && { etag: "77" }) }]),
    ),
  );
  expect(replies.map(({ status }) => status)).toEqual(
    replies.map((_, index) => (index % 2 === 1 ? 500 : 204)),
  );
  await eventually(() => {
    const data = eventsOf(app).map((event) => Number(event.data));
    expect(data.sort((a, b) => a - b)).toEqual([0, 0, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
  });
});

test("both topics may be in one stream of pubsub.jetstream, which takes an id once", async () => {
  await using nats = await startNats();
  const manager = await jetstreamManager(await nats.connect());
  await manager.streams.add({ name: "SHOP", subjects: ["orders", "defaultshopordersoutbox"] });
  await using app = await startTaker();
  const resources = {
    "p.yaml": pubsubComponent("pubsub.jetstream", { natsURL: nats.url }),
    "s.yaml": outboxStore("state.in-memory"),
  };
  await using shop = await startSidecar({ appId: "shop", nats, resources, appPort: app.port });
  expect((await transact(shop, [{ key: "a", value: 1 }])).status).toBe(204);
  await eventually(() => expect(eventsOf(app)).toMatchObject([{ data: "1", topic: "orders" }]), {
    timeoutMs: 20_000,
  });
});

test("replicas share the events also where each of them gets every event of its own subscriptions", async () => {
  await using nats = await startNats();
  await using app = await startTaker();
  const each = pubsubComponent("pubsub.nats", { consumerID: "{uuid}" });
  const resources = { "p.yaml": each, "s.yaml": outboxStore("state.nats") };
  const shop = { appId: "shop", nats, resources };
  await using one = await startSidecar({ ...shop, appPort: app.port });
  await using two = await startSidecar(shop);
  await Promise.all([relays(one), relays(two), one.logged(/app is subscribed to topic orders/)]);
  for (let n = 0; n < 20; n++) await transact(n % 2 === 0 ? one : two, [{ key: `k${n}`, value: n }]);
  await eventually(() => expect(eventsOf(app)).toHaveLength(20));
  const jetstream = await (
    await nats.connect()
  ).request("$JS.API.CONSUMER.NAMES.weft__topics__default__pubsub", "", { timeout: 10_000 });
  const { consumers } = jetstream.json<{ consumers: string[] }>();
  expect(consumers.filter((name) => name.includes("outbox"))).toHaveLength(1);
  expect(app.requestsTo("/orders")).toHaveLength(20);
});

test("hot reload: an outbox begins, moves to another topic and ends with its component", async () => {
  await using nats = await startNats();
  await using app = await startApp({
    subscriptions: ["orders", "moved"].map((topic) => ({ pubsubname: "pubsub", topic, route: `/${topic}` })),
    fallback: () => ({}),
  });
  const bare = outboxStore("state.nats", {}, { outboxPublishPubsub: "", outboxPublishTopic: "" });
  const resources = { "p.yaml": pubsubComponent(), "s.yaml": bare };
  await using shop = await startSidecar({ appId: "shop", nats, resources, appPort: app.port });
  await shop.subscribed("moved");
  const data = (path: string): unknown[] => app.requestsTo(path).map((it) => it.json<Published>().data);
  const put = async (value: string): Promise<void> =>
    expect((await transact(shop, [{ key: "a", value }])).status).toBe(204);

  await put("before");
  write(shop, "s.yaml", outboxStore("state.nats"));
  await shop.logged(/outbox is subscribed to topic defaultshopordersoutbox/);
  await put("first");
  await eventually(() => expect(data("/orders")).toEqual(["first"]));

  write(shop, "p.yaml", pubsubComponent("pubsub.nats", { concurrency: "7" }));
  await eventually(() =>
    expect(shop.logs().match(/outbox is subscribed to topic defaultshopordersoutbox/g)).toHaveLength(2),
  );
  await put("second");
  await eventually(() => expect(data("/orders")).toEqual(["first", "second"]));

  write(shop, "s.yaml", outboxStore("state.nats", {}, { outboxPublishTopic: "moved" }));
  await shop.logged(/outbox is subscribed to topic defaultshopmovedoutbox/);
  await put("third");
  await eventually(() => expect(data("/moved")).toEqual(["third"]));

  write(shop, "s.yaml", bare);
  await eventually(() => expect(shop.logs().match(/Component updated: store/g)).toHaveLength(3));
  await put("after");
  expect([data("/orders"), data("/moved")]).toEqual([["first", "second"], ["third"]]);
  write(shop, "half.yaml", outboxStore("state.nats", {}, { outboxPublishTopic: "" }, "half"));
  await shop.logged(/state store half: no outbox event is published: .*needs outboxPublishTopic/);
});
