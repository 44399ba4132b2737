// CEL routing and bulk subscriptions, over HTTP and gRPC, through real sidecars on pubsub.nats.
import { expect, test } from "vitest";
import * as appcallback from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import {
  type AppRequest,
  eventually,
  startApp,
  startGrpcApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { pubsubComponent } from "./resources.ts";

const { TopicEventResponse_TopicEventResponseStatus: Status } = appcallback;

const resources = { "p.yaml": pubsubComponent("pubsub.nats", { backOff: "50ms" }) };
const json = { "Content-Type": "application/json" };

function subscriptionFile(spec: string): string {
  const head = "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: { name: s }\n";
  return `${head}spec:\n  pubsubname: pubsub\n${spec}`;
}

type Bulk = {
  readonly id: string;
  readonly topic: string;
  readonly pubsubname: string;
  readonly type: string;
  readonly metadata: unknown;
  readonly entries: readonly {
    readonly entryId: string;
    readonly event: { readonly id: string; readonly data: unknown };
    readonly contentType: string;
    readonly metadata: unknown;
  }[];
};

test("the first rule that is true says where an event goes; one that fails goes to the dead letters", async () => {
  await using nats = await startNats();
  await using app = await startApp({ fallback: () => undefined });
  const rules = [
    `      - { match: 'event.type == "order.v2" && event.data.total > 10', path: /big }`,
    `      - { match: 'has(event.data.tag) && event.data.tag in ["a", "b"]', path: /tagged }`,
    `      - { match: 'event.data.missing == 1', path: /never }`,
  ].join("\n");
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    appPort: app.port,
    resources: {
      ...resources,
      "s.yaml": subscriptionFile(
        `  topic: orders\n  deadLetterTopic: dead\n  routes:\n    rules:\n${rules}\n    default: /rest\n`,
      ),
      "d.yaml": subscriptionFile(`  topic: dead\n  routes: { default: /dead }\n`).replace(
        "name: s",
        "name: d",
      ),
    },
  });
  await sidecar.subscribed("orders");
  const publish = async (data: unknown, type = "order.v1"): Promise<void> => {
    const { status } = await sidecar.http(`/v1.0/publish/pubsub/orders?metadata.cloudevent.type=${type}`, {
      method: "POST",
      headers: json,
      body: JSON.stringify(data),
    });
    expect(status).toBe(204);
  };
  await publish({ total: 11 }, "order.v2");
  await publish({ tag: "b" });
  await publish({ missing: 1 });
  await publish({ missing: 2 });
  await publish({ other: 1 });
  const data = (request: AppRequest): unknown => request.json<{ data: unknown }>().data;
  expect((await app.received("/big", 1)).map(data)).toEqual([{ total: 11 }]);
  expect((await app.received("/tagged", 1)).map(data)).toEqual([{ tag: "b" }]);
  expect((await app.received("/never", 1)).map(data)).toEqual([{ missing: 1 }]);
  expect((await app.received("/rest", 1)).map(data)).toEqual([{ missing: 2 }]);
  expect((await app.received("/dead", 1)).map(data)).toEqual([{ other: 1 }]);
  const listed = (await sidecar.http("/v1.0/metadata")).json<{
    subscriptions: { topic: string; rules: unknown }[];
  }>();
  expect(listed.subscriptions.find(({ topic }) => topic === "orders")!.rules).toContainEqual({
    match: "event.data.missing == 1",
    path: "/never",
  });
});

test("a resource with a rule that is no expression ends the start and names file and line", async () => {
  await using nats = await startNats();
  await using app = await startApp();
  const broken = subscriptionFile(
    "  topic: t\n  routes: { rules: [{ match: 'event.type ==', path: /a }] }\n",
  );
  const starting = startSidecar({
    appId: "shop",
    nats,
    appPort: app.port,
    resources: { ...resources, "s.yaml": broken },
  });
  await expect(starting).rejects.toThrow(/s\.yaml:1: subscription s: routing rule .* is no CEL expression/);
});

test("an HTTP app gets events of a bulk subscription together and answers for each", async () => {
  await using nats = await startNats();
  await using app = await startApp({
    subscriptions: [
      {
        pubsubname: "pubsub",
        topic: "orders",
        route: "/many",
        deadLetterTopic: "dead",
        bulkSubscribe: { enabled: true, maxMessagesCount: 20, maxAwaitDurationMs: 2_000 },
      },
      { pubsubname: "pubsub", topic: "dead", route: "/dead" },
    ],
    routes: {
      "/dead": () => undefined,
      "/many": (request) => {
        const { entries } = request.json<Bulk>();
        return {
          body: {
            statuses: entries.map(({ entryId, event }) => ({
              entryId,
              status: event.data === 7 ? "DROP" : event.data === 8 ? "RETRY" : "SUCCESS",
            })),
          },
        };
      },
    },
  });
  await using sidecar = await startSidecar({ appId: "shop", nats, appPort: app.port, resources });
  await sidecar.subscribed("orders");
  const entries = Array.from({ length: 40 }, (_, i) => ({
    entryId: String(i),
    event: i,
    contentType: "application/json",
  }));
  const sent = await sidecar.http("/v1.0/publish/bulk/pubsub/orders", {
    method: "POST",
    headers: json,
    body: JSON.stringify(entries),
  });
  expect(sent.status).toBe(204);
  const seen = (): unknown[] =>
    app.requestsTo("/many").flatMap((request) => request.json<Bulk>().entries.map(({ event }) => event.data));
  await eventually(() => expect(new Set(seen()).size).toBe(40));
  // Each left the broker after its answer: what was dropped or retried is in the dead letters, nothing comes twice.
  const dead = await app.received("/dead", 2);
  expect(dead.map((request) => request.json<{ data: number }>().data)).toEqual(
    expect.arrayContaining([7, 8]),
  );
  expect(seen()).toHaveLength(40);
  const [first] = app.requestsTo("/many");
  expect(first!.headers["content-type"]).toBe("application/json");
  const bulk = first!.json<Bulk>();
  expect(bulk).toMatchObject({
    topic: "orders",
    pubsubname: "pubsub",
    type: "com.dapr.event.sent.bulk",
    metadata: { pubsubName: "pubsub" },
  });
  expect(bulk.entries[0]).toMatchObject({
    contentType: "application/cloudevents+json",
    event: { pubsubname: "pubsub", specversion: "1.0", topic: "orders" },
  });
  expect(app.requestsTo("/many").length).toBeLessThan(20);
});

test("a gRPC app gets events of a bulk subscription together; a raw one gets the bytes", async () => {
  await using nats = await startNats();
  await using app = await startGrpcApp({
    subscriptions: [
      { pubsubName: "pubsub", topic: "orders", bulkSubscribe: { enabled: true, maxAwaitDurationMs: 300 } },
      {
        pubsubName: "pubsub",
        topic: "raw",
        metadata: { rawPayload: "true" },
        bulkSubscribe: { enabled: true, maxAwaitDurationMs: 300 },
      },
    ],
    onBulkTopicEvent: ({ entries }) => entries.map(({ entryId }) => ({ entryId, status: Status.SUCCESS })),
  });
  await using sidecar = await startSidecar({
    appId: "shop",
    nats,
    appPort: app.port,
    appProtocol: "grpc",
    resources,
  });
  await sidecar.subscribed("raw");
  for (const [topic, query] of [
    ["orders", ""],
    ["raw", "?metadata.rawPayload=true"],
  ] as const) {
    for (let i = 0; i < 5; i++) {
      await sidecar.http(`/v1.0/publish/pubsub/${topic}${query}`, {
        method: "POST",
        headers: json,
        body: `{"i":${i}}`,
      });
    }
  }
  const entries = (topic: string): (typeof app.bulkEvents)[number]["request"]["entries"] =>
    app.bulkEvents.filter(({ request }) => request.topic === topic).flatMap(({ request }) => request.entries);
  await eventually(() => expect([entries("orders").length, entries("raw").length]).toEqual([5, 5]));
  const data = (entry: ReturnType<typeof entries>[number]): string => {
    const { event } = entry;
    return Buffer.from(event.case === "bytes" ? event.value : (event.value?.data ?? [])).toString();
  };
  for (const topic of ["orders", "raw"]) {
    expect(entries(topic).map(data).sort()).toEqual([0, 1, 2, 3, 4].map((i) => `{"i":${i}}`));
  }
  expect(entries("orders")[0]!.event.case).toBe("cloudEvent");
  expect(entries("raw")[0]!.event.case).toBe("bytes");
});
