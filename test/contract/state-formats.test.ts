/** Data of stores that Dapr writes too: rows as its components leave them are read, and ours look the same. */
import { DatabaseSync } from "node:sqlite";
import { createClient } from "redis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StateReadOptions, StateSet, StateStore } from "../../src/blocks/state/port.ts";
import * as postgresql from "../../src/components/state/postgresql.ts";
import * as redis from "../../src/components/state/redis.ts";
import * as sqlite from "../../src/components/state/sqlite.ts";
import { eventually } from "../kit/eventually.ts";
import { type Postgres, startPostgres } from "../kit/servers/postgres.ts";
import { startRedis } from "../kit/servers/redis.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { manualClock } from "./manual-clock.ts";
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

describe("files of state.sqlite", () => {
  it("reads rows as Dapr leaves them, and writes the same", async () => {
    const clock = manualClock();
    await using folder = tempDir("sqlite");
    const file = folder.join("state.db");
    const raw = new DatabaseSync(file);
    raw.exec(`CREATE TABLE metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
      INSERT INTO metadata VALUES ('migrations', '1');
      CREATE TABLE state (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, is_binary BOOLEAN NOT NULL,
        etag TEXT NOT NULL, expiration_time TIMESTAMP DEFAULT NULL,
        update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);
      INSERT INTO state (key, value, is_binary, etag, expiration_time) VALUES
        ('app||json', '{"a":1}', 0, 'e1', NULL), ('app||bytes', 'AP8=', 1, 'e2', '2025-01-01 01:00:00'),
        ('app||gone', '1', 0, 'e3', '2024-12-31 23:59:59');`);
    const store = await openStore(sqlite, { properties: { connectionString: file }, clock });
    expect(await text(store, "app||json")).toBe('{"a":1}');
    const bytes = await store.get("app||bytes", reading);
    expect([...bytes!.value]).toEqual([0, 255]);
    expect(bytes).toMatchObject({ etag: "e2", expiresAtMs: Date.UTC(2025, 0, 1, 1) });
    expect(await store.get("app||gone", reading)).toBeUndefined();
    await store.set(saving("app||json", '"text"', { etag: "e1", ttlSeconds: 60 }), signal);
    await store.set({ ...saving("app||bytes", ""), value: Uint8Array.of(1, 255), json: false }, signal);
    const rows = raw.prepare("SELECT * FROM state ORDER BY key").all();
    expect(rows[0]).toMatchObject({ key: "app||bytes", value: "Af8=", is_binary: 1, expiration_time: null });
    expect(rows[2]).toMatchObject({
      key: "app||json",
      value: '"text"',
      is_binary: 0,
      expiration_time: "2025-01-01 00:01:00",
      update_time: "2025-01-01 00:00:00",
    });
    expect(rows[2]!["etag"]).toMatch(/^[0-9a-f-]{36}$/);
    raw.close();
    await store.close();
  });

  it("creates the columns in their order, and deletes expired rows when it is told to", async () => {
    const clock = manualClock();
    await using folder = tempDir("sqlite");
    const properties = { connectionString: folder.join("s.db"), cleanupInterval: "1m", tableName: "mine" };
    const store = await openStore(sqlite, { properties, clock });
    const raw = new DatabaseSync(properties.connectionString);
    const columns = raw.prepare("SELECT name, type FROM pragma_table_info('mine')").all();
    expect(columns.map(({ name, type }) => `${name as string} ${type as string}`)).toEqual([
      "key TEXT",
      "value TEXT",
      "is_binary BOOLEAN",
      "etag TEXT",
      "expiration_time TIMESTAMP",
      "update_time TIMESTAMP",
    ]);
    await store.set(saving("short", "1", { ttlSeconds: 1 }), signal);
    await store.set(saving("long", "1", { ttlSeconds: 3600 }), signal);
    clock.advance(60_000);
    await eventually(() => {
      expect(raw.prepare("SELECT key FROM mine").all()).toHaveLength(1);
      expect(raw.prepare("SELECT * FROM metadata ORDER BY key").all()).toMatchObject([
        { key: "last-cleanup", value: "2025-01-01 00:01:00" },
        { key: "migrations", value: "1" },
      ]);
    });
    raw.close();
    await store.close();
  });

  it("waits for a lock of another process without blocking, and gives up in time", async () => {
    await using folder = tempDir("sqlite");
    const properties = { connectionString: folder.join("s.db"), busyTimeout: "30s" };
    const store = await openStore(sqlite, { properties });
    const raw = new DatabaseSync(properties.connectionString);
    raw.exec("BEGIN IMMEDIATE");
    let done = false;
    const write = store.set(saving("k", "1"), signal).then(() => (done = true));
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(done).toBe(false);
    raw.exec("COMMIT");
    await write;
    raw.exec("BEGIN IMMEDIATE");
    const hasty = await openStore(sqlite, {
      properties: { ...properties, busyTimeout: "50ms" },
    }).catch((error: Error) => error.message);
    expect(hasty).toMatch(/locked/);
    raw.close();
    await store.close();
  });
});

describe("hashes of state.redis", () => {
  let server: Awaited<ReturnType<typeof startRedis>>;
  let store: StateStore;
  const open = () => createClient({ url: `redis://${server.address}` }).connect();
  let raw: Awaited<ReturnType<typeof open>>;
  beforeAll(async () => {
    server = await startRedis();
    store = await openStore(redis, { properties: { redisHost: server.address } });
    raw = await open();
  });
  afterAll(async () => {
    await store?.close();
    raw?.destroy();
    await server?.[Symbol.asyncDispose]();
  });

  it("reads hashes as Dapr leaves them, and writes the same", async () => {
    await raw.hSet("app||k", { data: '{"a":"<"}', version: "7" });
    const record = await store.get("app||k", reading);
    expect(record).toEqual({ value: Buffer.from('{"a":"<"}'), etag: "7" });
    await store.set(saving("app||k", '{"a":"\\u003c"}', { etag: "7" }), signal);
    expect(await raw.hGetAll("app||k")).toEqual({ data: '{"a":"<"}', version: "8" });
    await store.set(saving("app||new", "1", { createOnly: true }), signal);
    expect(await raw.hGetAll("app||new")).toEqual({ data: "1", version: "1", "first-write": "0" });
  });

  it("takes foreign keys as Dapr does", async () => {
    await raw.set("plain", "text");
    expect(await store.get("plain", reading)).toEqual({ value: Buffer.from("text"), etag: "" });
    await raw.hSet("lacking", { data: "1" });
    await expect(store.get("lacking", reading)).rejects.toThrow("required hash field 'data' or 'version'");
    await raw.lPush("list", "x");
    await expect(store.get("list", reading)).rejects.toThrow("WRONGTYPE");
    await store.set(saving("list", "1"), signal);
    expect(await raw.hGetAll("list")).toEqual({ data: "1", version: "1" });
  });

  it("gives records the component's time to live", async () => {
    const properties = { redisHost: "127.0.0.1", redisPort: String(server.port), ttlInSeconds: "100" };
    const mortal = await openStore(redis, { properties });
    await mortal.set(saving("mortal", "1"), signal);
    expect(await raw.ttl("mortal")).toBeGreaterThan(90);
    await mortal.set(saving("mortal", "1", { ttlSeconds: 0 }), signal);
    expect(await raw.ttl("mortal")).toBe(-1);
    await mortal.close();
  });

  it.each([
    { readTimeout: "-1", dialTimeout: "-1", redisMaxRetries: "-1" },
    { readTimeout: "0", dialTimeout: "0s", redisMinRetryInterval: "-1", redisMaxRetryInterval: "-1" },
  ])("takes %j, where Redis' clients mean no limit or the usual one", async (times) => {
    const patient = await openStore(redis, { properties: { redisHost: server.address, ...times } });
    await patient.set(saving("patient", "1"), signal);
    expect(await text(patient, "patient")).toBe("1");
    await patient.close();
  });

  it.each([
    [{ redisHost: "127.0.0.1:1" }, "error connecting to redis at 127.0.0.1:1"],
    [{ redisHost: "127.0.0.1:1", redisPort: "2" }, "name different ports"],
    [{ redisHost: "a,b" }, "names several servers"],
    [{ redisHost: "a", enableTLS: "yes" }, '"yes" is neither true nor false'],
    [{ redisHost: "a", enableTLS: "true", clientCert: "x" }, "belong together"],
  ])("refuses %j", async (properties, message) => {
    const opening = (async () => openStore(redis, { properties }))();
    await expect(opening).rejects.toThrow(message);
  });
});

describe("tables of state.postgresql", () => {
  let server: Postgres;
  beforeAll(async () => {
    server = await startPostgres();
  });
  afterAll(async () => server?.[Symbol.asyncDispose]());

  const open = (version: string, more: Record<string, string> = {}): Promise<StateStore> =>
    openStore(postgresql, { version, properties: { connectionString: server.url, ...more } });
  const columns = async (table: string): Promise<string[]> => {
    const rows = await server.query(
      `SELECT column_name || ' ' || data_type || ' ' || is_nullable AS it FROM information_schema.columns
      WHERE table_name = $1 ORDER BY ordinal_position`,
      [table],
    );
    return rows.map(({ it: column }) => column as string);
  };

  it("v1: reads rows as Dapr leaves them, and writes the same", async () => {
    const store = await open("v1", { maxConns: "-1", connectionMaxIdleTime: "-1" });
    expect(await columns("state")).toEqual([
      "key text NO",
      "value jsonb NO",
      "isbinary boolean NO",
      "insertdate timestamp with time zone NO",
      "updatedate timestamp with time zone YES",
      "expiredate timestamp with time zone YES",
      "row_id bigint NO",
    ]);
    expect(await server.query("SELECT * FROM dapr_metadata ORDER BY key")).toEqual([
      { key: "lock", value: "lock" },
      { key: "migrations", value: "3" },
    ]);
    await server.query(
      `INSERT INTO state (key, value, isbinary) VALUES ('app||json', '{"b": 1, "a": "ü"}', false),
      ('app||bytes', '"AP8="', true)`,
    );
    expect(await text(store, "app||json")).toBe('{"a": "ü", "b": 1}');
    expect([...(await store.get("app||bytes", reading))!.value]).toEqual([0, 255]);
    const { etag } = (await store.get("app||bytes", reading))!;
    await store.set(
      { ...saving("app||bytes", "", { etag }), value: Uint8Array.of(1, 255), json: false },
      signal,
    );
    await store.set(saving("app||json", '"text"', { ttlSeconds: 60 }), signal);
    const rows = await server.query(
      `SELECT key, value::text AS value, isbinary, updatedate IS NULL AS fresh,
      expiredate - updatedate = interval '60 seconds' AS ends FROM state ORDER BY key`,
    );
    expect(rows).toEqual([
      { key: "app||bytes", value: '"Af8="', isbinary: true, fresh: false, ends: null },
      { key: "app||json", value: '"text"', isbinary: false, fresh: false, ends: true },
    ]);
    await store.close();
  });

  it("v1: completes a table of an older version", async () => {
    await server.query(
      `CREATE TABLE old_state (key text NOT NULL PRIMARY KEY, value jsonb NOT NULL, isbinary boolean NOT NULL,
      insertdate timestamptz NOT NULL DEFAULT now(), updatedate timestamptz NULL)`,
    );
    await server.query(`INSERT INTO old_state (key, value, isbinary) VALUES ('app||old', '1', false)`);
    const store = await open("v1", { tableName: "public.old_state", metadataTableName: "old_notes" });
    expect(await text(store, "app||old")).toBe("1");
    expect((await columns("old_state")).slice(-2)).toEqual([
      "expiredate timestamp with time zone YES",
      "row_id bigint NO",
    ]);
    await store.close();
  });

  it("v2: reads rows as Dapr leaves them, and writes the same", async () => {
    const store = await open("v2", { tablePrefix: "pre_" });
    expect(await columns("pre_state")).toEqual([
      "key text NO",
      "value bytea NO",
      "etag uuid NO",
      "created_at timestamp with time zone NO",
      "updated_at timestamp with time zone YES",
      "expires_at timestamp with time zone YES",
      "row_id bigint NO",
    ]);
    const notes = await server.query(
      "SELECT value FROM dapr_metadata WHERE key = 'migrations-state-v2-pre_'",
    );
    expect(notes).toEqual([{ value: "2" }]);
    await server.query(`INSERT INTO pre_state (key, value) VALUES ('app||k', '\\x7b7d')`);
    expect(await text(store, "app||k")).toBe("{}");
    const { etag } = (await store.get("app||k", reading))!;
    await store.set(saving("app||k", '"text"', { etag }), signal);
    const rows = await server.query("SELECT value, updated_at IS NULL AS fresh, etag FROM pre_state");
    expect(rows).toMatchObject([{ value: Buffer.from('"text"'), fresh: false }]);
    expect(rows[0]!["etag"]).not.toBe(etag);
    await store.close();
  });

  it("says that a table is one of the other version", async () => {
    await (await open("v1", { tableName: "mixed_state" })).close();
    await expect(open("v2", { tablePrefix: "mixed_" })).rejects.toThrow("choose another table with metadata");
  });

  it("opens twelve times at once on an empty database", async () => {
    const opening = Array.from({ length: 12 }, (_, index) =>
      open(index % 2 === 0 ? "v1" : "v2", {
        tableName: "many",
        tablePrefix: "many_",
        metadataTableName: "many_notes",
        maxConns: "1",
      }),
    );
    const stores = await Promise.all(opening);
    await Promise.all(stores.map((store) => store.close()));
  });

  it("deletes expired rows once per interval", async () => {
    const clock = manualClock();
    const properties = { connectionString: server.url, tablePrefix: "clean_", cleanupInterval: "1s" };
    const store = await openStore(postgresql, { version: "v2", properties, clock });
    await server.query(
      `INSERT INTO clean_state (key, value, expires_at) VALUES ('k', '1', now() - interval '1s')`,
    );
    clock.advance(1_000);
    await eventually(async () => (await server.query("SELECT * FROM clean_state")).length === 0);
    await store.close();
  });

  it.each([
    [{ connectionString: "" }, "missing connection string"],
    [{ tableName: "x; DROP TABLE state" }, "is no table name"],
    [{ timeout: "10ms" }, "at least 1s"],
    [{ useAWSIAM: "true" }, "not supported"],
  ])("refuses %j", async (more, message) => {
    await expect(open("v1", more)).rejects.toThrow(message);
  });
});
