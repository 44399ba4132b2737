// Subscriptions and pub/sub components that change while events flow.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  eventually,
  grpcClient,
  type Nats,
  type Sidecar,
  startApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { component, hasComponents, loggedSince, put, remove, subscription } from "./place.ts";

let nats: Nats;
beforeAll(async () => {
  nats = await startNats();
});
afterAll(async () => {
  await nats?.[Symbol.asyncDispose]();
});

const pubsub = (ackWait = "30s"): string => component("pubsub", "pubsub.nats", { ackWait, backOff: "50ms" });

async function publish(sidecar: Sidecar, topic: string, data: unknown): Promise<void> {
  const reply = await sidecar.post(`/v1.0/publish/pubsub/${topic}`, data);
  expect(reply.status).toBe(204);
}

test("a Subscription is added, changed and removed", async () => {
  await using app = await startApp({ fallback: () => ({}) });
  await using sidecar = await startSidecar({
    appId: "added",
    appPort: app.port,
    nats,
    resources: { "pubsub.yaml": pubsub() },
  });
  put(sidecar, "sub.yaml", subscription("orders", "/one"));
  await sidecar.subscribed("orders");
  await publish(sidecar, "orders", 1);
  await app.received("/one", 1);

  put(sidecar, "sub.yaml", subscription("orders", "/two"));
  await eventually(
    async () => {
      await publish(sidecar, "orders", 2);
      await app.received("/two", 1, 500);
    },
    { timeoutMs: 30_000 },
  );

  // A rule that cannot be run leaves the subscription as it was.
  const from = sidecar.logs().length;
  const wrong = "    rules:\n    - { match: 'event.type ==', path: /never }\n";
  put(sidecar, "sub.yaml", subscription("orders", "/two").replace("    default", `${wrong}    default`));
  await loggedSince(sidecar, from, /sub\.yaml:1: subscription sub: .*; it goes on as before/);
  const before = app.requestsTo("/two").length;
  await publish(sidecar, "orders", 3);
  await app.received("/two", before + 1);

  remove(sidecar, "sub.yaml");
  await eventually(
    async () => {
      const reply = await sidecar.get("/v1.0/metadata");
      expect(reply.json<{ subscriptions?: unknown[] }>().subscriptions ?? []).toEqual([]);
    },
    { timeoutMs: 30_000 },
  );
});

test("a pub/sub component that comes later: the app is asked then, and gets its events", async () => {
  await using app = await startApp();
  app.subscribe({ pubsubname: "pubsub", topic: "late", route: "/late" });
  await using sidecar = await startSidecar({ appId: "late", appPort: app.port, nats, resources: {} });
  put(sidecar, "pubsub.yaml", pubsub());
  await hasComponents(sidecar, ["pubsub"]);
  await sidecar.subscribed("late");
  await publish(sidecar, "late", 1);
  await app.received("/late", 1);
});

test("no event is lost while its component is replaced again and again", async () => {
  await using app = await startApp();
  const got = new Set<number>();
  app.subscribe({ pubsubname: "pubsub", topic: "flow", route: "/flow" }, (request) => {
    got.add(request.json<{ data: number }>().data);
    return {};
  });
  await using sidecar = await startSidecar({
    appId: "flow",
    appPort: app.port,
    nats,
    resources: { "pubsub.yaml": pubsub() },
  });
  await using sender = await startSidecar({ appId: "sender", nats, resources: { "pubsub.yaml": pubsub() } });
  await sidecar.subscribed("flow");
  let sent = 0;
  for (let round = 0; round < 5; round++) {
    const from = sidecar.logs().length;
    put(sidecar, "pubsub.yaml", pubsub(`${20 + round}s`));
    const replaced = loggedSince(sidecar, from, /app is subscribed to topic flow/);
    for (let i = 0; i < 20; i++) await publish(sender, "flow", ++sent);
    await replaced;
  }
  // An event in hand when its component was replaced comes again after ackWait, 24 s at most.
  await eventually(() => expect(got.size).toBe(sent), { timeoutMs: 60_000 });
});

test("a stream ends when its component is replaced or removed, and its client can open it again", async () => {
  const resources = { "pubsub.yaml": component("pubsub", "pubsub.in-memory") };
  await using sidecar = await startSidecar({ appId: "stream", nats, resources });
  using client = grpcClient(sidecar.grpcPort);
  const open = async (n: number): Promise<() => Promise<string>> => {
    const stream = client.stream(Dapr.method.subscribeTopicEventsAlpha1);
    const value = { pubsubName: "pubsub", topic: "t", metadata: {} };
    stream.send({ subscribeTopicEventsRequestType: { case: "initialRequest", value } });
    const next = async (): Promise<string> => {
      const response = (await stream.next())?.subscribeTopicEventsResponseType;
      if (response?.case !== "eventMessage") return response?.case ?? "end";
      const { id } = response.value;
      stream.send({
        subscribeTopicEventsRequestType: { case: "eventProcessed", value: { id, status: { status: 0 } } },
      });
      return Buffer.from(response.value.data).toString();
    };
    expect(await next()).toBe("initialResponse");
    await publish(sidecar, "t", n);
    expect(await next()).toBe(String(n));
    return next;
  };
  const closed = { code: 2, details: "stream closed" };
  const first = await open(1);
  put(sidecar, "pubsub.yaml", pubsub());
  await expect(first()).rejects.toMatchObject(closed);
  const second = await open(2);
  remove(sidecar, "pubsub.yaml");
  await expect(second()).rejects.toMatchObject(closed);
});
