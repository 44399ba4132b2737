// pubsub.mqtt3 and bindings.mqtt3 beside each other on one broker: topics, wildcards, retained messages, metadata.
import { expect, test } from "vitest";
import { startApp, startNats, startSidecar } from "../../kit/index.ts";
import { startMosquitto } from "../../kit/servers/mosquitto.ts";
import { binding, invoke } from "../bindings/resources.ts";
import { pubsubComponent } from "./resources.ts";

test("apps get the topic that was published to, and whether the broker had kept the message", async () => {
  await using nats = await startNats();
  await using mosquitto = await startMosquitto();
  const url = `mqtt://${mosquitto.address}`;
  const pubsub = pubsubComponent("pubsub.mqtt", { url, consumerID: "{appID}-{uuid}" });
  await using app = await startApp({
    subscriptions: [
      { pubsubname: "pubsub", topic: "tea/+/leaf", route: "/one", metadata: { rawPayload: "true" } },
      { pubsubname: "pubsub", topic: "$share/group/coffee/#", route: "/shared" },
    ],
    fallback: () => ({}),
  });
  await using shop = await startSidecar({
    appId: "shop",
    nats,
    resources: {
      "p.yaml": pubsub,
      "b.yaml": binding("out", "bindings.mqtt", {
        url,
        topic: "tea/black/leaf",
        consumerID: "out",
        direction: "output",
      }),
    },
  });
  const kept = await shop.post(
    "/v1.0/publish/pubsub/tea/green/leaf?metadata.rawPayload=true&metadata.retain=true",
    "1",
  );
  expect([kept.status, kept.text]).toEqual([204, ""]);
  await using cafe = await startSidecar({
    appId: "cafe",
    nats,
    appPort: app.port,
    resources: {
      "p.yaml": pubsub,
      "b.yaml": binding("in", "bindings.mqtt3", {
        url,
        topic: "tea/#",
        consumerID: "in",
        direction: "input",
        route: "in",
      }),
    },
  });
  await cafe.logged(/app is subscribed to topic \$share\/group\/coffee\/# /);
  await cafe.logged(/binding in delivers to the app/);
  const [retained] = await app.received("/one", 1);
  expect(retained!.headers).toMatchObject({ retained: "true", pubsubname: "pubsub" });
  expect(retained!.json()).toMatchObject({ topic: "tea/green/leaf", data_base64: "MQ==" });
  await app.received("/in", 1);
  expect((await invoke(shop, "out", "create", { n: 2 })).status).toBe(204);
  // Messages that are under way together reach the app in any order.
  await Promise.all([app.received("/one", 2), app.received("/in", 2)]);
  expect((await invoke(shop, "out", "create", "3", { topic: "tea/white/leaf" })).status).toBe(204);
  const [, second, third] = await app.received("/one", 3);
  expect([second!, third!].map(({ headers }) => headers["retained"])).toEqual(["false", "false"]);
  expect([second!, third!].map((event) => event.json<{ topic: string }>().topic)).toEqual([
    "tea/black/leaf",
    "tea/white/leaf",
  ]);
  const read = await app.received("/in", 3);
  expect(read.map(({ headers, body }) => [headers["topic"], body.toString()])).toEqual([
    ["tea/green/leaf", "1"],
    ["tea/black/leaf", '{"n":2}'],
    ["tea/white/leaf", '"3"'],
  ]);
  expect((await shop.post("/v1.0/publish/pubsub/coffee/x/y", "4")).status).toBe(204);
  expect((await app.received("/shared", 1))[0]!.json()).toMatchObject({ topic: "coffee/x/y", data: "4" });
});
