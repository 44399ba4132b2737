// Stores that lose their servers: health and metadata tell it.
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, test } from "vitest";
import { eventually, type Sidecar, startNats, startSidecar } from "../../kit/index.ts";
import { startEtcd } from "../../kit/servers/etcd.ts";
import { startMariaDb } from "../../kit/servers/mariadb.ts";
import { startMongo } from "../../kit/servers/mongo.ts";
import { startPostgres } from "../../kit/servers/postgres.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import { stateComponent } from "../state/resources.ts";
import { works } from "./scenario.ts";

const slow = { timeoutMs: 60_000 };

type Types = Readonly<Record<string, readonly [type: string, metadata: Readonly<Record<string, string>>]>>;

function filesOf(types: Types): Record<string, string> {
  return Object.fromEntries(
    Object.entries(types).map(([name, [type, metadata]]) => [
      `${name}.yaml`,
      stateComponent(name, type, metadata),
    ]),
  );
}

/** Health and metadata tell that all of these are away, and no others. */
async function allAway(sidecar: Sidecar, types: Types): Promise<void> {
  const names = Object.keys(types).sort();
  const health = await sidecar.get("/v1.0/healthz/components");
  expect([health.status, health.text]).toEqual([500, expect.stringContaining(`[${names.join(" ")}]`)]);
  const { extended } = (await sidecar.get("/v1.0/metadata")).json<{ extended: Record<string, string> }>();
  for (const name of names) expect(extended[`weft.component.${name}`]).toMatch(/^away since/);
}

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
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: filesOf(types) });
  for (const name of Object.keys(types)) await works(sidecar, name);
  await redis.kill();
  await other.kill();
  await eventually(() => allAway(sidecar, types), slow);
  await redis.restart();
  await other.restart();
  for (const name of Object.keys(types)) await works(sidecar, name);
}, 120_000);

test("stores and configuration in databases tell since when they are away", async () => {
  await using nats = await startNats();
  await using postgres = await startPostgres();
  await using maria = await startMariaDb();
  await using etcd = await startEtcd();
  await using mongo = await startMongo();
  await postgres.query("CREATE TABLE settings (key text, value text, version text, metadata json)");
  const connectionString = postgres.url;
  const types = {
    pg: ["state.postgresql", { connectionString }],
    settings: ["configuration.postgresql", { connectionString, table: "settings" }],
    maria: ["state.mysql", { connectionString: `root@tcp(${maria.address})/` }],
    etcd: ["state.etcd", { endpoints: etcd.address }],
    mongo: ["state.mongodb", { host: mongo.address }],
  } as const;
  await using sidecar = await startSidecar({ appId: "shop", nats, resources: filesOf(types) });
  const stores = ["pg", "maria", "etcd", "mongo"];
  for (const name of stores)
    expect((await sidecar.post(`/v1.0/state/${name}`, [{ key: "k", value: 1 }])).status).toBe(204);
  for (const name of Object.keys(types)) await works(sidecar, name);
  for (const server of [postgres, maria, etcd, mongo]) await server.kill();
  // The only one that has to be asked.
  expect((await sidecar.get("/v1.0/state/maria/k")).status).toBe(500);
  await eventually(() => allAway(sidecar, types), slow);
  for (const server of [postgres, maria, etcd, mongo]) await server.restart();
  for (const name of Object.keys(types)) await works(sidecar, name);
  for (const name of stores) expect((await sidecar.get(`/v1.0/state/${name}/k`)).text).toBe("1");
}, 240_000);
