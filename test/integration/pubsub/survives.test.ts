// No acknowledged event is lost when a process dies.
import { expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { Sidecar } from "../../kit/index.ts";
import { pubsubComponent } from "./resources.ts";

const resources = { "p.yaml": pubsubComponent("pubsub.nats", { backOff: "50ms", ackWait: "3s" }) };
const subscriptions = [{ pubsubname: "pubsub", topic: "orders", route: "/orders" }];
const path = "/v1.0/publish/pubsub/orders";

/** Publishes the numbers one after the other, 32 at once; gives those that were acknowledged. */
async function publishAll(
  sidecar: Sidecar,
  count: number,
  afterEach: (published: number) => void,
): Promise<number[]> {
  const acknowledged: number[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < count) {
      const number = next++;
      const answer = await sidecar.post(path, number).catch(() => undefined);
      if (answer?.status === 204) acknowledged.push(number);
      afterEach(acknowledged.length);
    }
  };
  await Promise.all(Array.from({ length: 32 }, work));
  return acknowledged;
}

test("kill -9 of the subscriber's sidecar during 10,000 publishes: all are delivered after it returns", async () => {
  await using nats = await startNats();
  const seen = new Set<number>();
  await using app = await startApp({ subscriptions });
  app.on("/orders", (request) => void seen.add(request.json<{ data: number }>().data));
  await using publisher = await startSidecar({ appId: "shop", nats, resources });
  await using subscriber = await startSidecar({ appId: "mail", nats, resources, appPort: app.port });
  await subscriber.subscribed("orders");
  let killed: Promise<unknown> | undefined;
  const acknowledged = await publishAll(publisher, 10_000, (published) => {
    if (published >= 3_000) killed ??= subscriber.kill();
  });
  await killed;
  expect(acknowledged).toHaveLength(10_000);
  expect(seen.size).toBeLessThan(10_000);
  await subscriber.restart();
  await eventually(() => expect(seen.size).toBe(10_000), { timeoutMs: 40_000 });
}, 120_000);

test("kill -9 of nats-server: what was acknowledged is delivered, and nothing needs a restart", async () => {
  await using nats = await startNats();
  const seen = new Set<number>();
  await using app = await startApp({ subscriptions });
  app.on("/orders", (request) => void seen.add(request.json<{ data: number }>().data));
  await using sidecar = await startSidecar({ appId: "mail", nats, resources, appPort: app.port });
  await sidecar.subscribed("orders");
  let restarted: Promise<void> | undefined;
  const acknowledged = await publishAll(sidecar, 3_000, (published) => {
    if (published >= 1_000) restarted ??= nats.kill().then(() => nats.restart());
  });
  await restarted;
  await eventually(async () => expect((await sidecar.post(path, 3_000)).status).toBe(204));
  acknowledged.push(3_000);
  expect(acknowledged.length).toBeGreaterThan(1_000);
  const lost = (): number[] => acknowledged.filter((number) => !seen.has(number));
  await eventually(() => expect(lost()).toEqual([]), {
    timeoutMs: 40_000,
  });
}, 120_000);

test("a sidecar that stops finishes the event in its handler and leaves the ones behind it", async () => {
  await using nats = await startNats();
  await using app = await startApp({ subscriptions });
  let release = (): void => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  app.on("/orders", () => gate.then(() => undefined));
  const slow = { "p.yaml": pubsubComponent("pubsub.nats", { concurrency: "1", ackWait: "20s" }) };
  await using publisher = await startSidecar({ appId: "shop", nats, resources });
  await using subscriber = await startSidecar({ appId: "mail", nats, resources: slow, appPort: app.port });
  await subscriber.subscribed("orders");
  for (const number of [1, 2, 3]) await publisher.post(path, number);
  await app.received("/orders", 1);
  const stopped = subscriber.stop();
  await subscriber.logged(/stop|shut/i);
  release();
  expect(await stopped).toBe(0);
  expect(app.requestsTo("/orders")).toHaveLength(1);
  await subscriber.restart();
  const all = await app.received("/orders", 3);
  expect(all.map((request) => request.json<{ data: number }>().data)).toEqual([1, 2, 3]);
}, 60_000);
