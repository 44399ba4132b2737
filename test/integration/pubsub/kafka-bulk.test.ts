// Bulk publish and bulk subscriptions on pubsub.kafka, which does both itself.
import { expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { startKafka } from "../../kit/servers/kafka.ts";
import { pubsubComponent } from "./resources.ts";

type Bulk = {
  readonly entries: readonly { readonly entryId: string; readonly event: { readonly data: unknown } }[];
};

test("many events go in one request and come in batches of 80 by default", async () => {
  await using kafka = await startKafka();
  await using nats = await startNats();
  const retried = new Set<unknown>();
  await using app = await startApp({
    subscriptions: [
      { pubsubname: "pubsub", topic: "orders", route: "/many", bulkSubscribe: { enabled: true } },
    ],
    routes: {
      "/many": (request) => ({
        body: {
          statuses: request.json<Bulk>().entries.map(({ entryId, event }) => {
            const again = event.data === 7 && !retried.has(7);
            retried.add(event.data);
            return { entryId, status: again ? "RETRY" : "SUCCESS" };
          }),
        },
      }),
    },
  });
  const settings = {
    brokers: kafka.address,
    authType: "none",
    initialOffset: "oldest",
    backOffDuration: "50ms",
  };
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    appPort: app.port,
    resources: { "p.yaml": pubsubComponent("pubsub.kafka", { ...settings, maxMessageBytes: "20000" }) },
  });
  await sidecar.logged(/app is subscribed to topic orders/, 60_000);
  const { components } = (await sidecar.get("/v1.0/metadata")).json<{ components: unknown[] }>();
  expect(components).toMatchObject([{ name: "pubsub", capabilities: ["BULK_PUBSUB"] }]);

  const entry = (n: number, event: unknown = n): unknown => ({
    entryId: String(n),
    event,
    contentType: "application/json",
    metadata: { partitionKey: "one" },
  });
  const entries = [...Array.from({ length: 80 }, (_, n) => entry(n)), entry(80, "x".repeat(20_000))];
  const sent = await sidecar.http("/v1.0/publish/bulk/pubsub/orders", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(entries),
  });
  expect(sent.status).toBe(500);
  const { failedEntries } = sent.json<{ failedEntries: { entryId: string; error: string }[] }>();
  expect(failedEntries.map(({ entryId }) => entryId)).toEqual(["80"]);
  expect(failedEntries[0]!.error).toContain("maxMessageBytes 20000");

  // Long before the 10 s that a batch may wait.
  const batches = (): unknown[][] =>
    app.requestsTo("/many").map((request) => request.json<Bulk>().entries.map(({ event }) => event.data));
  await eventually(() => expect(batches()).toHaveLength(2));
  expect(batches()).toEqual([Array.from({ length: 80 }, (_, n) => n), [7]]);
}, 180_000);
