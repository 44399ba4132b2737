/** Stores whose server says nothing any more: calls end in their time, and the same store serves when it is back. */
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, test } from "vitest";
import type { StateReadOptions, StateSet, StateStore } from "../../src/blocks/state/port.ts";
import * as etcd from "../../src/components/state/etcd.ts";
import * as jetstream from "../../src/components/state/jetstream.ts";
import * as mongodb from "../../src/components/state/mongodb.ts";
import * as mysql from "../../src/components/state/mysql.ts";
import * as postgresql from "../../src/components/state/postgresql.ts";
import * as redis from "../../src/components/state/redis.ts";

import { eventually } from "../kit/eventually.ts";
import { type FaultProxy, faultProxy } from "../kit/fault-proxy.ts";
import { startNats } from "../kit/nats.ts";
import { startEtcd } from "../kit/servers/etcd.ts";
import { startMariaDb } from "../kit/servers/mariadb.ts";
import { startMongo } from "../kit/servers/mongo.ts";
import { startPostgres } from "../kit/servers/postgres.ts";
import { startRedis } from "../kit/servers/redis.ts";
import { openStore } from "./open-store.ts";

type Server = AsyncDisposable & { readonly port: number };
type Case = readonly [name: string, start: () => Promise<Server>, open: (at: string) => Promise<StateStore>];

const signal = new AbortController().signal;
const reading: StateReadOptions = { consistency: "strong", metadata: {}, signal };
const timeout = "2s";

const cases: readonly Case[] = [
  ["redis", startRedis, (at) => openStore(redis, { properties: { redisHost: at, readTimeout: timeout } })],
  [
    "postgresql",
    startPostgres,
    (at) =>
      openStore(postgresql, {
        version: "v2",
        properties: { connectionString: `postgres://postgres@${at}/postgres`, timeout },
      }),
  ],
  [
    "mysql",
    startMariaDb,
    (at) =>
      openStore(mysql, { properties: { connectionString: `root@tcp(${at})/`, timeoutInSeconds: timeout } }),
  ],
  ["etcd", startEtcd, (at) => openStore(etcd, { properties: { endpoints: at } })],
  [
    "mongodb",
    startMongo,
    (at) => openStore(mongodb, { properties: { host: at, operationTimeout: timeout } }),
  ],
  [
    "jetstream",
    async () => {
      const server = await startNats();
      const manager = await jetstreamManager(await server.connect());
      await manager.streams.add({ name: "KV_states", subjects: ["$KV.states.>"], max_msgs_per_subject: 1 });
      return server;
    },
    (at) => openStore(jetstream, { properties: { natsURL: `nats://${at}`, bucket: "states" } }),
  ],
];

function saving(value: string): StateSet {
  const plain = {
    kind: "set",
    json: true,
    etag: undefined,
    createOnly: false,
    ttlSeconds: undefined,
  } as const;
  return { ...plain, key: "k", value: Buffer.from(value), metadata: {} };
}

async function refusesInTime(work: Promise<unknown>): Promise<void> {
  const startedMs = performance.now();
  await expect(work).rejects.toThrow(Error);
  expect(performance.now() - startedMs).toBeLessThan(25_000);
}

test.each(cases)("a silent server of state.%s", { timeout: 180_000 }, async (_, start, open) => {
  await using server = await start();
  await using proxy: FaultProxy = await faultProxy(server.port);
  const store = await eventually(() => open(`127.0.0.1:${proxy.port}`), { timeoutMs: 30_000 });
  await eventually(() => store.set(saving("1"), signal), { timeoutMs: 30_000 });
  proxy.block();
  const calls = [store.get("k", reading), store.get("k", reading), store.set(saving("2"), signal)];
  await Promise.all(calls.map(refusesInTime));
  await refusesInTime(store.get("k", reading));
  proxy.heal();
  await eventually(() => store.set(saving("3"), signal), { timeoutMs: 60_000 });
  const record = await eventually(() => store.get("k", reading), { timeoutMs: 30_000 });
  expect(Buffer.from(record!.value).toString()).toBe("3");
  await store.close();
});
