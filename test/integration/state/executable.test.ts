// The executable has every client package inside: a sidecar from dist/weftd serves all stores.
import { jetstreamManager } from "@nats-io/jetstream";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkout, startNats, startSidecar } from "../../kit/index.ts";
import { startEtcd } from "../../kit/servers/etcd.ts";
import { startMariaDb } from "../../kit/servers/mariadb.ts";
import { startMongo } from "../../kit/servers/mongo.ts";
import { startPostgres } from "../../kit/servers/postgres.ts";
import { startRedis } from "../../kit/servers/redis.ts";
import { stateComponent } from "./resources.ts";

const executable = join(checkout, "dist", "weftd");

test("the executable serves every state store", { timeout: 180_000 }, async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  await using postgres = await startPostgres();
  await using mariadb = await startMariaDb();
  await using etcd = await startEtcd();
  await using mongo = await startMongo();
  const manager = await jetstreamManager(await nats.connect());
  await manager.streams.add({ name: "KV_states", subjects: ["$KV.states.>"], max_msgs_per_subject: 1 });
  const metadata: Record<string, Record<string, string>> = {
    "state.sqlite": { connectionString: ":memory:" },
    "state.redis": { redisHost: redis.address },
    "state.postgresql": { connectionString: postgres.url },
    "state.mysql": { connectionString: `root@tcp(${mariadb.address})/` },
    "state.etcd": { endpoints: etcd.address },
    "state.mongodb": { host: mongo.address },
    "state.jetstream": { natsURL: nats.url, bucket: "states" },
  };
  const names = Object.keys(metadata);
  const resources = Object.fromEntries(
    names.map((type) => {
      const text = stateComponent(type, type, metadata[type]).replace("spec:", "spec:\n  initTimeout: 60s");
      return [`${type}.yaml`, text];
    }),
  );
  const options = { appId: "shop", nats, command: [executable] as const, readyTimeoutMs: 120_000 };
  await using sidecar = await startSidecar({ ...options, resources });
  for (const name of names) {
    const saved = await sidecar.post(`/v1.0/state/${name}`, [{ key: "k", value: { a: 1 } }]);
    expect([name, saved.status, saved.text]).toEqual([name, 204, ""]);
    expect((await sidecar.get(`/v1.0/state/${name}/k`)).json()).toEqual({ a: 1 });
  }
});
