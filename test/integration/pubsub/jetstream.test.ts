// Topics on pubsub.jetstream that are no subjects of a stream.
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, test } from "vitest";
import { startNats, startSidecar } from "../../kit/index.ts";
import { pubsubComponent } from "./resources.ts";

test("topics that no stream can take are refused, and none is an order to the server", async () => {
  await using nats = await startNats();
  const manager = await jetstreamManager(await nats.connect());
  await manager.streams.add({ name: "SHOP", subjects: ["shop.>"] });
  const resources = {
    "p.yaml": pubsubComponent("pubsub.jetstream", { natsURL: nats.url, streamName: "SHOP" }),
  };
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  const cases: readonly (readonly [string, string])[] = [
    ["$JS.API.STREAM.DELETE.SHOP", "is a subject of the server"],
    ["shop a", "is no subject"],
    ["shop..a", "is no subject"],
    [`shop.${"a".repeat(6_000)}`, "has 6005 bytes; NATS takes at most 2800 here"],
  ];
  for (const [topic, text] of cases) {
    const path = `/v1.0/publish/pubsub/${encodeURIComponent(topic)}?metadata.rawPayload=true`;
    const answer = await sidecar.http(path, { method: "POST", body: "" });
    expect([answer.status, answer.text]).toEqual([500, expect.stringContaining(text)]);
  }
  expect((await manager.streams.info("SHOP")).state.messages).toBe(0);
  const big = await sidecar.post("/v1.0/publish/pubsub/shop.a", "a".repeat(1_100_000));
  expect([big.status, big.text]).toEqual([500, expect.stringContaining("above max_payload of 1048576")]);
  expect((await sidecar.post("/v1.0/publish/pubsub/shop.a", {})).status).toBe(204);
});
