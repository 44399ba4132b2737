// sharedConsumer of pubsub.nats with real sidecars: many topics on one consumer, and nothing lost whatever dies.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { eventually, grpcClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, Nats, Sidecar } from "../../kit/index.ts";
import { makePlace, type Place } from "../cli/place.ts";
import { put, remove, subscription } from "../reload/place.ts";
import { pubsubComponent } from "./resources.ts";

const stack = new AsyncDisposableStack();
const fields = { backOff: "50ms", ackWait: "5s" };
const withShared = { "p.yaml": pubsubComponent("pubsub.nats", { ...fields, sharedConsumer: "true" }) };
const without = { "p.yaml": pubsubComponent("pubsub.nats", fields) };
let nats: Nats;
let shop: Sidecar;
let here: Place;

beforeAll(async () => {
  nats = stack.use(await startNats());
  here = stack.use(await makePlace({ natsUrl: nats.url }));
  shop = stack.use(await startSidecar({ appId: "shop", nats, resources: without }));
}, 60_000);
afterAll(() => stack.disposeAsync());

const topicsOf = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${prefix}.${i}`);

/** An app that is subscribed to these topics; `seen` has topic and number of what it took. */
async function subscribedApp(topics: readonly string[]) {
  const seen: string[] = [];
  const app = await startApp();
  const add = (topic: string): void =>
    app.subscribe({ pubsubname: "pubsub", topic, route: "/on" }, (request) => {
      const event = request.json<{ topic: string; data: number }>();
      seen.push(`${event.topic} ${event.data}`);
    });
  topics.forEach(add);
  return Object.assign(app, { seen, add });
}

async function started(
  appId: string,
  app: App,
  topics: readonly string[],
  resources: Readonly<Record<string, string>> = withShared,
): Promise<Sidecar> {
  const sidecar = await startSidecar({ appId, nats, resources, appPort: app.port });
  const { length } = topics;
  await eventually(() => expect(sidecar.logs().match(/app is subscribed to topic/g)).toHaveLength(length), {
    timeoutMs: 30_000,
  });
  return sidecar;
}

/** Publishes the number to all topics; gives those that were acknowledged. */
async function publishAll(topics: readonly string[], number: number): Promise<string[]> {
  const answers = await Promise.all(
    topics.map(async (topic) => {
      const answer = await shop.post(`/v1.0/publish/pubsub/${topic}`, number).catch(() => undefined);
      return answer?.status === 204 ? [`${topic} ${number}`] : [];
    }),
  );
  return answers.flat();
}

async function consumers(group: string): Promise<string[]> {
  const client = await nats.connect();
  const subject = "$JS.API.CONSUMER.NAMES.weft__topics__default__pubsub";
  const { consumers: names } = (await client.request(subject, "", { timeout: 10_000 })).json<{
    consumers: string[];
  }>();
  await client.close();
  return names.filter((name) => name.startsWith(`${group}__`)).toSorted();
}

const missing = (events: readonly string[], ...apps: readonly { readonly seen: readonly string[] }[]) => {
  const seen = new Set(apps.flatMap((app) => app.seen));
  return events.filter((event) => !seen.has(event));
};

test("two replicas share 300 topics on one consumer; kill -9 of one and of NATS loses nothing", async () => {
  const topics = topicsOf("many", 300);
  await using one = await subscribedApp(topics);
  await using two = await subscribedApp(topics);
  await using first = await started("mail", one, topics);
  await using second = await started("mail", two, topics);
  expect(await consumers("mail")).toEqual(["mail___shared"]);
  const events = await publishAll(topics, 1);
  expect(events).toHaveLength(300);
  await eventually(() => expect([...one.seen, ...two.seen].toSorted()).toEqual(events.toSorted()));
  // One that stands still for a while leaves its part to the other.
  for (let number = 100; Math.min(one.seen.length, two.seen.length) <= 50; number++)
    events.push(...(await publishAll(topics, number)));

  const underWay = [2, 3, 4].map((number) => publishAll(topics, number));
  await first.kill();
  for (const list of await Promise.all(underWay)) events.push(...list);
  await eventually(() => expect(missing(events, one, two)).toEqual([]), { timeoutMs: 30_000 });
  await first.restart();

  const more = [5, 6, 7].map((number) => publishAll(topics, number));
  await nats.kill();
  await nats.restart();
  for (const list of await Promise.all(more)) events.push(...list);
  await eventually(() => expect(missing(events, one, two)).toEqual([]), { timeoutMs: 60_000 });
  events.push(...(await publishAll(topics, 8)));
  await eventually(() => expect(missing(events, one, two)).toEqual([]), { timeoutMs: 30_000 });
  expect(await consumers("mail")).toEqual(["mail___shared"]);
  expect(second.running()).toBe(true);
}, 180_000);

test("two replicas with different topics that start together each get theirs, also what came before", async () => {
  const mine = topicsOf("mine", 20);
  const theirs = topicsOf("theirs", 20);
  const events = [...(await publishAll(mine, 1)), ...(await publishAll(theirs, 1))];
  await using one = await subscribedApp(mine);
  await using two = await subscribedApp(theirs);
  const [a, b] = await Promise.all([started("mixed", one, mine), started("mixed", two, theirs)]);
  await using first = a;
  await using _second = b;
  for (const number of [2, 3]) events.push(...(await publishAll([...mine, ...theirs], number)));
  await eventually(() => expect(missing(events, one, two)).toEqual([]), { timeoutMs: 60_000 });
  expect(one.seen.every((it) => it.startsWith("mine"))).toBe(true);
  expect(two.seen.every((it) => it.startsWith("theirs"))).toBe(true);
  expect(await first.stop()).toBe(0);
}, 120_000);

test("switched on and off again, a group keeps its place on each topic", async () => {
  const old = topicsOf("switch", 2);
  await using app = await subscribedApp(old);
  await using before = await started("turn", app, old, without);
  const events = await publishAll(old, 1);
  await eventually(() => expect(missing(events, app)).toEqual([]));
  expect(await before.stop()).toBe(0);

  const more = [...old, "switch.new"];
  app.add("switch.new");
  events.push(...(await publishAll(more, 2)));
  await using on = await started("turn", app, more);
  events.push(...(await publishAll(more, 3)));
  await eventually(() => expect(missing(events, app)).toEqual([]));
  const names = ["turn___shared", "turn__switch_2E0", "turn__switch_2E1"];
  expect(await consumers("turn")).toEqual(names);
  expect(await on.stop()).toBe(0);

  events.push(...(await publishAll(more, 4)));
  await using off = await started("turn", app, more, without);
  await off.logged(/has a shared consumer, which keeps its topics/);
  events.push(...(await publishAll(more, 5)));
  await eventually(() => expect(missing(events, app)).toEqual([]));
  expect(await consumers("turn")).toEqual(names);
  expect(app.seen.toSorted()).toEqual(events.toSorted());
}, 120_000);

test("weft groups shows it, and moves a topic out of it", async () => {
  const topics = topicsOf("moved", 5);
  await using app = await subscribedApp(topics);
  await using _sidecar = await started("tools", app, topics);
  const events = await publishAll(topics, 1);
  await eventually(() => expect(missing(events, app)).toEqual([]));
  // The app has the last event before the server knows that it was handled.
  await eventually(async () =>
    expect(await here.weft("groups", "list")).toMatchObject({
      code: 0,
      logs: expect.stringMatching(/tools___shared +5 topics +\d+ +0 +0/),
    }),
  );

  const moved = await here.weft("groups", "move", "tools", "moved.3", "all");
  expect(moved).toMatchObject({ code: 0, logs: expect.stringMatching(/goes on with event 1\b/) });
  expect(await consumers("tools")).toEqual(["tools___shared", "tools__moved_2E3"]);
  await eventually(() => expect(app.seen.filter((it) => it === "moved.3 1")).toHaveLength(2), {
    timeoutMs: 60_000,
  });
  const again = await publishAll(topics, 2);
  await eventually(() => expect(missing(again, app)).toEqual([]));
  expect(await here.weft("groups", "move", "tools", "nothing", "all")).toMatchObject({ code: 1 });
}, 120_000);

test("subscriptions that files and streams bring and take, while events come", async () => {
  const topics = topicsOf("lively", 30);
  await using app = await subscribedApp([]);
  app.on("/on", (request) => {
    const event = request.json<{ topic: string; data: number }>();
    app.seen.push(`${event.topic} ${event.data}`);
  });
  await using sidecar = await startSidecar({
    appId: "lively",
    nats,
    resources: { ...withShared, "keep.yaml": subscription("lively.keep", "/on", "keep") },
    appPort: app.port,
  });
  await sidecar.subscribed("lively.keep");
  const events = await publishAll(["lively.keep"], 0);
  topics.forEach((topic, i) => put(sidecar, `${i}.yaml`, subscription(topic, "/on", `s${i}`)));
  // Some of these come before their topic is subscribed to.
  for (let number = 1; number <= 3; number++)
    events.push(...(await publishAll([...topics, "lively.keep"], number)));
  await eventually(() => expect(missing(events, app)).toEqual([]), { timeoutMs: 60_000 });
  expect(await consumers("lively")).toContain("lively___shared");

  // A stream has a topic of its own while it is open.
  using client = grpcClient(sidecar.grpcPort);
  const stream = client.stream(Dapr.method.subscribeTopicEventsAlpha1);
  const initialRequest = { pubsubName: "pubsub", topic: "lively.stream" };
  stream.send({ subscribeTopicEventsRequestType: { case: "initialRequest", value: initialRequest } });
  await publishAll(["lively.stream"], 7);
  for await (const message of stream) {
    const type = message.subscribeTopicEventsResponseType;
    if (type.case !== "eventMessage") continue;
    expect(Buffer.from(type.value.data).toString()).toBe("7");
    const { id } = type.value;
    stream.send({
      subscribeTopicEventsRequestType: { case: "eventProcessed", value: { id, status: { status: 0 } } },
    });
    break;
  }
  stream.cancel();

  // Those that leave take nothing from those that stay, and keep their place until they come back.
  topics.slice(0, 10).forEach((_, i) => remove(sidecar, `${i}.yaml`));
  const left = await eventually(async () => {
    const { subscriptions } = (await sidecar.get("/v1.0/metadata")).json<{ subscriptions: unknown[] }>();
    return subscriptions.length === 21;
  });
  expect(left).toBe(true);
  for (let number = 4; number <= 6; number++)
    events.push(...(await publishAll([...topics.slice(10), "lively.keep"], number)));
  const waiting = await publishAll(topics.slice(0, 10), 8);
  await eventually(() => expect(missing(events, app)).toEqual([]), { timeoutMs: 60_000 });
  expect(missing(waiting, app)).toEqual(waiting);
  topics.slice(0, 10).forEach((topic, i) => put(sidecar, `${i}.yaml`, subscription(topic, "/on", `s${i}`)));
  await eventually(() => expect(missing(waiting, app)).toEqual([]), { timeoutMs: 90_000 });
}, 300_000);
