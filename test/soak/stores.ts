/** Every state store on a real server of its own, as a sidecar is told of them. */
import type { Nats } from "../kit/index.ts";
import { startEtcd } from "../kit/servers/etcd.ts";
import { startMariaDb } from "../kit/servers/mariadb.ts";
import { startMongo } from "../kit/servers/mongo.ts";
import { startPostgres } from "../kit/servers/postgres.ts";
import { startRedis } from "../kit/servers/redis.ts";

export type Killable = AsyncDisposable & { kill(): Promise<unknown>; restart(): Promise<void> };
export type StartedStore = { readonly store: string; readonly server: Killable | undefined };

export type StoreOptions = {
  readonly nats: Nats;
  readonly sqliteFile: string;
  /** Names of those to start; all when not given. */
  readonly only?: readonly string[];
};

/** The servers live as long as the stack. `resources` are the components, named as the stores. */
export async function startStores(
  stack: AsyncDisposableStack,
  { nats, sqliteFile, only }: StoreOptions,
): Promise<{ stores: StartedStore[]; resources: string }> {
  const wants = (...names: readonly string[]): boolean =>
    only === undefined || names.some((name) => only.includes(name));
  const redis = wants("redis") ? stack.use(await startRedis()) : undefined;
  const postgres = wants("pg1", "pg2") ? stack.use(await startPostgres()) : undefined;
  const mariadb = wants("mysql") ? stack.use(await startMariaDb()) : undefined;
  const etcd = wants("etcd") ? stack.use(await startEtcd()) : undefined;
  const mongo = wants("mongo") ? stack.use(await startMongo()) : undefined;
  const rows: [string, string, string, Record<string, string | undefined>, Killable | undefined][] = [
    ["nats", "state.nats", "v1", {}, nats],
    ["sqlite", "state.sqlite", "v1", { connectionString: sqliteFile }, undefined],
    ["redis", "state.redis", "v1", { redisHost: redis?.address }, redis],
    ["pg1", "state.postgresql", "v1", { connectionString: postgres?.url }, postgres],
    ["pg2", "state.postgresql", "v2", { connectionString: postgres?.url, tablePrefix: "v2_" }, postgres],
    ["mysql", "state.mysql", "v1", { connectionString: `root@tcp(${mariadb?.address})/` }, mariadb],
    ["etcd", "state.etcd", "v2", { endpoints: etcd?.address }, etcd],
    ["mongo", "state.mongodb", "v1", { host: mongo?.address }, mongo],
  ];
  const started = rows.filter(([name]) => wants(name));
  const resources = started.map(([name, type, version, metadata]) => {
    const fields = Object.entries(metadata).map(([field, value]) => ({ name: field, value }));
    const spec = { type, version, metadata: fields, initTimeout: "60s" };
    return JSON.stringify({
      apiVersion: "dapr.io/v1alpha1",
      kind: "Component",
      metadata: { name },
      spec,
    });
  });
  return {
    stores: started.map(([store, , , , server]) => ({ store, server })),
    resources: resources.join("\n---\n"),
  };
}
