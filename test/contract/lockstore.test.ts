/** Every lock store component under the contract suite, on real servers. */
import { expect, test } from "vitest";
import { type Clock, type Mesh, joinMesh, systemClock } from "../../mesh/index.ts";
import type { LockStore } from "../../src/blocks/lock/port.ts";
import type { ComponentFile } from "../../src/components/component.ts";
import * as nats from "../../src/components/lock/nats.ts";
import * as redis from "../../src/components/lock/redis.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import { startNats } from "../kit/nats.ts";
import { startRedis } from "../kit/servers/redis.ts";
import { lockStoreContract } from "./lockstore.ts";
import { silentLog } from "./silent-log.ts";

type File = Pick<ComponentFile, "type" | "metadataSchema"> & { open(context: never): Promise<LockStore> };

function openLocks(
  file: File,
  properties: Readonly<Record<string, string>>,
  mesh?: Mesh,
): Promise<LockStore> {
  const clock: Clock = systemClock;
  return file.open({
    name: "locks",
    type: file.type,
    version: "v1",
    appId: "contract",
    namespace: "default",
    metadata: readMetadata(file.metadataSchema, "lock", properties).values,
    properties,
    env: {},
    mesh,
    clock,
    log: silentLog,
    signal: new AbortController().signal,
  } as never);
}

lockStoreContract("lock.redis", { fences: false }, async () => {
  const server = await startRedis();
  const open = (): Promise<LockStore> => openLocks(redis, { redisHost: server.address });
  const stores = [await open(), await open()];
  return {
    stores,
    async close() {
      for (const store of stores) await store.close();
      await server[Symbol.asyncDispose]();
    },
  };
});

lockStoreContract("lock.nats", { fences: true }, async () => {
  const server = await startNats();
  const join = (app: string): Mesh => joinMesh({ namespace: "default", app, natsUrls: [server.url] });
  const meshes = [join("one"), join("two")];
  const stores = await Promise.all(meshes.map((mesh) => openLocks(nats, {}, mesh)));
  return {
    stores,
    async close() {
      for (const mesh of meshes) await mesh.close();
      await server[Symbol.asyncDispose]();
    },
  };
});

test("lock.redis refuses a cluster", async () => {
  const cluster = { redisHost: "127.0.0.1:1", redisType: "cluster" };
  await expect(openLocks(redis, cluster)).rejects.toThrow(/cluster is not safe for locks/);
});
