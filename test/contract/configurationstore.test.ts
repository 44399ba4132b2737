/** Every configuration store component under the contract suite, on real servers. */
import { createClient } from "redis";
import { expect, test } from "vitest";
import { type Mesh, joinMesh, systemClock } from "../../mesh/index.ts";
import type { ConfigurationStore } from "../../src/blocks/configuration/port.ts";
import type { ComponentFile } from "../../src/components/component.ts";
import * as nats from "../../src/components/configuration/nats.ts";
import * as postgresql from "../../src/components/configuration/postgresql.ts";
import * as redis from "../../src/components/configuration/redis.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import { startNats } from "../kit/nats.ts";
import { type Postgres, startPostgres } from "../kit/servers/postgres.ts";
import { startRedis } from "../kit/servers/redis.ts";
import { configurationStoreContract } from "./configurationstore.ts";
import { silentLog } from "./silent-log.ts";

type File = Pick<ComponentFile, "type" | "metadataSchema"> & {
  open(context: never): Promise<ConfigurationStore>;
};

function openStore(
  file: File,
  properties: Readonly<Record<string, string>>,
  mesh?: Mesh,
): Promise<ConfigurationStore> {
  return file.open({
    name: "settings",
    type: file.type,
    version: "v1",
    appId: "contract",
    namespace: "default",
    metadata: readMetadata(file.metadataSchema, "configuration", properties).values,
    properties,
    env: {},
    mesh,
    clock: systemClock,
    log: silentLog,
    signal: new AbortController().signal,
  } as never);
}

const signal = new AbortController().signal;

configurationStoreContract("configuration.redis", async () => {
  const server = await startRedis();
  const client = createClient({ url: `redis://${server.address}` });
  client.on("error", () => {});
  await client.connect();
  const store = await openStore(redis, { redisHost: server.address });
  return {
    store,
    put: async (key, value) => void (await client.set(key, `${value}||7`)),
    remove: async (key) => void (await client.del(key)),
    outage: () => server.restart(),
    async close() {
      await store.close();
      client.destroy();
      await server[Symbol.asyncDispose]();
    },
  };
});

const table = "CREATE TABLE settings (key text, value text, version text, metadata json)";
/** As a user of Dapr's component writes it. */
const trigger = `
CREATE FUNCTION tell() RETURNS trigger AS $$ BEGIN
  PERFORM pg_notify('changes', json_build_object('action', TG_OP, 'data', row_to_json(NEW))::text);
  RETURN NEW;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON settings FOR EACH ROW EXECUTE FUNCTION tell();`;

async function withTable(): Promise<Postgres> {
  const server = await startPostgres();
  await server.query(table);
  await server.query(trigger);
  return server;
}

configurationStoreContract("configuration.postgresql", async () => {
  const server = await withTable();
  const properties = { connectionString: server.url, table: "settings", pgNotifyChannel: "changes" };
  const store = await openStore(postgresql, properties);
  let version = 0;
  return {
    store,
    put: async (key, value) =>
      void (await server.query("INSERT INTO settings VALUES ($1, $2, $3, NULL)", [
        key,
        value,
        String(++version),
      ])),
    remove: undefined,
    async outage() {
      await server.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL",
      );
    },
    async close() {
      await store.close();
      await server[Symbol.asyncDispose]();
    },
  };
});

configurationStoreContract("configuration.nats", async () => {
  const server = await startNats();
  const join = (app: string): Mesh => joinMesh({ namespace: "default", app, natsUrls: [server.url] });
  const meshes = [join("reader"), join("writer")];
  const store = await openStore(nats, { pollInterval: "100ms" }, meshes[0]);
  const written = await meshes[1]!.table({ kind: "configuration", name: ["default", "settings"] });
  return {
    store,
    put: async (key, value) => void (await written.put([key], Buffer.from(value))),
    remove: (key) => written.delete([key]),
    outage: () => server.restart(),
    async close() {
      await store.close();
      for (const mesh of meshes) await mesh.close();
      await server[Symbol.asyncDispose]();
    },
  };
});

test("configuration.redis parts value and version, and leaves out what is no text or empty", async () => {
  await using server = await startRedis();
  const client = createClient({ url: `redis://${server.address}` });
  await client.connect();
  await client.set("both", "v||2||rest");
  await client.set("bare", "v");
  await client.set("empty", "");
  await client.lPush("list", "x");
  const store = await openStore(redis, { redisHost: server.address });
  const found = await store.get(["both", "bare", "empty", "list"], {}, signal);
  expect([...found]).toEqual([
    ["both", { value: "v", version: "2", metadata: {} }],
    ["bare", { value: "v", version: "", metadata: {} }],
  ]);
  await store.close();
  client.destroy();
}, 30_000);

test("configuration.postgresql gives the row with the highest version, and refuses odd keys and tables", async () => {
  await using server = await withTable();
  const rows = [
    ["k", "old", "9", null],
    ["k", "new", "10", '{"a":"1"}'],
    ["k", "later", "10", null],
    ["t", "text", "x", null],
    ["empty", "", "1", null],
  ];
  for (const row of rows) await server.query("INSERT INTO settings VALUES ($1, $2, $3, $4)", row);
  const properties = { connectionString: server.url, table: "settings" };
  const store = await openStore(postgresql, properties);
  expect([...(await store.get(["k", "t", "empty"], {}, signal))]).toEqual([
    ["k", { value: "new", version: "10", metadata: { a: "1" } }],
    ["t", { value: "text", version: "x", metadata: {} }],
    ["empty", { value: "", version: "1", metadata: {} }],
  ]);
  expect((await store.get(["k"], { any: "x" }, signal)).size).toBe(0);
  await expect(store.get(["a b"], {}, signal)).rejects.toThrow("invalid key : 'a b'");
  await expect(store.subscribe([], {}, () => {}, signal)).rejects.toThrow(/no notification channel/);
  await store.close();
  await expect(openStore(postgresql, { ...properties, table: "nowhere" })).rejects.toThrow(/does not exist/);
  await expect(openStore(postgresql, { ...properties, table: "Set" })).rejects.toThrow(/must be at most/);
}, 60_000);
