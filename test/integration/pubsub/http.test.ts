// Publish and subscribe over HTTP, through real sidecars on pubsub.nats.
import { expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { type Event, pubsubComponent, subscription } from "./resources.ts";

const pubsub = pubsubComponent("pubsub.nats", { backOff: "50ms" });
const json = { "content-type": "application/json" };

test("an event goes from one app to another, as an envelope with its metadata", async () => {
  await using nats = await startNats();
  await using app = await startApp({
    subscriptions: [{ pubsubname: "pubsub", topic: "orders", route: "/orders" }],
  });
  app.on("/orders", () => ({}));
  await using publisher = await startSidecar({ appId: "shop", nats, resources: { "p.yaml": pubsub } });
  await using subscriber = await startSidecar({
    appId: "mail",
    nats,
    resources: { "p.yaml": pubsub },
    appPort: app.port,
  });
  await subscriber.subscribed("orders");
  const path = "/v1.0/publish/pubsub/orders?metadata.ttlInSeconds=60&metadata.Note=gr%C3%BCn";
  const answer = await publisher.http(path, {
    method: "POST",
    headers: json,
    body: '{ "total": 1.0, "id": 7 }',
  });
  expect([answer.status, answer.text]).toEqual([204, ""]);
  const [request] = await app.received("/orders", 1);
  const { id, time, expiration } = request!.json<Event & { time: string; expiration: string }>();
  expect(request!.body.toString()).toBe(
    `{"data":{"id":7,"total":1.0},"datacontenttype":"application/json","expiration":"${expiration}","id":"${id}",` +
      `"pubsubname":"pubsub","source":"shop","specversion":"1.0","time":"${time}","topic":"orders","traceid":"",` +
      '"traceparent":"","tracestate":"","type":"com.dapr.event.sent"}',
  );
  expect(request!.headers).toMatchObject({
    "content-type": "application/cloudevents+json",
    pubsubname: "pubsub",
    ttlinseconds: "60",
    note: Buffer.from("grün").toString("latin1"),
    traceparent: `00-${"0".repeat(32)}-${"0".repeat(16)}-00`,
  });
  expect((await subscriber.get("/v1.0/metadata")).json()).toMatchObject({
    subscriptions: [
      {
        pubsubname: "pubsub",
        topic: "orders",
        rules: [{ path: "/orders" }],
        deadLetterTopic: "",
        type: "PROGRAMMATIC",
      },
    ],
  });
});

test("subscriptions in files of both versions work, and events published before the app are not missed", async () => {
  await using nats = await startNats();
  await using app = await startApp({ fallback: () => ({}) });
  const v1 = [
    "apiVersion: dapr.io/v1alpha1\nkind: Subscription\nmetadata: { name: one }\n",
    "spec: { pubsubname: pubsub, topic: one, route: /v1, metadata: { rawPayload: true } }\n",
  ].join("");
  const foreign = `${subscription("foreign", "/foreign")}scopes: [other]\n`;
  const resources = {
    "p.yaml": pubsub,
    "1.yaml": v1,
    "2.yaml": subscription("two", "/v2"),
    "3.yaml": foreign,
  };
  await using publisher = await startSidecar({ appId: "shop", nats, resources: { "p.yaml": pubsub } });
  await publisher.http("/v1.0/publish/pubsub/two", { method: "POST", headers: json, body: "1" });
  await using subscriber = await startSidecar({ appId: "mail", nats, resources, appPort: app.port });
  expect((await app.received("/v2", 1))[0]!.json<Event>().data).toBe(1);
  await publisher.http("/v1.0/publish/pubsub/one?metadata.rawPayload=true", {
    method: "POST",
    body: "raw bytes",
  });
  const [raw] = await app.received("/v1", 1);
  expect(raw!.json()).toMatchObject({ data_base64: "cmF3IGJ5dGVz", topic: "one", source: "Dapr" });
  const listed = (await subscriber.get("/v1.0/metadata")).json<{ subscriptions: { topic: string }[] }>();
  expect(listed.subscriptions.map(({ topic }) => topic)).toEqual(["one", "two"]);
});

test("RETRY comes again, DROP and 404 do not, and dead letters arrive", async () => {
  await using nats = await startNats();
  const route = (topic: string, deadLetterTopic?: string): object => ({
    pubsubname: "pubsub",
    topic,
    route: `/${topic}`,
    ...(deadLetterTopic === undefined ? {} : { deadLetterTopic }),
  });
  await using app = await startApp({
    subscriptions: [
      route("again"),
      route("drop", "dead"),
      route("gone"),
      route("bad", "dead"),
      route("dead"),
    ] as never,
    fallback: () => ({}),
  });
  let tries = 0;
  app.on("/again", () => (++tries < 3 ? { body: { status: "RETRY" } } : {}));
  app.on("/drop", () => ({ body: { status: "DROP" } }));
  app.on("/gone", () => ({ status: 404 }));
  app.on("/bad", () => ({ status: 500 }));
  await using sidecar = await startSidecar({
    appId: "mail",
    nats,
    resources: { "p.yaml": pubsub },
    appPort: app.port,
  });
  await sidecar.subscribed("dead");
  for (const topic of ["again", "drop", "gone", "bad"]) {
    await sidecar.http(`/v1.0/publish/pubsub/${topic}`, {
      method: "POST",
      headers: json,
      body: `"${topic}"`,
    });
  }
  const again = await app.received("/again", 3);
  expect(new Set(again.map(({ body }) => body.toString())).size).toBe(1);
  const dead = await app.received("/dead", 2);
  const found = new Set(
    dead.map((request) => [request.json<Event>().data, request.json<Event>()["topic"]].join()),
  );
  expect(found).toEqual(new Set(["bad,bad", "drop,drop"]));
  await app.received("/gone", 1);
  const counts = ["/again", "/drop", "/gone", "/bad", "/dead"].map((path) => app.requestsTo(path).length);
  expect(counts).toEqual([3, 1, 1, 1, 2]);
  await eventually(async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${sidecar.metricsPort}/`)).text();
    expect(metrics).toMatch(
      /dapr_component_pubsub_ingress_count\{[^}]*process_status="retry"[^}]*topic="again"[^}]*\} 2/,
    );
    expect(metrics).toMatch(
      /dapr_component_pubsub_egress_count\{[^}]*success="true"[^}]*topic="dead"[^}]*\} 2/,
    );
  });
});

test("bad input gets an answer that names the fault, and the sidecar lives on", async () => {
  await using nats = await startNats();
  const component = pubsubComponent("pubsub.nats", {
    publishingScopes: "shop=orders",
    protectedTopics: "secret",
  });
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: { "p.yaml": component } });
  const publish = (path: string, body = "1", headers = {}): Promise<{ status: number; text: string }> =>
    sidecar.http(`/v1.0/publish/${path}`, { method: "POST", headers, body });
  const coded = async (call: ReturnType<typeof publish>): Promise<[number, string]> => {
    const { status, text } = await call;
    return [status, (JSON.parse(text) as { errorCode: string }).errorCode];
  };
  expect(await coded(publish("nope/orders"))).toEqual([404, "ERR_PUBSUB_NOT_FOUND"]);
  expect(await coded(publish("pubsub/secret"))).toEqual([403, "ERR_PUBSUB_FORBIDDEN"]);
  expect(await coded(publish("pubsub/orders?metadata.rawPayload=maybe"))).toEqual([
    400,
    "ERR_PUBSUB_REQUEST_METADATA",
  ]);
  const cloudEvents = { "content-type": "application/cloudevents+json" };
  for (const body of ["", "null", "[1]", "{"]) {
    expect(await coded(publish("pubsub/orders", body, cloudEvents))).toEqual([
      500,
      "ERR_PUBSUB_CLOUD_EVENTS_SER",
    ]);
  }
  const large = await publish("pubsub/orders", "x".repeat(2 * 1024 * 1024));
  expect(large.status).toBe(500);
  expect(large.text).toMatch(/ERR_PUBSUB_PUBLISH_MESSAGE.*max_payload/);
  expect((await publish("pubsub/orders")).status).toBe(204);
});

test("pubsub.in-memory serves the app of the same sidecar", async () => {
  await using nats = await startNats();
  await using app = await startApp({ subscriptions: [{ pubsubname: "pubsub", topic: "a*", route: "/any" }] });
  const seen: unknown[] = [];
  app.on("/any", (request) => void seen.push(request.json<Event>()["topic"]));
  const resources = { "p.yaml": pubsubComponent("pubsub.in-memory") };
  // Whoever waited for it to be ready is not too early, though nothing is stored.
  await using sidecar = await startSidecar({ appId: "shop", nats, resources, appPort: app.port });
  for (const topic of ["ab", "b", "ac"])
    await sidecar.http(`/v1.0/publish/pubsub/${topic}`, { method: "POST", body: "x" });
  await eventually(() => expect(seen).toEqual(["ab", "ac"]));
});
