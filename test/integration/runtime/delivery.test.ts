// kill -9 of the subscriber's sidecar during 10,000 publishes: all are delivered after it returns.
import { expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { nativeComponents, ordersSubscription } from "./resources.ts";

const events = 10_000;
const parallel = 64;

test("every acknowledged publish is delivered after the subscriber's sidecar was killed and came back", async () => {
  await using nats = await startNats();
  const seen = new Set<number>();
  await using app = await startApp({
    routes: { "/orders": (request) => void seen.add(request.json<{ data: { n: number } }>().data.n) },
  });
  await using publisher = await startSidecar({
    appId: "publisher",
    nats,
    resources: { "c.yaml": nativeComponents },
  });
  await using subscriber = await startSidecar({
    appId: "subscriber",
    appPort: app.port,
    nats,
    resources: { "c.yaml": nativeComponents, "s.yaml": ordersSubscription },
  });
  await subscriber.subscribed("orders");

  let next = 0;
  const publishAll = async (): Promise<void> => {
    while (next < events) {
      const n = next++;
      const answer = await publisher.post("/v1.0/publish/pubsub/orders", { n });
      expect(answer.status).toBe(204);
    }
  };
  const publishing = Promise.all(Array.from({ length: parallel }, publishAll));
  await eventually(() => expect(seen.size).toBeGreaterThan(events / 10), { timeoutMs: 30_000 });
  await subscriber.kill("SIGKILL");
  const seenAtKill = seen.size;
  expect(seenAtKill).toBeLessThan(events);
  await publishing;
  await subscriber.restart();
  // What the killed one had in hand comes again after ackWait, 30 s.
  await eventually(() => expect(seen.size).toBe(events), { timeoutMs: 90_000 });
});
