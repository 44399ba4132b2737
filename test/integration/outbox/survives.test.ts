// The outbox when sidecars die between its steps: published exactly when the transaction was committed.
import { expect, test } from "vitest";
import {
  deafProxy,
  eventually,
  type FaultProxy,
  faultProxy,
  freePort,
  type Nats,
  type Sidecar,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import { pubsubComponent } from "../pubsub/resources.ts";
import { stateComponent } from "../state/resources.ts";
import { eventsOf, outboxStore, relays, startTaker, transact } from "./events.ts";

const pubsub = pubsubComponent("pubsub.nats", { ackWait: "2s", backOff: "100ms" });
const slow = { timeoutMs: 30_000 };

async function startMail(nats: Nats, port: number): Promise<Sidecar> {
  const sidecar = await startSidecar({ appId: "mail", nats, resources: { "p.yaml": pubsub }, appPort: port });
  await sidecar.subscribed("orders");
  return sidecar;
}

/** Waits until the sidecar has handed `count` events to the topic on which they wait. */
async function announced(sidecar: Sidecar, count: number): Promise<void> {
  await eventually(async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${sidecar.metricsPort}/`)).text();
    const line = /component_pubsub_egress_count\{[^}]*topic="defaultshopordersoutbox"[^}]*\} (\d+)/.exec(
      metrics,
    );
    expect(line?.[1]).toBe(String(count));
  });
}

/** A sidecar that is killed when it has an event in hand and is about to publish it. */
async function dieWithEventInHand(
  nats: Nats,
  shop: { readonly appId: string; readonly resources: Readonly<Record<string, string>> },
): Promise<void> {
  await using proxy = await deafProxy(nats.port);
  const publishing = proxy.hold("topic.pubsub.orders");
  await using sidecar = await startSidecar({ ...shop, nats: proxy });
  await publishing.begun;
  await sidecar.kill();
}

test("killed after the commit: another replica publishes, and one killed at that is followed by the next", async () => {
  await using nats = await startNats();
  await using app = await startTaker();
  await using _mail = await startMail(nats, app.port);
  const shop = { appId: "shop", nats, resources: { "p.yaml": pubsub, "s.yaml": outboxStore("state.nats") } };
  // Its app is not there yet, so it does not publish what it commits.
  await using first = await startSidecar({ ...shop, appPort: await freePort(), wait: "outbound" });
  expect((await transact(first, [{ key: "a", value: "committed" }])).status).toBe(204);
  await first.kill();
  await dieWithEventInHand(nats, shop);
  expect(eventsOf(app)).toEqual([]);
  await using third = await startSidecar(shop);
  await eventually(() => expect(eventsOf(app).map(({ data }) => data)).toEqual(["committed"]), slow);
  const bare = stateComponent("store", "state.nats", { keyPrefix: "none" });
  await using peek = await startSidecar({ appId: "peek", nats, resources: { "s.yaml": bare } });
  const marker = `/v1.0/state/store/${eventsOf(app)[0]!.id}`;
  await eventually(async () => expect((await peek.get(marker)).status).toBe(204), slow);
  expect(third.logs()).not.toMatch(/level=error/);
}, 120_000);

test("an event that waits comes again after a kill although the component has maxDeliver 1", async () => {
  await using nats = await startNats();
  await using app = await startTaker();
  await using _mail = await startMail(nats, app.port);
  const once = pubsubComponent("pubsub.nats", { ackWait: "2s", maxDeliver: "1" });
  const shop = { appId: "shop", nats, resources: { "p.yaml": once, "s.yaml": outboxStore("state.nats") } };
  await using first = await startSidecar({ ...shop, appPort: await freePort(), wait: "outbound" });
  expect((await transact(first, [{ key: "a", value: "committed" }])).status).toBe(204);
  await first.kill();
  await dieWithEventInHand(nats, shop);
  await using _third = await startSidecar(shop);
  await eventually(() => expect(eventsOf(app).map(({ data }) => data)).toEqual(["committed"]), slow);
}, 120_000);

test("killed before the commit: nothing is published, and what comes later is not held back", async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  await using proxy: FaultProxy = await faultProxy(redis.port);
  await using app = await startTaker();
  await using _mail = await startMail(nats, app.port);
  const resources = (redisHost: string): Record<string, string> => ({
    "p.yaml": pubsub,
    "s.yaml": outboxStore("state.redis", { redisHost }),
  });
  const shop = { appId: "shop", nats };
  await using first = await startSidecar({ ...shop, resources: resources(`127.0.0.1:${proxy.port}`) });
  await relays(first);
  proxy.block();
  const lost = transact(first, [{ key: "a", value: "lost" }]).catch(() => undefined);
  await announced(first, 1);
  await first.kill();
  await lost;
  // What it had sent never arrives.
  proxy.cut();
  await using second = await startSidecar({ ...shop, resources: resources(redis.address) });
  await relays(second);
  expect((await transact(second, [{ key: "a", value: "kept" }])).status).toBe(204);
  await eventually(() => expect(eventsOf(app).map(({ data }) => data)).toEqual(["kept"]), slow);
  await second.logged(
    /outbox event outbox-\S+ goes back to the broker: its transaction is not found/,
    60_000,
  );
  expect((await transact(second, [{ key: "a", value: "later" }])).status).toBe(204);
  await eventually(() => expect(eventsOf(app).map(({ data }) => data)).toEqual(["kept", "later"]), slow);
}, 150_000);

test("with outboxDiscardWhenMissingState an event without transaction is gone after ten seconds", async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  await using proxy = await faultProxy(redis.port);
  await using app = await startTaker();
  await using _mail = await startMail(nats, app.port);
  const fields = {
    redisHost: `127.0.0.1:${proxy.port}`,
    redisMaxRetries: "0",
    outboxDiscardWhenMissingState: "on",
  };
  await using shop = await startSidecar({
    appId: "shop",
    nats,
    resources: { "p.yaml": pubsub, "s.yaml": outboxStore("state.redis", fields) },
  });
  await relays(shop);
  proxy.cut();
  const failed = await transact(shop, [{ key: "a", value: "lost" }]);
  expect(failed.text).toContain("ERR_STATE_TRANSACTION");
  proxy.heal();
  await shop.logged(/outbox event outbox-\S+ is discarded/, 60_000);
  expect(shop.logs()).not.toContain("goes back to the broker");
  expect((await transact(shop, [{ key: "a", value: "kept" }])).status).toBe(204);
  await eventually(() => expect(eventsOf(app).map(({ data }) => data)).toEqual(["kept"]), slow);
}, 120_000);

test("killed while the broker of the published topic is away: published when it is back", async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  await using proxy = await faultProxy(redis.port);
  await using app = await startTaker();
  const bus = pubsubComponent("pubsub.redis", { redisHost: redis.address });
  await using mail = await startSidecar({
    appId: "mail",
    nats,
    resources: { "p.yaml": bus },
    appPort: app.port,
  });
  await mail.subscribed("orders");
  const proxied = pubsubComponent("pubsub.redis", {
    redisHost: `127.0.0.1:${proxy.port}`,
    redisMaxRetries: "0",
  });
  const shop = {
    appId: "shop",
    nats,
    resources: {
      "p.yaml": proxied,
      "w.yaml": pubsub.replace("name: pubsub", "name: waiting"),
      "s.yaml": outboxStore("state.nats", {}, { outboxPubsub: "waiting" }),
    },
  };
  await using first = await startSidecar(shop);
  await relays(first);
  proxy.cut();
  expect((await transact(first, [{ key: "a", value: "kept" }])).status).toBe(204);
  await first.logged(/outbox event \S+ cannot be published to topic orders of pubsub/);
  await first.kill();
  proxy.heal();
  await using _second = await startSidecar(shop);
  await eventually(() => expect(eventsOf(app).map(({ data }) => data)).toEqual(["kept"]), slow);
});
