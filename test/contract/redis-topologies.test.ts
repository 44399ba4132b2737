/** state.redis on a cluster, behind sentinels, with a replica, and with a server that stands still. */
import { createClient } from "redis";
import { expect, it } from "vitest";
import type { StateReadOptions, StateSet, StateStore } from "../../src/blocks/state/port.ts";
import * as redis from "../../src/components/state/redis.ts";
import { eventually } from "../kit/eventually.ts";
import { startRedis, startSentinel } from "../kit/servers/redis.ts";
import type { Server } from "../kit/servers/server.ts";
import { openStore } from "./open-store.ts";

const signal = new AbortController().signal;
const reading: StateReadOptions = { consistency: "strong", metadata: {}, signal };

function saving(key: string, value: string, more: Partial<StateSet> = {}): StateSet {
  const plain = {
    kind: "set",
    json: true,
    etag: undefined,
    createOnly: false,
    ttlSeconds: undefined,
  } as const;
  return { ...plain, key, value: Buffer.from(value), metadata: {}, ...more };
}

async function text(store: StateStore, key: string): Promise<string | undefined> {
  const record = await store.get(key, reading);
  return record && Buffer.from(record.value).toString();
}

async function command(server: Server, ...args: string[]): Promise<unknown> {
  const client = await createClient({ url: `redis://${server.address}` }).connect();
  try {
    return await client.sendCommand(args);
  } finally {
    client.destroy();
  }
}

it("serves a cluster, and says that a transaction cannot span its nodes", async () => {
  await using server = await startRedis({ "cluster-enabled": "yes" });
  await command(server, "CLUSTER", "ADDSLOTSRANGE", "0", "16383");
  await eventually(
    async () => expect(String(await command(server, "CLUSTER", "INFO"))).toContain("state:ok"),
    { timeoutMs: 30_000 },
  );
  const store = await openStore(redis, { properties: { redisHost: server.address, redisType: "cluster" } });
  await store.set(saving("a", "1"), signal);
  expect(await text(store, "a")).toBe("1");
  await store.transact!([saving("{x}a", "1"), saving("{x}b", "2")], {}, signal);
  expect(await text(store, "{x}b")).toBe("2");
  await expect(store.transact!([saving("a", "2"), saving("b", "2")], {}, signal)).rejects.toThrow("slot");
  expect(await text(store, "a")).toBe("1");
  await store.close();
});

it("finds the master by sentinels, and follows it to another server", { timeout: 120_000 }, async () => {
  await using first = await startRedis();
  await using second = await startRedis({ replicaof: `127.0.0.1 ${first.port}` });
  await using sentinel = await startSentinel(first);
  await eventually(
    async () => {
      const replicas = (await command(sentinel, "SENTINEL", "REPLICAS", "mymaster")) as unknown[];
      expect(replicas).toHaveLength(1);
    },
    { timeoutMs: 30_000 },
  );
  const properties = { redisHost: sentinel.address, failover: "true", sentinelMasterName: "mymaster" };
  const store = await openStore(redis, { properties });
  await store.set(saving("k", "1", { strong: true }), signal);
  expect(await text(store, "k")).toBe("1");
  await eventually(async () => expect(await command(second, "EXISTS", "k")).toBe(1), { timeoutMs: 30_000 });
  await first.kill();
  await eventually(() => store.set(saving("k", "2"), signal), { timeoutMs: 60_000, everyMs: 200 });
  expect(await command(second, "HGET", "k", "data")).toBe("2");
  await store.close();
});

it("gives up in time when the server stands still, and goes on with it", { timeout: 60_000 }, async () => {
  await using server = await startRedis();
  const store = await openStore(redis, { properties: { redisHost: server.address, readTimeout: "2500" } });
  await store.set(saving("k", "1"), signal);
  await server.pause();
  const startedMs = performance.now();
  await expect(store.get("k", reading)).rejects.toThrow("no answer within 2500 ms");
  expect(performance.now() - startedMs).toBeLessThan(20_000);
  server.resume();
  await eventually(async () => expect(await text(store, "k")).toBe("1"), { timeoutMs: 20_000 });
  await store.close();
});
