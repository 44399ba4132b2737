// Every rule of a table (mesh/types.ts) against a real bucket, and that other KV clients can live in it.
import { headers as natsHeaders } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JoinedMesh, Table, TableKey, TableWrite } from "../../../mesh/index.ts";
import { eventually } from "../../kit/index.ts";
import { type Lab, bytes, codeOf, startLab, textOf } from "./lab.ts";

let lab: Lab;
let mesh: JoinedMesh;
let table: Table;
let count = 0;
beforeAll(async () => {
  lab = await startLab();
  mesh = await lab.join("t");
  table = await mesh.table({ kind: "state", name: ["default", "store"] });
});
afterAll(() => lab[Symbol.asyncDispose]());

const fresh = (): TableKey => ["keys", `k${count++}`];
const valueOf = async (key: TableKey) => textOf((await table.get(key))?.value);
const put = (key: TableKey, value: string, expect?: number | "absent"): TableWrite =>
  expect === undefined
    ? { kind: "put", key, value: bytes(value) }
    : { kind: "put", key, value: bytes(value), expect };
const sorted = (keys: readonly TableKey[]) => keys.map((key) => key.join("/")).toSorted();

describe("one key", () => {
  it("is absent, is written, is written again, is deleted; revisions grow and are never reused", async () => {
    const key = fresh();
    expect(await table.get(key)).toBeUndefined();
    const first = await table.put(key, bytes("1"));
    expect(await table.get(key)).toEqual({ value: bytes("1"), revision: first });
    expect(await table.get(key, { strong: true })).toEqual({ value: bytes("1"), revision: first });
    const second = await table.put(key, new Uint8Array(0));
    expect(second).toBeGreaterThan(first);
    expect(await table.get(key)).toEqual({ value: bytes(""), revision: second });
    await table.delete(key);
    expect(await table.get(key)).toBeUndefined();
    await table.delete(key);
    expect(await table.put(key, bytes("3"))).toBeGreaterThan(second + 1);
  });

  it.each([
    ["each byte", [Array.from({ length: 256 }, (_, i) => String.fromCharCode(i)).join("")]],
    ["empty parts", ["", "", ""]],
    ["wildcards and dots", ["*", ">", "a.b", "."]],
    ["unicode", ["日本", "é", "😀"]],
    ["300 bytes", ["a".repeat(120), "ü".repeat(90)]],
    ["2,800 bytes, the most that stays readable", ["a".repeat(1_400), "b".repeat(1_399)]],
    ["2,801 bytes", ["a".repeat(1_400), "b".repeat(1_400)]],
    ["5 KB in one part", ["x".repeat(5_000)]],
    ["5 KB in many parts", Array.from({ length: 100 }, (_, i) => `${i}`.repeat(25))],
  ] as [string, string[]][])("may have any name: %s", async (_name, parts) => {
    const [bucket, key] = [await mesh.table({ kind: "names", name: [String(count++)] }), ["own", ...parts]];
    const revision = await bucket.put(key, bytes("v"), { expect: "absent" });
    expect(await bucket.get(key)).toEqual({ value: bytes("v"), revision });
    expect(await bucket.getMany([key])).toEqual([{ value: bytes("v"), revision }]);
    expect(await codeOf(bucket.put(key, bytes("w"), { expect: "absent" }))).toBe("conflict");
    await bucket.put([...key.slice(0, -1), `${key.at(-1)}!`], bytes("neighbour"));
    for (let depth = 0; depth < key.length; depth++) {
      const listed = await bucket.list(key.slice(0, depth), 10);
      expect(listed).toHaveLength(2);
      expect(listed).toContainEqual(key);
    }
    await bucket.delete(key, { expect: revision });
    expect(await bucket.list([], 10)).toHaveLength(1);
  });

  it("above 32 KiB, or without a part, is refused", async () => {
    expect(await codeOf(table.get(["x".repeat(40_000)]))).toBe("too-large");
    expect(await codeOf(table.get([]))).toBe("protocol");
  });

  it("holds values up to the limit; above it says too-large", async () => {
    const key = fresh();
    const limit = mesh.maxPayloadBytes();
    await table.put(key, new Uint8Array(limit));
    expect((await table.get(key))?.value.length).toBe(limit);
    expect(await codeOf(table.put(key, new Uint8Array(limit + 1)))).toBe("too-large");
    await expect(table.put(key, new Uint8Array(limit), { ttlSeconds: 100 })).rejects.toMatchObject({
      code: "too-large",
      message: expect.stringContaining("max_payload"),
    });
    expect((await table.get(key))?.value.length).toBe(limit);
  });

  it("is given up when the caller gives up", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    const failed = { code: "cancelled", message: "enough" };
    await expect(table.get(fresh(), { signal })).rejects.toMatchObject(failed);
    await expect(table.put(fresh(), bytes("v"), { signal })).rejects.toMatchObject(failed);
    await expect(table.put(fresh(), bytes("v"), { expect: "absent", signal })).rejects.toMatchObject(failed);
    await expect(table.getMany([fresh()], { signal })).rejects.toMatchObject(failed);
    await expect(table.batch([put(fresh(), "1"), put(fresh(), "2")], { signal })).rejects.toMatchObject(
      failed,
    );
  });

  it("one caller that gives up while the bucket is made does not take the others with it", async () => {
    const bucket = await mesh.table({ kind: "shared", name: ["start"] });
    const stop = new AbortController();
    const first = codeOf(bucket.get(["a"], { signal: stop.signal }));
    const second = codeOf(bucket.get(["a"]));
    stop.abort();
    expect(await first).toBe("cancelled");
    expect(await second).toBe("success");
  });
});

describe("a guard", () => {
  it("by revision: only the current one passes", async () => {
    const key = fresh();
    const first = await table.put(key, bytes("1"));
    const second = await table.put(key, bytes("2"), { expect: first });
    await expect(table.put(key, bytes("x"), { expect: first })).rejects.toMatchObject({
      code: "conflict",
      index: 0,
    });
    expect(await codeOf(table.delete(key, { expect: first }))).toBe("conflict");
    expect(await valueOf(key)).toBe("2");
    await table.delete(key, { expect: second });
    expect(await valueOf(key)).toBeUndefined();
    expect(await codeOf(table.put(key, bytes("x"), { expect: second }))).toBe("conflict");
    expect(await codeOf(table.delete(key, { expect: second }))).toBe("conflict");
  });

  it("absent: passes for a key that never was, after a delete and after a purge; not for one that is", async () => {
    const key = fresh();
    await table.put(key, bytes("1"), { expect: "absent" });
    expect(await codeOf(table.put(key, bytes("x"), { expect: "absent" }))).toBe("conflict");
    await table.delete(key);
    const again = await table.put(key, bytes("2"), { expect: "absent" });
    expect(await table.get(key)).toEqual({ value: bytes("2"), revision: again });
    const client = await lab.nats.connect();
    const purge = natsHeaders();
    purge.set("KV-Operation", "PURGE");
    purge.set("Nats-Rollup", "sub");
    await client.request(`$KV.${table.bucket}.${key.join(".")}`, "", { headers: purge, timeout: 5_000 });
    expect(await valueOf(key)).toBeUndefined();
    await table.put(key, bytes("3"), { expect: "absent" });
    expect(await valueOf(key)).toBe("3");
  });

  it("delete of an absent key: fine when absent is expected, a conflict when a value is there", async () => {
    const key = fresh();
    await table.delete(key, { expect: "absent" });
    await table.put(key, bytes("1"));
    expect(await codeOf(table.delete(key, { expect: "absent" }))).toBe("conflict");
    await table.delete(key);
    await table.delete(key, { expect: "absent" });
  });

  it("lets one of many creators win, also over a tombstone", async () => {
    const [never, deleted] = [fresh(), fresh()];
    await table.delete(deleted);
    for (const key of [never, deleted]) {
      const codes = await Promise.all(
        Array.from({ length: 20 }, () => codeOf(table.put(key, bytes("v"), { expect: "absent" }))),
      );
      expect(codes.filter((code) => code === "success")).toHaveLength(1);
      expect(codes.filter((code) => code === "conflict")).toHaveLength(19);
    }
  });

  it("makes a counter exact under 4 writers", async () => {
    const key = fresh();
    await table.put(key, bytes("0"));
    const increment = async (bucket: Table): Promise<void> => {
      for (;;) {
        const { value, revision } = (await bucket.get(key))!;
        const next = bytes(String(Number(textOf(value)) + 1));
        const code = await codeOf(bucket.put(key, next, { expect: revision }));
        if (code === "success") return;
        expect(code).toBe("conflict");
      }
    };
    await Promise.all(
      Array.from({ length: 4 }, async (_, i) => {
        const writer = await (await lab.join(`w${i}`)).table({ kind: "state", name: ["default", "store"] });
        for (let n = 0; n < 50; n++) await increment(writer);
      }),
    );
    expect(await valueOf(key)).toBe("200");
  });
});

describe("time to live", () => {
  it("a value tells when it expires, expires, and leaves room for a creator; a write without it stays", async () => {
    const [long, short, kept] = [fresh(), fresh(), fresh()];
    const beganMs = Date.now();
    await table.put(long, bytes("1"), { ttlSeconds: 100 });
    const { expiresAtMs } = (await table.get(long))!;
    expect(expiresAtMs).toBeGreaterThan(beganMs + 99_900);
    expect(expiresAtMs).toBeLessThan(Date.now() + 100_100);
    expect((await table.getMany([long]))[0]?.expiresAtMs).toBe(expiresAtMs);
    await table.put(kept, bytes("1"), { ttlSeconds: 1 });
    const revision = await table.put(kept, bytes("2"));
    const writtenMs = Date.now();
    await table.put(short, bytes("1"), { ttlSeconds: 1 });
    await eventually(async () => (await table.get(short)) === undefined);
    expect(Date.now()).toBeGreaterThan(writtenMs + 990);
    await table.put(short, bytes("2"), { expect: "absent" });
    expect(await table.get(kept)).toEqual({ value: bytes("2"), revision });
  });

  it("works in a batch and with a guard; a fraction counts as the next second; none below 1 s", async () => {
    const [a, b] = [fresh(), fresh()];
    const beganMs = Date.now();
    await table.batch([{ ...put(a, "1"), ttlSeconds: 100 } as TableWrite, put(b, "2")]);
    const [first, second] = await table.getMany([a, b]);
    expect(first?.expiresAtMs).toBeGreaterThan(beganMs + 99_900);
    expect(second).not.toHaveProperty("expiresAtMs");
    await table.put(a, bytes("3"), { expect: first!.revision, ttlSeconds: 70.2 });
    expect((await table.get(a))!.expiresAtMs! - beganMs).toBeGreaterThan(70_900);
    expect(await codeOf(table.put(a, bytes("x"), { ttlSeconds: 0 }))).toBe("storage");
    expect(await codeOf(table.put(a, bytes("x"), { ttlSeconds: Number.NaN }))).toBe("storage");
    expect(await valueOf(a)).toBe("3");
  });

  it("of other clients is read as NATS reads it", async () => {
    const client = await lab.nats.connect();
    for (const [text, seconds] of [
      ["1h30m", 5_400],
      ["90", 90],
      ["2m0.5s", 120],
    ] as const) {
      const [key, headers] = [fresh(), natsHeaders()];
      headers.set("Nats-TTL", text);
      await client.request(`$KV.${table.bucket}.${key.join(".")}`, "v", { headers, timeout: 5_000 });
      const leftMs = (await table.get(key))!.expiresAtMs! - Date.now();
      expect(Math.round(leftMs / 10_000)).toBe(Math.round(seconds / 10));
    }
  });

  it("a delete leaves a tombstone that goes by itself", async () => {
    const key = fresh();
    await table.put(key, bytes("1"));
    await table.delete(key);
    const client = await lab.nats.connect();
    const stored = await client.request(
      `$JS.API.DIRECT.GET.KV_${table.bucket}.$KV.${table.bucket}.${key.join(".")}`,
      "",
      { timeout: 10_000 },
    );
    expect(stored.headers?.get("KV-Operation")).toBe("DEL");
    expect(stored.headers?.get("Nats-TTL")).toBe("3600s");
  });
});

describe("a batch", () => {
  it("writes all or nothing, and names the write that failed", async () => {
    const [a, b, c, d] = [fresh(), fresh(), fresh(), fresh()];
    const revision = await table.put(a, bytes("1"));
    await table.put(b, bytes("1"));
    const stale = [put(c, "2", "absent"), put(a, "2", revision), put(b, "2", "absent"), put(d, "2")];
    await expect(table.batch(stale)).rejects.toMatchObject({ code: "conflict", index: 2 });
    expect((await table.getMany([a, b, c, d])).map((entry) => textOf(entry?.value))).toEqual([
      "1",
      "1",
      undefined,
      undefined,
    ]);
    await table.batch([
      put(c, "2", "absent"),
      put(a, "2", revision),
      { kind: "delete", key: b },
      put(d, "2"),
    ]);
    expect((await table.getMany([a, b, c, d])).map((entry) => textOf(entry?.value))).toEqual([
      "2",
      undefined,
      "2",
      "2",
    ]);
    await expect(table.batch([put(a, "3", revision)])).rejects.toMatchObject({ code: "conflict", index: 0 });
  });

  it("creates over tombstones, and deletes by revision", async () => {
    const [a, b, c] = [fresh(), fresh(), fresh()];
    for (const key of [a, b]) {
      await table.put(key, bytes("1"));
      await table.delete(key);
    }
    const revision = await table.put(c, bytes("1"));
    await table.batch([
      put(a, "2", "absent"),
      put(b, "2", "absent"),
      { kind: "delete", key: c, expect: revision },
    ]);
    expect((await table.getMany([a, b, c])).map((entry) => textOf(entry?.value))).toEqual([
      "2",
      "2",
      undefined,
    ]);
    const failed = table.batch([put(a, "3"), { kind: "delete", key: c, expect: revision }]);
    await expect(failed).rejects.toMatchObject({ code: "conflict", index: 1 });
    expect(await valueOf(a)).toBe("2");
  });

  it("takes 1,000 writes, not 1,001, and a key once", async () => {
    const keys = Array.from({ length: 1_001 }, (_, i) => ["batch", `${i}`]);
    await table.batch(keys.slice(1).map((key) => put(key, key[1]!, "absent")));
    expect(await table.list(["batch"], 2_000)).toHaveLength(1_000);
    expect(await codeOf(table.batch(keys.map((key) => put(key, "x"))))).toBe("storage");
    expect(await codeOf(table.batch([put(keys[0]!, "x"), put(keys[0]!, "y")]))).toBe("storage");
    const late = table.batch(keys.slice(1).map((key, i) => put(key, "x", i === 999 ? "absent" : undefined)));
    await expect(late).rejects.toMatchObject({ code: "conflict", index: 999 });
    await table.batch([]);
  });

  it("with one message above the limit is refused before anything is sent", async () => {
    const [a, b] = [fresh(), fresh()];
    for (let i = 0; i < 60; i++) {
      const large = { kind: "put", key: b, value: new Uint8Array(mesh.maxPayloadBytes()) } as const;
      expect(await codeOf(table.batch([put(a, "1"), large]))).toBe("too-large");
    }
    // NATS has room for 50 open batches.
    await table.batch([put(a, "1"), put(b, "2")]);
  });

  it("under contention is applied once each: money is neither made nor lost", async () => {
    const accounts = Array.from({ length: 6 }, fresh);
    await table.batch(accounts.map((key) => put(key, "100")));
    const move = async (from: TableKey, into: TableKey): Promise<void> => {
      for (;;) {
        const [a, b] = await table.getMany([from, into]);
        const writes = [
          put(from, String(Number(textOf(a!.value)) - 1), a!.revision),
          put(into, String(Number(textOf(b!.value)) + 1), b!.revision),
        ];
        const code = await codeOf(table.batch(writes));
        if (code === "success") return;
        expect(code).toBe("conflict");
      }
    };
    await Promise.all(
      Array.from({ length: 12 }, (_, i) => move(accounts[i % 6]!, accounts[(i + 1 + (i % 3)) % 6]!)),
    );
    const balances = (await table.getMany(accounts)).map((entry) => Number(textOf(entry?.value)));
    expect(balances.reduce((a, b) => a + b)).toBe(600);
  });

  it("works in a memory bucket too", async () => {
    const memory = await mesh.table({ kind: "scratch", name: ["m"], storage: "memory" });
    await memory.batch([put(["a"], "1", "absent"), put(["b"], "2")]);
    expect((await memory.getMany([["a"], ["b"]])).map((entry) => textOf(entry?.value))).toEqual(["1", "2"]);
  });
});

describe("many keys", () => {
  it("are read in the order asked for, with duplicates and gaps", async () => {
    const [a, b, c] = [fresh(), fresh(), fresh()];
    await table.put(a, bytes("a"));
    await table.put(b, bytes("b"));
    await table.delete(b);
    const read = await table.getMany([c, a, b, a]);
    expect(read.map((entry) => textOf(entry?.value))).toEqual([undefined, "a", undefined, "a"]);
    expect(await table.getMany([])).toEqual([]);
  });

  it("more than 1,000, and names that do not fit in one request", async () => {
    const bucket = await mesh.table({ kind: "many", name: ["k"] });
    const keys = Array.from({ length: 2_500 }, (_, i) => [`${i}`, "n".repeat(i % 5 === 0 ? 2_000 : 3)]);
    for (let i = 0; i < keys.length; i += 1_000)
      await bucket.batch(keys.slice(i, i + 1_000).map((key) => put(key, key[0]!)));
    const read = await bucket.getMany([...keys, ["none"]]);
    expect(read.map((entry) => textOf(entry?.value))).toEqual([...keys.map((key) => key[0]), undefined]);
    const strong = await bucket.getMany(keys.slice(0, 5), { strong: true });
    expect(strong.map((entry) => textOf(entry?.value))).toEqual(["0", "1", "2", "3", "4"]);
  });

  it("with more bytes than the server gives at once", async () => {
    const bucket = await mesh.table({ kind: "many", name: ["bytes"] });
    const keys = Array.from({ length: 40 }, (_, i) => [`${i}`]);
    const value = Buffer.alloc(1_000_000);
    await Promise.all(keys.map((key) => bucket.put(key, value)));
    const read = await bucket.getMany(keys);
    expect(read.map((entry) => entry?.value.length)).toEqual(keys.map(() => value.length));
    expect(await bucket.list([], 1_000)).toHaveLength(40);
  });

  it("are listed below a prefix: whole parts only, without tombstones and expired ones, up to the limit", async () => {
    const bucket = await mesh.table({ kind: "many", name: ["list"] });
    const keys = Array.from({ length: 1_300 }, (_, i) => ["a", `${i}`]);
    for (let i = 0; i < keys.length; i += 650)
      await bucket.batch(keys.slice(i, i + 650).map((key) => put(key, "v")));
    await bucket.batch(keys.slice(0, 300).map((key) => ({ kind: "delete", key })));
    await bucket.batch([put(["ab"], "v"), put(["a"], "v"), put(["b", "a"], "v"), put(["a", "x", "y"], "v")]);
    expect(sorted(await bucket.list(["a"], 10_000))).toEqual(sorted([...keys.slice(300), ["a", "x", "y"]]));
    expect(sorted(await bucket.list(["a", "x"], 10))).toEqual(["a/x/y"]);
    expect(await bucket.list(["a"], 7)).toHaveLength(7);
    expect(await bucket.list(["none"], 7)).toEqual([]);
    expect(await bucket.list([], 10_000)).toHaveLength(1_004);
  });

  it("are listed once and completely while all of them are written again and again", async () => {
    const bucket = await mesh.table({ kind: "many", name: ["hot"] });
    const keys = Array.from({ length: 400 }, (_, i) => [`${i}`]);
    const rewrite = () => Promise.all(keys.map((key) => bucket.put(key, bytes("v"))));
    await rewrite();
    let writing = true;
    const writer = (async () => {
      while (writing) await rewrite();
    })();
    for (let i = 0; i < 3; i++) expect(sorted(await bucket.list([], 1_000))).toEqual(sorted(keys));
    writing = false;
    await writer;
  });

  it("that another program made up are left out, and are no harm", async () => {
    const bucket = await mesh.table({ kind: "many", name: ["foreign"] });
    await bucket.put(["ours"], bytes("v"));
    const client = await lab.nats.connect();
    for (const key of ["a/b", "x=y", "=hnothing", "ü"])
      await client.request(`$KV.${bucket.bucket}.${key}`, "v", { timeout: 5_000 });
    expect(await bucket.list([], 10)).toEqual([["ours"]]);
  });
});

describe("a bucket", () => {
  it("is deleted under a running participant: made again by the next operation of any kind", async () => {
    const client = await lab.nats.connect();
    const bucket = await mesh.table({ kind: "gone", name: ["x"] });
    const operations: (() => Promise<unknown>)[] = [
      () => bucket.get(["k"]),
      () => bucket.put(["k"], bytes("v")),
      () => bucket.put(["k2"], bytes("v"), { expect: "absent" }),
      () => bucket.batch([put(["a"], "1"), put(["b"], "2")]),
      () => bucket.getMany([["k"]]),
      () => bucket.list([], 1),
      () => bucket.delete(["k"]),
    ];
    for (const operation of operations) {
      await bucket.put(["x"], bytes("v"));
      await client.request(`$JS.API.STREAM.DELETE.KV_${bucket.bucket}`, "", { timeout: 5_000 });
      expect(await codeOf(operation())).toBe("success");
    }
  });

  it("of an older Weft lacks a feature: switched on, its data kept", async () => {
    const client = await lab.nats.connect();
    const name = "KV_weft__state__default__old";
    const config = {
      name,
      subjects: ["$KV.weft__state__default__old.>"],
      storage: "file",
      max_msgs_per_subject: 1,
    };
    await client.request(`$JS.API.STREAM.CREATE.${name}`, JSON.stringify(config), { timeout: 5_000 });
    await client.request("$KV.weft__state__default__old.k", "v", { timeout: 5_000 });
    const old = await mesh.table({ kind: "state", name: ["default", "old"] });
    expect(textOf((await old.get(["k"]))?.value)).toBe("v");
    await old.batch([{ ...put(["a"], "1"), ttlSeconds: 100 } as TableWrite, put(["b"], "2")]);
    expect((await old.get(["a"]))?.expiresAtMs).toBeDefined();
  });

  it("of a very long name can be made, and 200 at once create it once", async () => {
    const bucket = await mesh.table({ kind: "k".repeat(150), name: ["n".repeat(150), "c".repeat(170)] });
    const codes = await Promise.all(
      Array.from({ length: 200 }, (_, i) => codeOf(bucket.put([`${i}`], bytes("v")))),
    );
    expect(new Set(codes)).toEqual(new Set(["success"]));
    expect(bucket.bucket.length).toBeLessThan(250);
  });
});
