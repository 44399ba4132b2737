// Delayed and scheduled publishes on pubsub.nats: not before their time, not lost, replaced and cancelled by id.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { eventually, grpcClient, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, Nats, Sidecar } from "../../kit/index.ts";
import { pubsubComponent } from "./resources.ts";

type Note = { readonly n: string };
type Got = { readonly n: string; readonly atMs: number; readonly text: string };

/** Names with values as metadata of a publish over HTTP. */
const query = (metadata: Readonly<Record<string, string>>): string =>
  Object.entries(metadata)
    .map(([name, value]) => `metadata.${name}=${encodeURIComponent(value)}`)
    .join("&");

const soon = (afterMs: number): string => new Date(Date.now() + afterMs).toISOString();

async function publish(
  sidecar: Sidecar,
  n: string,
  metadata: Readonly<Record<string, string>>,
  topic = "later",
): Promise<void> {
  const answer = await sidecar.post(`/v1.0/publish/pubsub/${topic}?${query(metadata)}`, { n });
  expect(answer).toMatchObject({ status: 204 });
}

function listeningApp(metadata: Readonly<Record<string, string>> = {}, topic = "later"): Promise<App> {
  return startApp({
    subscriptions: [{ pubsubname: "pubsub", topic, route: "/on", metadata }],
    routes: { "/on": () => undefined },
  });
}

const got = (app: App): Got[] =>
  app.requestsTo("/on").map((request) => {
    const { data } = request.json<{ data: Note }>();
    return { n: data.n, atMs: request.atMs, text: request.body.toString() };
  });

describe("with one server", () => {
  const stack = new AsyncDisposableStack();
  let nats: Nats;
  let app: App;
  let everything: App;
  let sidecar: Sidecar;
  beforeAll(async () => {
    nats = stack.use(await startNats());
    app = stack.use(await listeningApp({ ordered: "true" }));
    const resources = { "p.yaml": pubsubComponent("pubsub.nats", { maxAge: "10s" }) };
    everything = stack.use(await listeningApp({}, ">"));
    const all = stack.use(await startSidecar({ appId: "all", nats, resources, appPort: everything.port }));
    await all.subscribed(">");
    sidecar = stack.use(await startSidecar({ appId: "later", nats, resources, appPort: app.port }));
    await sidecar.subscribed("later");
  }, 60_000);
  afterAll(() => stack.disposeAsync());

  const arrival = (n: string, timeoutMs = 20_000): Promise<Got> =>
    eventually(
      () => {
        const found = got(app).find((it) => it.n === n);
        if (found === undefined) throw new Error(`${n} has not come`);
        return found;
      },
      { timeoutMs },
    );

  test("comes after its delay or at its time, however it was published", async () => {
    using client = grpcClient(sidecar.grpcPort);
    const startMs = Date.now();
    const at = soon(2_000);
    const inGmt = new Date(Date.now() + 3_000).toUTCString();
    await publish(sidecar, "now", {});
    await publish(sidecar, "delay", { delay: "1500ms", other: "kept" });
    await publish(sidecar, "seconds", { Delay: "2" });
    await publish(sidecar, "at", { deliverAt: at });
    await publish(sidecar, "azure", { ScheduledEnqueueTimeUtc: inGmt });
    await publish(sidecar, "key", { delay: "1s", orderingKey: "a" });
    await publish(sidecar, "past", { deliverAt: "2020-01-01T00:00:00+02:00" });
    await publish(sidecar, "raw", { delay: "1s", rawPayload: "true" }, "raw");
    const entry = (n: string, metadata: Record<string, string>) => ({
      entryId: n,
      event: { n },
      contentType: "application/json",
      metadata,
    });
    const bulk = [entry("bulk", { delay: "1s" }), entry("bulk now", {})];
    expect((await sidecar.post("/v1.0/publish/bulk/pubsub/later", bulk)).status).toBe(204);
    await client.unary(Dapr.method.publishEvent, {
      pubsubName: "pubsub",
      topic: "later",
      data: Buffer.from('{"n":"grpc"}'),
      dataContentType: "application/json",
      metadata: { delay: "1s" },
    });
    const delays = {
      now: 0,
      delay: 1_500,
      seconds: 2_000,
      at: 1_900,
      azure: 2_000,
      key: 1_000,
      past: 0,
      bulk: 1_000,
      grpc: 1_000,
    };
    const client2 = await nats.connect();
    const raw = await eventually(async () => {
      const subject = "$JS.API.DIRECT.GET.weft__topics__default__pubsub.weft.default.topic.pubsub.raw";
      const answer = await client2.request(subject, "", { timeout: 2_000 });
      expect(answer.headers?.get("Weft-Raw")).toBe("1");
      return answer;
    });
    expect(raw.string()).toBe('{"n":"raw"}');
    for (const [n, delayMs] of Object.entries(delays)) {
      const { atMs } = await arrival(n);
      const lateMs = atMs - startMs - delayMs;
      expect({ n, inTime: lateMs >= 0 && lateMs < 15_000 }).toEqual({ n, inTime: true });
    }
    expect(got(app).filter(({ n }) => n === "delay")).toHaveLength(1);
    // What waits is no event of any topic.
    await eventually(() => {
      const topics = everything.requestsTo("/on").map((it) => it.json<{ topic?: string }>().topic);
      expect(topics.filter((topic) => topic === "later")).toHaveLength(got(app).length);
      expect(new Set(topics)).toEqual(new Set(["later", undefined]));
    });
  }, 90_000);

  test("a delay beyond the age limit of the stream does not make it vanish", async () => {
    const startMs = Date.now();
    await publish(sidecar, "beyond", { delay: "12s" });
    expect((await arrival("beyond", 40_000)).atMs - startMs).toBeGreaterThan(11_500);
  }, 60_000);

  test("is replaced and cancelled by scheduleId or by its own id; a retry is stored once", async () => {
    // Long enough to be taken back in time, on a slow machine too.
    await publish(sidecar, "first", { delay: "6s", scheduleId: "s/1 é" });
    await publish(sidecar, "second", { delay: "1s", scheduleId: "s/1 é" });
    await publish(sidecar, "never", { delay: "6s", scheduleId: "s2" });
    await publish(sidecar, "", { cancelSchedule: "true", scheduleId: "s2" });
    await publish(sidecar, "nor this", { delay: "6s", "cloudevent.id": "e1" });
    await publish(sidecar, "", { cancelSchedule: "true", "cloudevent.id": "e1" });
    await publish(sidecar, "", { cancelSchedule: "true", scheduleId: "nothing waits" });
    for (let i = 0; i < 3; i++) await publish(sidecar, "once", { delay: "1s", "cloudevent.id": "e2" });
    await publish(sidecar, "early", { delay: "60s", "cloudevent.id": "e3" });
    await publish(sidecar, "moved", { delay: "1s", "cloudevent.id": "e3" });
    await arrival("second");
    await arrival("moved");
    await publish(sidecar, "last", { delay: "6s" });
    await arrival("last");
    const names = got(app).map(({ n }) => n);
    for (const n of ["first", "never", "nor this", "early"]) expect(names).not.toContain(n);
    expect(names.filter((n) => n === "once")).toHaveLength(1);
  }, 60_000);

  test("what was cancelled or replaced may be published again with the same id and the same delay", async () => {
    const again = { delay: "1s", "cloudevent.id": "e4" };
    const cancel = { cancelSchedule: "true", "cloudevent.id": "e4" };
    for (const metadata of [again, cancel, again, again, cancel, again])
      await publish(sidecar, "back", metadata);
    const first = { delay: "1s", "cloudevent.id": "e5" };
    for (const metadata of [first, { ...first, delay: "60s" }, first])
      await publish(sidecar, "turned", metadata);
    await arrival("back");
    await arrival("turned");
    await publish(sidecar, "end", { delay: "1s" });
    await arrival("end");
    const names = got(app).map(({ n }) => n);
    expect(names.filter((n) => n === "back" || n === "turned")).toHaveLength(2);
    // It has gone out, so this is a repeated one.
    await publish(sidecar, "back", again);
    await publish(sidecar, "end of all", { delay: "2s" });
    await arrival("end of all");
    expect(got(app).filter(({ n }) => n === "back")).toHaveLength(1);
  }, 60_000);

  test.each([
    [{ delay: "soon" }, 'metadata field "delay": "soon" is no time'],
    [{ delay: "-5s" }, 'metadata field "delay": "-5s" is in the past'],
    [{ delay: "1000000h" }, "more than 100 years away"],
    [{ delay: "9999999999999999999999999999h" }, 'metadata field "delay"'],
    [
      { deliverAt: "tomorrow" },
      'metadata field "deliverAt": "tomorrow" is no time; write it as 2030-01-31T08:00:00Z',
    ],
    [{ deliverAt: "2030-13-01T00:00:00Z" }, 'metadata field "deliverAt"'],
    [{ deliverAt: "2030-01-01" }, 'metadata field "deliverAt"'],
    [{ ScheduledEnqueueTimeUtc: "x" }, 'metadata field "ScheduledEnqueueTimeUtc"'],
    [
      { delay: "1s", deliverAt: "2030-01-01T00:00:00Z" },
      'metadata field "deliverAt": delay says already when',
    ],
    [{ scheduleId: "a" }, 'metadata field "scheduleId": it needs delay or deliverAt'],
    [{ scheduleId: "a".repeat(300), delay: "1s" }, 'metadata field "scheduleId": it has 300 bytes'],
    [{ cancelSchedule: "perhaps" }, 'metadata field "cancelSchedule"'],
    [{ cancelSchedule: "true" }, 'metadata field "cancelSchedule": it needs the scheduleId'],
    [{ cancelSchedule: "true", scheduleId: "a", delay: "1s" }, 'metadata field "cancelSchedule"'],
    [{ delay: "10s", ttlInSeconds: "5" }, 'metadata field "ttlInSeconds"'],
  ])("%j is refused", async (metadata, words) => {
    const answer = await sidecar.post(`/v1.0/publish/pubsub/later?${query(metadata)}`, {});
    expect([answer.status, answer.json()]).toMatchObject([
      400,
      { errorCode: "ERR_PUBSUB_REQUEST_METADATA", message: expect.stringContaining(words) },
    ]);
  });
});

test("a component that drops what is too much takes no events that would wait", async () => {
  await using nats = await startNats();
  const resources = { "p.yaml": pubsubComponent("pubsub.nats", { maxBytes: "1000000" }) };
  await using sidecar = await startSidecar({ appId: "full", nats, resources });
  const answer = await sidecar.post("/v1.0/publish/pubsub/later?metadata.delay=1s", {});
  expect([answer.status, answer.text]).toEqual([
    400,
    expect.stringContaining("maxBytes drops events that wait"),
  ]);
  await publish(sidecar, "now", {});
}, 60_000);

test("kill -9 of nats-server and of both sidecars while events wait: all come, none before its time", async () => {
  await using nats = await startNats();
  await using app = await listeningApp();
  const resources = { "p.yaml": pubsubComponent("pubsub.nats", { ackWait: "2s" }) };
  await using shop = await startSidecar({ appId: "shop", nats, resources });
  await using sidecar = await startSidecar({ appId: "later", nats, resources, appPort: app.port });
  await sidecar.subscribed("later");
  const due = new Map<string, number>();
  await Promise.all(
    Array.from({ length: 200 }, async (_, i) => {
      const delayMs = 1_000 + i * 30;
      due.set(String(i), Date.now() + delayMs);
      await publish(shop, String(i), { delay: `${delayMs}ms` });
    }),
  );
  await shop.kill();
  await app.received("/on", 20);
  await nats.kill();
  await sidecar.kill();
  await nats.restart();
  await sidecar.restart();
  await eventually(() => expect(new Set(got(app).map(({ n }) => n)).size).toBe(200), { timeoutMs: 60_000 });
  const early = got(app).filter(({ n, atMs }) => atMs < due.get(n)!);
  expect(early).toEqual([]);
}, 120_000);
