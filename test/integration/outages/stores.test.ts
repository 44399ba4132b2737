// Stores that lose their servers: health and metadata tell it.
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, test } from "vitest";
import { eventually, startNats, startSidecar } from "../../kit/index.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import { stateComponent } from "../state/resources.ts";
import { works } from "./scenario.ts";

const slow = { timeoutMs: 30_000 };

test("stores, locks and configuration on Redis and JetStream tell since when they are away", async () => {
  await using nats = await startNats();
  await using other = await startNats();
  await using redis = await startRedis();
  const client = await other.connect();
  await (await jetstreamManager(client)).streams.add({ name: "KV_b", subjects: ["$KV.b.>"] });
  await client.close();
  const redisHost = `127.0.0.1:${redis.port}`;
  const types = {
    state: ["state.redis", { redisHost }],
    lock: ["lock.redis", { redisHost }],
    settings: ["configuration.redis", { redisHost }],
    bucket: ["state.jetstream", { natsURL: other.url, bucket: "b" }],
  } as const;
  const resources = Object.fromEntries(
    Object.entries(types).map(([name, [type, metadata]]) => [
      `${name}.yaml`,
      stateComponent(name, type, metadata),
    ]),
  );
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  for (const name of Object.keys(types)) await works(sidecar, name);
  await redis.kill();
  await other.kill();
  await eventually(async () => {
    const health = await sidecar.get("/v1.0/healthz/components");
    expect([health.status, health.text]).toEqual([
      500,
      expect.stringContaining("[bucket lock settings state]"),
    ]);
    const { extended } = (await sidecar.get("/v1.0/metadata")).json<{ extended: Record<string, string> }>();
    for (const name of Object.keys(types)) expect(extended[`weft.component.${name}`]).toMatch(/^away since/);
  }, slow);
  await redis.restart();
  await other.restart();
  for (const name of Object.keys(types)) await works(sidecar, name);
}, 120_000);
