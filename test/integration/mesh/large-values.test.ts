// Values above max_payload (mesh/large-values.ts) on a real server: whole or not at all, and nothing is left behind.
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type JoinedMesh, type LargeTable, type TableChange, systemClock } from "../../../mesh/index.ts";
import { LargeValueTable } from "../../../mesh/large-values.ts";
import type { JetStreamTable } from "../../../mesh/table.ts";
import { type Lab, bytes, codeOf, startLab } from "./lab.ts";

const MB = 1024 * 1024;
const maxValueBytes = 8 * MB;
let lab: Lab;
let mesh: JoinedMesh;
let count = 0;
beforeAll(async () => {
  lab = await startLab();
  mesh = await lab.join("large");
});
afterAll(() => lab[Symbol.asyncDispose]());

type Fixture = {
  readonly table: LargeTable;
  /** Subjects in the bucket of the parts, by their first token: p, m, w, s. */
  left(kinds?: string): Promise<number>;
  readonly name: string;
};

function fresh(): Fixture {
  const name = `t${count++}`;
  const table = mesh.largeTable({ kind: "big", name: [name], maxValueBytes });
  return {
    table,
    name,
    async left(kinds = "pmw") {
      const parts = await mesh.table({ kind: "big-parts", name: [name] });
      const keys = await parts.list([], 100_000);
      return keys.filter(([kind]) => kinds.includes(kind!)).length;
    },
  };
}

const same = (a: Uint8Array | undefined, b: Uint8Array): void =>
  expect(a !== undefined && Buffer.compare(a, b) === 0).toBe(true);
const never = new AbortController().signal;

it.each([MB - 1, MB, MB + 1, 3 * MB + 17, maxValueBytes])(
  "gives back %i bytes as they were",
  async (size) => {
    const { table } = fresh();
    const value = randomBytes(size);
    const revision = await table.put(["a", "k"], value);
    const entry = await table.get(["a", "k"]);
    same(entry!.value, value);
    expect(entry).toMatchObject({ revision });
    expect(entry).not.toHaveProperty("parts");
    same((await table.get(["a", "k"], { strong: true }))!.value, value);
  },
);

it("keeps guards, and removes the parts of what was refused or replaced", async () => {
  const { table, left } = fresh();
  const [first, second] = [randomBytes(2 * MB), randomBytes(3 * MB)];
  const revision = await table.put(["k"], first, { expect: "absent" });
  const kept = await left();
  expect(await codeOf(table.put(["k"], second, { expect: "absent" }))).toBe("conflict");
  expect(await codeOf(table.put(["k"], second, { expect: revision + 100 }))).toBe("conflict");
  expect(await left()).toBe(kept);
  same((await table.get(["k"]))!.value, first);
  const next = await table.put(["k"], second, { expect: revision });
  expect(await codeOf(table.put(["k"], bytes("small"), { expect: revision }))).toBe("conflict");
  same((await table.get(["k"]))!.value, second);
  await table.put(["k"], bytes("small"), { expect: next });
  expect(await left()).toBe(0);
  await table.put(["k"], first);
  await table.delete(["k"]);
  expect([await table.get(["k"]), await left()]).toEqual([undefined, 0]);
});

it("refuses what is above its limit, and keeps what was there", async () => {
  const { table, left } = fresh();
  await table.put(["k"], bytes("before"));
  expect(await codeOf(table.put(["k"], Buffer.alloc(maxValueBytes + 1)))).toBe("too-large");
  expect(Buffer.from((await table.get(["k"]))!.value).toString()).toBe("before");
  expect(await left()).toBe(0);
});

it("takes large and small values in one batch, all or nothing", async () => {
  const { table, left } = fresh();
  const value = randomBytes(2 * MB);
  const small = { kind: "put", key: ["s"], value: bytes("1") } as const;
  const large = { kind: "put", key: ["l"], value } as const;
  await table.batch([small, large]);
  const found = await table.getMany([["l"], ["s"], ["none"], ["l"]]);
  for (const n of [0, 3]) same(found[n]!.value, value);
  expect(found[2]).toBeUndefined();
  const kept = await left();
  const other = { kind: "put", key: ["l2"], value } as const;
  const refused = table.batch([other, { ...small, expect: "absent" }]);
  await expect(refused).rejects.toMatchObject({ code: "conflict", index: 1 });
  await expect(table.batch([small, { ...large, expect: "absent" }])).rejects.toMatchObject({ index: 1 });
  expect([await left(), await table.get(["l2"])]).toEqual([kept, undefined]);
});

it(
  "shows readers one version or another, never a mix, while writers replace it",
  { timeout: 120_000 },
  async () => {
    const { table, left, name } = fresh();
    const other = (await lab.join("second")).largeTable({ kind: "big", name: [name], maxValueBytes });
    const version = (fill: number): Buffer => Buffer.alloc(1.5 * MB + fill * 1000, fill);
    await table.put(["k"], version(1));
    let writing = true;
    const writers = [table, other].map(async (to, n) => {
      for (let i = 0; i < 15; i++) await to.put(["k"], i % 5 === 4 ? bytes("s") : version(2 * i + n + 2));
    });
    const readers = [table, other].map(async (from) => {
      let reads = 0;
      for (; writing; reads++) {
        const { value } = (await from.get(["k"]))!;
        if (value.length === 1) continue;
        same(value, version(value[0]!));
      }
      return reads;
    });
    await Promise.all(writers).finally(() => (writing = false));
    for (const reads of await Promise.all(readers)) expect(reads).toBeGreaterThan(0);
    await table.put(["k"], bytes("end"));
    await other.sweep(never);
    expect(await left("pm")).toBe(0);
  },
);

it("stores all of many writes of one key that ask for no guard", { timeout: 120_000 }, async () => {
  const { table, left, name } = fresh();
  const other = (await lab.join("third")).largeTable({ kind: "big", name: [name], maxValueBytes });
  const version = (fill: number): Buffer => Buffer.alloc(1.2 * MB, fill);
  const writes = Array.from({ length: 30 }, (_, n) => {
    const to = n % 2 === 0 ? table : other;
    return n % 10 === 9
      ? to.batch([
          { kind: "put", key: ["k"], value: version(n) },
          { kind: "put", key: ["s"], value: bytes("1") },
        ])
      : to.put(["k"], version(n));
  });
  const outcomes = await Promise.allSettled(writes);
  expect(outcomes.filter(({ status }) => status === "rejected")).toEqual([]);
  const { value } = (await table.get(["k"], { strong: true }))!;
  same(value, version(value[0]!));
  await other.sweep(never);
  expect(await left("m")).toBe(1);
});

it("keeps the parts of a large value when a small write before it is acknowledged late", async () => {
  const { name, left } = fresh();
  const open = async (kind: string) => (await mesh.table({ kind, name: [name] })) as JetStreamTable;
  const values = await open("big");
  const ack = Promise.withResolvers<void>();
  const late = new Proxy(values, {
    get(target, member) {
      const value: unknown = Reflect.get(target, member);
      if (member !== "put") return typeof value === "function" ? (value.bind(target) as unknown) : value;
      return async (...args: Parameters<JetStreamTable["put"]>) => {
        const revision = await target.put(...args);
        if (Buffer.from(args[1]).toString() === "small") await ack.promise;
        return revision;
      };
    },
  });
  const parts = await open("big-parts");
  const rest = {
    maxValueBytes,
    maxPayloadBytes: () => MB,
    clock: systemClock,
    random: Math.random,
  };
  const table = new LargeValueTable({ values: late, parts, ...rest });
  const [first, second] = [randomBytes(2 * MB), randomBytes(2 * MB)];
  await table.put(["k"], first);
  const small = table.put(["k"], bytes("small"));
  await expect.poll(async () => (await values.get(["k"]))!.value.length, { timeout: 10_000 }).toBe(5);
  await table.put(["k"], second);
  ack.resolve();
  await small;
  same((await table.get(["k"]))!.value, second);
  expect(await left("m")).toBe(1);
});

it("sweeps what writers left that died, what others replaced and what expired; not what is being written", async () => {
  const { table, left, name } = fresh();
  const value = randomBytes(2 * MB);
  const parts = await mesh.table({ kind: "big-parts", name: [name] });
  expect(await table.sweep(never)).toBe(0);
  await table.put(["replaced"], value);
  await table.put(["kept"], value);
  await table.put(["short"], value, { ttlSeconds: 1 });
  // As a program without this library replaces it.
  await (await mesh.table({ kind: "big", name: [name] })).put(["replaced"], bytes("plain"));
  for (const id of ["dead", "writing"]) {
    await parts.put(["m", id], bytes(JSON.stringify({ v: 1, key: ["never"] })));
    await parts.put(["p", id, "1"], value.subarray(0, 1000));
  }
  await parts.put(["w", "writing"], bytes(""), { ttlSeconds: 3_600 });
  await expect.poll(() => table.get(["short"]), { timeout: 10_000 }).toBeUndefined();
  expect(await table.sweep(never)).toBe(3);
  expect(await table.sweep(never)).toBe(0);
  expect(await left("m")).toBe(2);
  same((await table.get(["kept"]))!.value, value);
  expect(await parts.get(["p", "writing", "1"])).toBeDefined();
});

it("leaves nothing of a value for which there is no room", async () => {
  const { table, left, name } = fresh();
  await table.put(["k"], randomBytes(MB + 1));
  const kept = await left();
  const client = await lab.nats.connect();
  const stream = `KV_weft__big-parts__${name}`;
  const info = await client.request(`$JS.API.STREAM.INFO.${stream}`, "", { timeout: 10_000 });
  const { config } = info.json<{ config: object }>();
  const changed = JSON.stringify({ ...config, max_bytes: 4 * MB });
  const update = await client.request(`$JS.API.STREAM.UPDATE.${stream}`, changed, { timeout: 10_000 });
  expect(update.string()).not.toContain("error");
  expect(await codeOf(table.put(["k"], randomBytes(6 * MB)))).toBe("storage");
  expect(await left()).toBe(kept);
  expect((await table.get(["k"]))!.value).toHaveLength(MB + 1);
});

it("says so when parts are gone, and does not trust what a value says about itself", async () => {
  const { table, name } = fresh();
  await table.put(["k"], randomBytes(2 * MB));
  const parts = await mesh.table({ kind: "big-parts", name: [name] });
  const [part] = await parts.list(["p"], 1);
  await parts.delete(part!);
  await expect(table.get(["k"])).rejects.toMatchObject({
    code: "storage",
    message: /parts of the value are gone/,
  });
  const client = await lab.nats.connect();
  const { headers } = await import("@nats-io/transport-node");
  for (const text of ["x", "a 1 999999999999", "a 9999999 1", "../x 1 1", "a -1 5"]) {
    const hostile = headers();
    hostile.set("Weft-Parts", text);
    await client.request(`$KV.weft__big__${name}.h`, "", { headers: hostile, timeout: 10_000 });
    const code = await codeOf(table.get(["h"]));
    expect([text, ["too-large", "protocol", "storage"].includes(code ?? "")]).toEqual([text, true]);
  }
});

it("tells watches of large values whole", async () => {
  const { table } = fresh();
  const ending = new AbortController();
  const changes = await table.watch({ prefix: ["a"] }, { signal: ending.signal });
  const next = async (): Promise<TableChange> => {
    for (;;) {
      const { value } = await changes.next();
      if ((value as TableChange).kind !== "idle") return value as TableChange;
    }
  };
  expect((await next()).kind).toBe("ready");
  const value = randomBytes(3 * MB);
  await table.put(["a", "k"], value);
  const change = await next();
  same(change.kind === "put" ? change.entry.value : undefined, value);
  ending.abort();
});
