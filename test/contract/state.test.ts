/** Every state component under the contract suite, on real servers. */
import { jetstreamManager } from "@nats-io/jetstream";
import { joinMesh } from "../../mesh/index.ts";
import type { StateStore } from "../../src/blocks/state/port.ts";
import * as etcd from "../../src/components/state/etcd.ts";
import * as inMemory from "../../src/components/state/in-memory.ts";
import * as jetstream from "../../src/components/state/jetstream.ts";
import * as mongodb from "../../src/components/state/mongodb.ts";
import * as mysql from "../../src/components/state/mysql.ts";
import * as nats from "../../src/components/state/nats.ts";
import * as postgresql from "../../src/components/state/postgresql.ts";
import * as redis from "../../src/components/state/redis.ts";
import * as sqlite from "../../src/components/state/sqlite.ts";
import { startNats } from "../kit/nats.ts";
import { startEtcd } from "../kit/servers/etcd.ts";
import { startMariaDb } from "../kit/servers/mariadb.ts";
import { startMongo } from "../kit/servers/mongo.ts";
import { startPostgres } from "../kit/servers/postgres.ts";
import { startRedis } from "../kit/servers/redis.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { manualClock } from "./manual-clock.ts";
import { openStore } from "./open-store.ts";
import { stateContract } from "./state.ts";
import { stateTraits } from "./state-traits.ts";

stateContract("state.in-memory", stateTraits["state.in-memory"], async () => {
  const clock = manualClock();
  const store = await openStore(inMemory, { properties: { maxEntries: "100000" }, clock });
  return { store, close: () => store.close(), advance: (ms) => clock.advance(ms) };
});

stateContract("state.nats", stateTraits["state.nats"], async () => {
  const server = await startNats();
  const mesh = joinMesh({ namespace: "default", app: "contract", natsUrls: [server.url] });
  await mesh.ready();
  const store = await openStore(nats, { mesh });
  return {
    store,
    server,
    async close() {
      await store.close();
      await mesh.close();
      await server[Symbol.asyncDispose]();
    },
  };
});

stateContract("state.sqlite in a file", stateTraits["state.sqlite"], async () => {
  const clock = manualClock();
  const folder = tempDir("sqlite");
  const store = await openStore(sqlite, { properties: { connectionString: folder.join("state.db") }, clock });
  return {
    store,
    advance: (ms) => clock.advance(ms),
    async close() {
      await store.close();
      await folder[Symbol.asyncDispose]();
    },
  };
});

stateContract("state.sqlite in memory", stateTraits["state.sqlite"], async () => {
  const clock = manualClock();
  const store = await openStore(sqlite, { properties: { connectionString: ":memory:" }, clock });
  return { store, advance: (ms) => clock.advance(ms), close: () => store.close() };
});

stateContract("state.redis", stateTraits["state.redis"], async () => {
  const server = await startRedis();
  const store = await openStore(redis, { properties: { redisHost: server.address } });
  return { store, server, close: () => closeBoth(store, server) };
});

for (const version of ["v1", "v2"] as const) {
  stateContract(`state.postgresql ${version}`, stateTraits[`state.postgresql ${version}`], async () => {
    const server = await startPostgres();
    const store = await openStore(postgresql, { properties: { connectionString: server.url }, version });
    return { store, server, close: () => closeBoth(store, server) };
  });
}

stateContract("state.mysql", stateTraits["state.mysql"], async () => {
  const server = await startMariaDb();
  const store = await openStore(mysql, { properties: { connectionString: `root@tcp(${server.address})/` } });
  return { store, server, close: () => closeBoth(store, server) };
});

for (const version of ["v1", "v2"] as const) {
  stateContract(`state.etcd ${version}`, stateTraits[`state.etcd ${version}`], async () => {
    const server = await startEtcd();
    const properties = { endpoints: server.address, keyPrefixPath: "weft" };
    const store = await openStore(etcd, { properties, version });
    return { store, server, close: () => closeBoth(store, server) };
  });
}

stateContract("state.mongodb", stateTraits["state.mongodb"], async () => {
  const server = await startMongo();
  const store = await openStore(mongodb, { properties: { host: server.address } });
  return { store, server, close: () => closeBoth(store, server) };
});

stateContract("state.jetstream", stateTraits["state.jetstream"], async () => {
  const server = await startNats();
  const client = await server.connect();
  const manager = await jetstreamManager(client);
  await manager.streams.add({ name: "KV_states", subjects: ["$KV.states.>"], max_msgs_per_subject: 1 });
  const store = await openStore(jetstream, { properties: { natsURL: server.url, bucket: "states" } });
  return { store, server, close: () => closeBoth(store, server) };
});

async function closeBoth(store: StateStore, server: AsyncDisposable): Promise<void> {
  await store.close();
  await server[Symbol.asyncDispose]();
}
