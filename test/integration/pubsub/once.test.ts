// A client that repeats a publish with the same id: pubsub.nats stores it once within its window.
import { expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { pubsubComponent } from "./resources.ts";

test("the same cloudevent.id is stored once, from any sidecar, within the window and the topic", async () => {
  await using nats = await startNats();
  await using app = await startApp({ fallback: () => undefined });
  for (const topic of ["a", "b"]) app.subscribe({ pubsubname: "pubsub", topic, route: `/${topic}` });
  const resources = { "p.yaml": pubsubComponent("pubsub.nats", { duplicateWindow: "10s" }) };
  await using one = await startSidecar({ appId: "shop", nats, resources });
  await using two = await startSidecar({ appId: "shop", nats, resources, appPort: app.port });
  await two.subscribed("b");
  const path = (topic: string, more = ""): string =>
    `/v1.0/publish/pubsub/${topic}?metadata.cloudevent.id=7${more}`;
  const own = {
    method: "POST",
    headers: { "content-type": "application/cloudevents+json" },
    body: JSON.stringify({ specversion: "1.0", id: "own", source: "/till", type: "t", data: 1 }),
  };
  for (const sidecar of [one, two, one]) {
    expect((await sidecar.post(path("a"), 1)).status).toBe(204);
    expect((await sidecar.post(path("a", "&metadata.orderingKey=k"), 1)).status).toBe(204);
    expect((await sidecar.http("/v1.0/publish/pubsub/a", own)).status).toBe(204);
  }
  expect((await one.post(path("b"), 1)).status).toBe(204);
  expect((await one.post("/v1.0/publish/pubsub/a?metadata.cloudevent.id=8", 1)).status).toBe(204);
  const ids = (): string[] => app.requestsTo("/a").map((request) => request.json<{ id: string }>().id);
  await app.received("/b", 1);
  await eventually(() => expect(ids()).toContain("8"));
  expect(new Set(ids())).toEqual(new Set(["7", "8", "own"]));
  expect(ids()).toHaveLength(3);
  // The server forgets the id by its own clock.
  await eventually(
    async () => {
      await one.post(path("a"), 1);
      expect(ids().filter((id) => id === "7").length).toBeGreaterThan(1);
    },
    { timeoutMs: 40_000, everyMs: 200 },
  );
}, 90_000);
