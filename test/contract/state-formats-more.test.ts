/** As state-formats.test.ts, for MySQL, etcd, MongoDB and JetStream. */
import { jetstreamManager } from "@nats-io/jetstream";
import { MongoClient } from "mongodb";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../mesh/clock.ts";
import type { StateReadOptions, StateSet, StateStore } from "../../src/blocks/state/port.ts";
import { openEtcd } from "../../src/components/connect/etcd.ts";
import { decodeRange, encodeRange, encodeTxn } from "../../src/components/connect/etcd-wire.ts";
import * as etcd from "../../src/components/state/etcd.ts";
import * as jetstream from "../../src/components/state/jetstream.ts";
import * as mongodb from "../../src/components/state/mongodb.ts";
import * as mysql from "../../src/components/state/mysql.ts";
import { eventually } from "../kit/eventually.ts";
import { startNats } from "../kit/nats.ts";
import { startEtcd } from "../kit/servers/etcd.ts";
import { type MariaDb, startMariaDb } from "../kit/servers/mariadb.ts";
import { startMongo } from "../kit/servers/mongo.ts";
import { manualClock } from "./manual-clock.ts";
import { openStore } from "./open-store.ts";
import { silentLog } from "./silent-log.ts";

const signal = new AbortController().signal;
const reading: StateReadOptions = { consistency: "strong", metadata: {}, signal };

function saving(key: string, value: string | Uint8Array, more: Partial<StateSet> = {}): StateSet {
  const json = typeof value === "string";
  const plain = { kind: "set", json, etag: undefined, createOnly: false, ttlSeconds: undefined } as const;
  return { ...plain, key, value: Buffer.from(value), metadata: {}, ...more };
}

async function text(store: StateStore, key: string): Promise<string | undefined> {
  const record = await store.get(key, reading);
  return record && Buffer.from(record.value).toString();
}

describe("tables of state.mysql", () => {
  let server: MariaDb;
  beforeAll(async () => {
    server = await startMariaDb();
  });
  afterAll(async () => server?.[Symbol.asyncDispose]());
  const open = (more: Record<string, string> = {}): Promise<StateStore> =>
    openStore(mysql, {
      properties: { connectionString: `root@tcp(${server.address})/?charset=utf8`, ...more },
    });

  it("have Dapr's columns; rows are read and written as Dapr does", async () => {
    const store = await open();
    const columns = await server.query(
      `SELECT column_name AS name, data_type AS type FROM information_schema.columns
      WHERE table_schema = 'dapr_state_store' AND table_name = 'state' ORDER BY ordinal_position`,
    );
    expect(columns.map(({ name, type }) => `${name as string} ${type as string}`)).toEqual([
      "id varchar",
      "value longtext",
      "isbinary tinyint",
      "insertDate timestamp",
      "updateDate timestamp",
      "eTag varchar",
      "expiredate timestamp",
      "row_id bigint",
    ]);
    await server.query(
      `INSERT INTO dapr_state_store.state (id, value, isbinary, eTag) VALUES ('app||json', '{"a":1}', 0, 'e1'),
      ('app||bytes', '"AP8="', 1, 'e2')`,
    );
    expect(await text(store, "app||json")).toBe('{"a":1}');
    expect(await store.get("app||bytes", reading)).toEqual({ value: Buffer.from([0, 255]), etag: "e2" });
    await store.set(saving("app||bytes", Uint8Array.of(1, 255), { etag: "e2" }), signal);
    await store.set(saving("app||json", '"text"', { ttlSeconds: 60 }), signal);
    const rows = await server.query(
      `SELECT id, CAST(value AS CHAR) AS value, isbinary, expiredate > CURRENT_TIMESTAMP AS ends
      FROM dapr_state_store.state ORDER BY id`,
    );
    expect(rows).toEqual([
      { id: "app||bytes", value: '"Af8="', isbinary: 1, ends: null },
      { id: "app||json", value: '"text"', isbinary: 0, ends: 1 },
    ]);
    await store.close();
  });

  it("of older versions are completed, and keys in another case are other keys", async () => {
    await server.query("CREATE DATABASE old");
    await server.query(
      `CREATE TABLE old.state (id VARCHAR(255) NOT NULL PRIMARY KEY, value JSON NOT NULL, isbinary BOOLEAN NOT NULL,
      insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
      eTag VARCHAR(36) NOT NULL)`,
    );
    const old = await open({ schemaName: "old" });
    await old.set(saving("Key", "1", { ttlSeconds: 60 }), signal);
    expect(await text(old, "Key")).toBe("1");
    expect(await text(old, "key")).toBeUndefined();
    const store = await open();
    await store.set(saving("Key", "1"), signal);
    await store.set(saving("key", "2"), signal);
    await store.set(saving("key ", "3"), signal);
    expect([await text(store, "Key"), await text(store, "key"), await text(store, "key ")]).toEqual([
      "1",
      "2",
      "3",
    ]);
    await Promise.all([old.close(), store.close()]);
  });

  it("lose expired rows once per interval", async () => {
    const clock = manualClock();
    const connectionString = `root@tcp(${server.address})/`;
    const properties = { connectionString, schemaName: "cleaned", cleanupInterval: "1s" };
    const store = await openStore(mysql, { properties, clock });
    await server.query(
      `INSERT INTO cleaned.state (id, value, isbinary, eTag, expiredate) VALUES ('k', '1', 0, 'e', '2001-01-01')`,
    );
    clock.advance(1_000);
    await eventually(async () => (await server.query("SELECT * FROM cleaned.state")).length === 0);
    await store.close();
  });

  it.each([
    ["root:x", {}, "user:password@tcp(host:port)/"],
    ["root@udp(x)/", {}, "neither tcp nor unix"],
    ["root@tcp(127.0.0.1:1)/", { tableName: "a;b" }, "is no table name"],
    ["root@tcp(127.0.0.1:1)/?tls=custom", {}, 'needs the metadata field "pemPath"'],
    ["root@tcp(127.0.0.1:1)/", {}, "ECONNREFUSED"],
  ])("refuse %s %j", async (connectionString, more, message) => {
    await expect(open({ connectionString, ...more })).rejects.toThrow(message);
  });
});

describe("records of state.etcd", () => {
  it("are Dapr's, in both versions", async () => {
    await using server = await startEtcd();
    const raw = openEtcd({
      endpoints: [server.address],
      tls: undefined,
      timeoutMs: 5_000,
      clock: systemClock,
      log: silentLog,
    });
    const readRaw = async (key: string): Promise<string> => {
      const answer = await raw.call("KV/Range", "read", encodeRange(key, false), signal);
      return Buffer.from(decodeRange(answer)!.value).toString("hex");
    };
    const writeRaw = (key: string, hex: string): Promise<unknown> => {
      const put = { kind: "put", key, value: Buffer.from(hex, "hex"), lease: "0" } as const;
      return raw.call("KV/Txn", "write", encodeTxn([], [put], []), signal);
    };
    const clock = manualClock();
    const open = (version: string): Promise<StateStore> =>
      openStore(etcd, { properties: { endpoints: server.address, keyPrefixPath: version }, version, clock });
    const [v1, v2] = [await open("v1"), await open("v2")];
    await v1.set(saving("app||k", '{"a":1}'), signal);
    expect(await readRaw("v1/app||k")).toBe(Buffer.from('{"a":1}').toString("hex"));
    // data, then the time of the write (2025-01-01), then an empty time to live.
    await v2.set(saving("app||k", "7"), signal);
    expect(await readRaw("v2/app||k")).toBe("0a0137120608808bd2bb061a00");
    await v2.set(saving("app||k", "7", { ttlSeconds: 60 }), signal);
    expect(await readRaw("v2/app||k")).toBe("0a0137120608808bd2bb061a02083c");
    expect((await v2.get("app||k", reading))!.expiresAtMs).toBe(clock.nowMs() + 60_000);
    await writeRaw("v2/app||theirs", "0a027b7d120c08808bd2bb061080cab5ee011a02083c");
    const theirs = await v2.get("app||theirs", reading);
    expect(Buffer.from(theirs!.value).toString()).toBe("{}");
    expect(theirs!.expiresAtMs).toBe(clock.nowMs() + 60_500);
    await Promise.all([v1.close(), v2.close()]);
    raw.close();
  });

  it("need no server to open the store, and any of several members will do", async () => {
    const away = await openStore(etcd, { properties: { endpoints: "127.0.0.1:1" } });
    await expect(away.get("k", reading)).rejects.toThrow("ECONNREFUSED");
    await away.close();
    await using server = await startEtcd();
    const endpoints = `127.0.0.1:1, ${server.address},127.0.0.1:2`;
    const store = await openStore(etcd, { properties: { endpoints } });
    await store.set(saving("k", "1"), signal);
    expect(await text(store, "k")).toBe("1");
    await store.close();
  });
});

describe("documents of state.mongodb", () => {
  it("are Dapr's", async () => {
    await using server = await startMongo();
    const store = await openStore(mongodb, { properties: { host: server.address, params: "?appName=x" } });
    const client = await new MongoClient(`mongodb://${server.address}`).connect();
    const documents = client.db("daprStore").collection<{ _id: string }>("daprCollection");
    const find = (key: string): Promise<unknown> => documents.findOne({ _id: key }, { promoteValues: false });
    await store.set(saving("app||json", '{"b":{"n":1},"a":[true,null]}'), signal);
    expect(await documents.findOne({ _id: "app||json" })).toMatchObject({
      value: { b: { n: 1 }, a: [true, null] },
      _etag: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      _ttl: null,
    });
    expect(JSON.stringify(await find("app||json"))).toContain("1");
    expect(await text(store, "app||json")).toBe('{"a":[true,null],"b":{"n":1}}');
    await store.set(saving("app||text", '"text"', { ttlSeconds: 60 }), signal);
    expect(await documents.findOne({ _id: "app||text" })).toMatchObject({
      value: '"text"',
      _ttl: expect.any(Date) as Date,
    });
    await documents.insertOne({ _id: "app||theirs", value: { z: 1, a: 2 }, _etag: "e", _ttl: null } as never);
    expect(await text(store, "app||theirs")).toBe('{"a":2,"z":1}');
    await store.set(saving("app||theirs", Buffer.from("bytes"), { etag: "e" }), signal);
    expect(await documents.findOne({ _id: "app||theirs" })).toMatchObject({ value: "bytes" });
    await client.close();
    await store.close();
  });

  it.each([
    [{}, "exactly one of the metadata fields"],
    [{ host: "a", server: "b" }, "exactly one of the metadata fields"],
    [{ host: "127.0.0.1:1", operationTimeout: "2s" }, "ECONNREFUSED"],
  ])("refuse %j", async (properties, message) => {
    await expect(openStore(mongodb, { properties })).rejects.toThrow(message);
  });
});

describe("keys of state.jetstream", () => {
  it("are Dapr's", async () => {
    await using server = await startNats();
    const client = await server.connect();
    const manager = await jetstreamManager(client);
    const properties = { natsURL: server.url, bucket: "states" };
    await expect(openStore(jetstream, { properties })).rejects.toThrow("bucket states not found");
    await manager.streams.add({ name: "KV_states", subjects: ["$KV.states.>"], max_msgs_per_subject: 1 });
    const store = await openStore(jetstream, { properties });
    await store.set(saving("app||k", '{"a":"\\u003c"}'), signal);
    const message = await manager.streams.getMessage("KV_states", { last_by_subj: "$KV.states.app.k" });
    expect(Buffer.from(message!.data).toString()).toBe('{"a":"<"}');
    client.publish("$KV.states.app.theirs", "text");
    await client.flush();
    expect(await eventually(() => text(store, "app||theirs"))).toBe("text");
    await store.close();
  });
});
