// Servers that are away at the start or for some seconds: `npm run soak` has the same with 30 s and killed servers.
import { expect, test } from "vitest";
import { eventually, faultProxy, startApp, startNats, startSidecar } from "../../kit/index.ts";
import { binding } from "../bindings/resources.ts";
import { loopBrokers, outputBrokers, pubsubBrokers } from "./brokers.ts";
import { component, loopOutage, type Outcome, post, pubsubOutage, told, works } from "./scenario.ts";

const outageMs = 3_000;
const limitMs = 240_000;

function expectKept({ acked, lost, slowestMs }: Outcome): void {
  expect(lost).toEqual([]);
  expect(acked).toBeGreaterThan(20);
  expect(slowestMs).toBeLessThan(60_000);
}

test.each(Object.entries(pubsubBrokers))(
  "%s comes when its broker does, and goes on after an outage",
  async (type, start) => {
    await using nats = await startNats();
    await using app = await startApp();
    await using broker = await start(false);
    expectKept(await pubsubOutage({ nats, app, broker, outageMs }, type));
  },
  limitMs,
);

test.each(Object.entries(loopBrokers))(
  "%s comes when its server does, and goes on after an outage",
  async (type, start) => {
    await using nats = await startNats();
    await using app = await startApp();
    await using broker = await start(false);
    expectKept(await loopOutage({ nats, app, broker, outageMs }, type));
  },
  limitMs,
);

test("pubsub.nats and bindings.nats are told as away with the sidecar's own NATS", async () => {
  await using nats = await startNats();
  await using proxy = await faultProxy(nats.port);
  const names = ["pubsub", "subjects"];
  await using sidecar = await startSidecar({
    appId: "shop",
    nats: proxy,
    resources: {
      "p.yaml": binding("pubsub", "pubsub.nats", { publishTimeout: "300ms" }),
      "b.yaml": binding("subjects", "bindings.nats"),
    },
  });
  for (const name of names) await works(sidecar, name);
  proxy.cut();
  const away = async (): Promise<void> => {
    const health = await sidecar.get("/v1.0/healthz/components");
    expect([health.status, health.text]).toEqual([500, expect.stringContaining("[pubsub subjects]")]);
    expect((await sidecar.get("/v1.0/healthz")).text).toContain("[nats]");
    const { extended } = (await sidecar.get("/v1.0/metadata")).json<{ extended: Record<string, string> }>();
    expect(extended).toMatchObject({ "weft.component.pubsub": expect.stringMatching(/^away since 2/) });
  };
  await eventually(away);
  const refused = await sidecar.http("/v1.0/publish/pubsub/orders", post({}));
  expect([refused.status, refused.json<{ errorCode: string }>().errorCode]).toEqual([
    500,
    "ERR_PUBSUB_PUBLISH_MESSAGE",
  ]);
  const body = { operation: "create", data: 1, metadata: { subject: "orders" } };
  expect((await sidecar.http("/v1.0/bindings/subjects", post(body))).text).toContain(
    "subjects: NATS is away",
  );
  proxy.heal();
  for (const name of names) await works(sidecar, name);
  expect((await sidecar.http("/v1.0/bindings/subjects", post(body))).status).toBe(204);
});

test.each(Object.entries(outputBrokers))(
  "%s fails with a clear error while its server is away, and works again",
  async (type, { start, operation, data, metadata, connects }) => {
    await using nats = await startNats();
    await using broker = await start();
    await broker.away();
    await using sidecar = await startSidecar({
      appId: "shop",
      nats,
      resources: { "c.yaml": component("out", type, broker) },
    });
    const call = (): ReturnType<typeof sidecar.http> =>
      sidecar.http("/v1.0/bindings/out", { ...post({ operation, data, metadata }), timeoutMs: 60_000 });
    const refusal = await call();
    expect([refusal.status, refusal.json<{ errorCode: string }>().errorCode]).toEqual([
      500,
      "ERR_INVOKE_OUTPUT_BINDING",
    ]);
    await told(sidecar, "out", connects ? /^not open/ : /^away since/);
    for (let outages = 0; outages < 2; outages++) {
      await broker.back();
      await eventually(async () => expect((await call()).status).toBeLessThan(300), { timeoutMs: 60_000 });
      await works(sidecar, "out");
      await broker.away();
      expect((await call()).text).toMatch(/error invoking output binding out: \S/);
      await told(sidecar, "out", /^away since/);
    }
  },
  limitMs,
);
