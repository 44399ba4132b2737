// Events with a key on pubsub.nats: in order per key across replicas, keys side by side, whatever dies.
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import type { GrpcError } from "../../kit/index.ts";
import { eventually, grpcClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, AppReply, AppRequest, Nats, Sidecar } from "../../kit/index.ts";
import { pubsubComponent, subscription } from "./resources.ts";

type Note = { readonly key: string; readonly n: number };
const noteOf = (request: AppRequest): Note => request.json<{ data: Note }>().data;

const resources = { "p.yaml": pubsubComponent("pubsub.nats", { backOff: "50ms" }) };
/** Where sidecars are killed. Elsewhere one that stands still for a moment must not get its events twice. */
const hasty = { "p.yaml": pubsubComponent("pubsub.nats", { backOff: "50ms", ackWait: "2s" }) };
const ordered = { ordered: "true" };

/** An app that is subscribed to a topic of its own; `handle` sees each event. */
function subscribedApp(
  topic: string,
  metadata: Readonly<Record<string, string>>,
  handle: (note: Note) => Promise<AppReply | undefined | void> | AppReply | undefined | void,
  more: { readonly deadLetterTopic?: string } = {},
): Promise<App> {
  const subscriptions = [{ pubsubname: "pubsub", topic, route: "/on", metadata, ...more }];
  return startApp({ subscriptions, routes: { "/on": (request) => handle(noteOf(request)) } });
}

const publish = (sidecar: Sidecar, topic: string, note: Note, field = "orderingKey"): Promise<number> =>
  sidecar
    .post(`/v1.0/publish/pubsub/${topic}?metadata.${field}=${encodeURIComponent(note.key)}`, note)
    .then(({ status }) => status);

const keys = (count: number): string[] => Array.from({ length: count }, (_, i) => `customer ${i}`);

/** Publishes 0..count-1 of every key, each after the one before it has been acknowledged. */
async function publishAll(
  sidecar: Sidecar,
  topic: string,
  names: readonly string[],
  count: number,
): Promise<void> {
  await Promise.all(
    names.map(async (key) => {
      for (let n = 0; n < count; n++)
        while ((await publish(sidecar, topic, { key, n }).catch(() => 0)) !== 204) await sleep(100);
    }),
  );
}

describe("with one server", () => {
  const stack = new AsyncDisposableStack();
  let nats: Nats;
  let shop: Sidecar;
  beforeAll(async () => {
    nats = stack.use(await startNats());
    shop = stack.use(await startSidecar({ appId: "shop", nats, resources }));
  });
  afterAll(() => stack.disposeAsync());

  test("keys go side by side, the events of one never, in order over two replicas", async () => {
    const seen = new Map<string, number[]>();
    const running = new Map<string, number>();
    let most = 0;
    const handle = async ({ key, n }: Note): Promise<void> => {
      running.set(key, (running.get(key) ?? 0) + 1);
      expect({ key, atOnce: running.get(key) }).toEqual({ key, atOnce: 1 });
      most = Math.max(most, [...running.values()].filter((count) => count > 0).length);
      if (n === 0) await eventually(() => most > 4, { timeoutMs: 30_000 });
      else await sleep(5);
      seen.set(key, [...(seen.get(key) ?? []), n]);
      running.set(key, 0);
    };
    await using one = await subscribedApp("side", ordered, handle);
    await using two = await subscribedApp("side", ordered, handle);
    await using first = await startSidecar({ appId: "side", nats, resources, appPort: one.port });
    await using second = await startSidecar({ appId: "side", nats, resources, appPort: two.port });
    const begun = /app is subscribed to topic side/;
    await Promise.all([first.logged(begun), second.logged(begun)]);
    await publishAll(shop, "side", keys(20), 15);
    await eventually(() => expect([...seen.values()].flat()).toHaveLength(300), { timeoutMs: 60_000 });
    for (const list of seen.values()) expect(list).toEqual(Array.from({ length: 15 }, (_, n) => n));
    // One that stands still for a while leaves its part to the other.
    const least = (): number => Math.min(...[one, two].map((app) => app.requestsTo("/on").length));
    while (least() <= 30) await publishAll(shop, "side", keys(20), 1);
  }, 120_000);

  test("concurrency 1 holds for all keys together", async () => {
    let running = 0;
    let most = 0;
    await using app = await subscribedApp("one", ordered, async () => {
      most = Math.max(most, ++running);
      await sleep(10);
      running--;
    });
    const single = { "p.yaml": pubsubComponent("pubsub.nats", { concurrency: "1" }) };
    await using sidecar = await startSidecar({ appId: "one", nats, resources: single, appPort: app.port });
    await sidecar.subscribed("one");
    await publishAll(shop, "one", keys(12), 2);
    await app.received("/on", 24);
    expect(most).toBe(1);
  }, 60_000);

  test("an event that fails holds back only what is behind it, until it is dead-lettered", async () => {
    const handled: string[] = [];
    let failing = true;
    const handle = ({ key, n }: Note): AppReply | undefined => {
      if (key === "bad" && n === 0 && failing) return { status: 500 };
      handled.push(`${key} ${n}`);
      return undefined;
    };
    await using app = await subscribedApp("hold", ordered, handle);
    await using mourning = await subscribedApp("hold2", ordered, handle, { deadLetterTopic: "hold2.dead" });
    await using a = await startSidecar({ appId: "hold", nats, resources, appPort: app.port });
    await a.subscribed("hold");
    await publishAll(shop, "hold", ["bad", "fine"], 5);
    await eventually(() => expect(handled).toEqual([0, 1, 2, 3, 4].map((n) => `fine ${n}`)));
    await app.received("/on", 5 + 4);
    expect(handled).toHaveLength(5);
    failing = false;
    await eventually(() => expect(handled.slice(5)).toEqual([0, 1, 2, 3, 4].map((n) => `bad ${n}`)));

    failing = true;
    handled.length = 0;
    await using b = await startSidecar({ appId: "hold2", nats, resources, appPort: mourning.port });
    await b.subscribed("hold2");
    await publishAll(shop, "hold2", ["bad"], 3);
    await eventually(() => expect(handled).toEqual(["bad 1", "bad 2"]));
  }, 60_000);

  test("every other subscription gets events with a key beside those without, by wildcards too", async () => {
    const got: string[] = [];
    const taking = (name: string) => (note: Note) => void got.push(`${name} ${note.key}`);
    await using exact = await subscribedApp("wild.eu", {}, taking("exact"));
    await using wild = await subscribedApp("wild.*", {}, taking("wild"));
    await using all = await subscribedApp("wild.>", ordered, taking("all"));
    await using one = await startSidecar({ appId: "exact", nats, resources, appPort: exact.port });
    await using two = await startSidecar({ appId: "wild", nats, resources, appPort: wild.port });
    await using three = await startSidecar({ appId: "all", nats, resources, appPort: all.port });
    await Promise.all([one.subscribed("wild.eu"), two.subscribed("wild.*"), three.subscribed("wild.>")]);
    await publish(shop, "wild.eu", { key: "k", n: 0 });
    await publish(shop, "wild.eu", { key: "p", n: 0 }, "partitionKey");
    await publish(shop, "wild.eu", { key: "none", n: 0 }, "other");
    const everyone = ["exact", "wild", "all"].flatMap((name) => [`${name} k`, `${name} p`, `${name} none`]);
    await eventually(() => expect(got.toSorted()).toEqual(everyone.toSorted()));
  }, 60_000);

  test("a subscription that becomes ordered loses nothing, and stays so when it no longer asks for it", async () => {
    const seen: number[] = [];
    let refusing = true;
    const handle = ({ n }: Note): AppReply | undefined => {
      if (refusing) return { status: 500 };
      seen.push(n);
      return undefined;
    };
    await using app = await startApp({ routes: { "/on": (request) => handle(noteOf(request)) } });
    const file = (more: string) => ({ ...hasty, "s.yaml": subscription("turn", "/on", more) });
    const start = (more: string): Promise<Sidecar> =>
      startSidecar({ appId: "turn", nats, resources: file(more), appPort: app.port });
    {
      await using sidecar = await start("");
      await sidecar.subscribed("turn");
      await publishAll(shop, "turn", ["a"], 10);
      await app.received("/on", 10);
    }
    {
      await using sidecar = await start('  metadata: { ordered: "true" }\n');
      await sidecar.subscribed("turn");
      refusing = false;
      await eventually(() => expect(new Set(seen).size).toBe(10), { timeoutMs: 30_000 });
      await sidecar.stop();
      for (let n = 10; n < 20; n++) await publish(shop, "turn", { key: "a", n });
    }
    await using sidecar = await start("");
    await sidecar.logged(/stays ordered/);
    // What is under way when a process dies or stands still may come once more.
    const later = (): number[] => [...new Set(seen.filter((n) => n >= 10))];
    await eventually(() => expect(later()).toEqual(Array.from({ length: 10 }, (_, n) => 10 + n)));
  }, 90_000);

  test("what cannot be a key or a switch is refused, naming field and fix", async () => {
    const long = "k".repeat(257);
    const answer = await shop.post(`/v1.0/publish/pubsub/odd?metadata.orderingKey=${long}`, {});
    expect([answer.status, answer.json()]).toMatchObject([
      400,
      {
        errorCode: "ERR_PUBSUB_REQUEST_METADATA",
        message: expect.stringContaining('metadata field "orderingKey": it has 257 bytes; use at most 256'),
      },
    ]);
    using client = grpcClient(shop.grpcPort);
    const metadata = { partitionKey: long };
    const refused = client.unary(Dapr.method.publishEvent, { pubsubName: "pubsub", topic: "odd", metadata });
    expect(await refused.catch((error: GrpcError) => [error.code, error.details])).toEqual([
      3,
      expect.stringContaining('metadata field "partitionKey"'),
    ]);
    for (const key of ["a b.c*>é\r\n", "=", "weird\u0000", "1"])
      expect(await publish(shop, "odd", { key, n: 0 })).toBe(204);

    const stream = client.stream(Dapr.method.subscribeTopicEventsAlpha1);
    const initialRequest = { pubsubName: "pubsub", topic: "odd", metadata: { ordered: "maybe" } };
    stream.send({ subscribeTopicEventsRequestType: { case: "initialRequest", value: initialRequest } });
    expect(await stream.next().catch((error: GrpcError) => [error.code, error.details])).toEqual([
      3,
      expect.stringContaining('metadata field "ordered": "maybe" is neither true nor false'),
    ]);
  });
});

test("kill -9 of a sidecar and of nats-server: every event is handled, none before the ones of its key", async () => {
  await using nats = await startNats();
  const last = new Map<string, number>();
  const skipped: string[] = [];
  let count = 0;
  const handle = async ({ key, n }: Note): Promise<void> => {
    count++;
    await sleep(2);
    const before = last.get(key) ?? -1;
    // What was handled may come again, in order again; what was not may not be skipped.
    if (n > before + 1) skipped.push(`${key}: ${n} after ${before}`);
    last.set(key, Math.max(before, n));
  };
  await using one = await subscribedApp("stress", ordered, handle);
  await using two = await subscribedApp("stress", ordered, handle);
  await using shop = await startSidecar({ appId: "shop", nats, resources: hasty });
  await using first = await startSidecar({ appId: "stress", nats, resources: hasty, appPort: one.port });
  await using second = await startSidecar({ appId: "stress", nats, resources: hasty, appPort: two.port });
  await Promise.all([first.subscribed("stress"), second.subscribed("stress")]);
  const names = keys(30);
  const publishing = publishAll(shop, "stress", names, 60);
  await eventually(() => count > 300, { timeoutMs: 60_000 });
  await first.kill();
  await eventually(() => count > 600, { timeoutMs: 60_000 });
  await nats.kill();
  await nats.restart();
  await first.restart();
  await publishing;
  await eventually(() => expect(names.filter((key) => last.get(key) !== 59)).toEqual([]), {
    timeoutMs: 60_000,
  });
  expect(skipped).toEqual([]);
}, 240_000);

test("a stream and a group of the version before are taken over where they stand", async () => {
  await using nats = await startNats();
  const client = await nats.connect();
  const api = async (subject: string, body: object): Promise<void> => {
    const answer = await client.request(`$JS.API.${subject}`, JSON.stringify(body), { timeout: 5_000 });
    expect(answer.json()).not.toHaveProperty("error");
  };
  const name = "weft__topics__default__pubsub";
  const common = {
    storage: "file",
    retention: "limits",
    discard: "old",
    allow_direct: true,
    allow_msg_ttl: true,
  };
  const base = "weft.default.topic.pubsub";
  await api(`STREAM.CREATE.${name}`, { name, subjects: [`${base}.>`], max_consumers: 1_000, ...common });
  const consumer = { durable_name: "old__orders", name: "old__orders", ack_policy: "explicit" };
  const config = { ...consumer, filter_subjects: [`${base}.orders`], deliver_policy: "all" };
  await api(`CONSUMER.CREATE.${name}.old__orders`, { stream_name: name, config });
  for (let n = 0; n < 3; n++)
    await client.request(`${base}.orders`, JSON.stringify({ data: { key: "old", n } }), { timeout: 5_000 });
  const next = `$JS.API.CONSUMER.MSG.NEXT.${name}.old__orders`;
  const done = await client.request(next, JSON.stringify({ batch: 1, expires: 1e9 }), {
    noMux: true,
    timeout: 10_000,
  });
  done.respond("+ACK");
  await client.flush();

  const seen: string[] = [];
  await using app = await subscribedApp("orders", {}, ({ key, n }) => void seen.push(`${key} ${n}`));
  await using sidecar = await startSidecar({ appId: "old", nats, resources, appPort: app.port });
  await sidecar.subscribed("orders");
  expect(await publish(sidecar, "orders", { key: "new", n: 0 })).toBe(204);
  await eventually(() => expect(seen.toSorted()).toEqual(["new 0", "old 1", "old 2"]));
}, 60_000);
