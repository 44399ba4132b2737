// Watches and pages of a table (mesh/watch.ts) against a real bucket, through outages too.
import { afterAll, beforeAll, expect, it } from "vitest";
import type { JoinedMesh, Table, TableChange, TableCursor, TableKey } from "../../../mesh/index.ts";
import { type Lab, bytes, startLab, textOf } from "./lab.ts";

let lab: Lab;
let mesh: JoinedMesh;
let count = 0;
beforeAll(async () => {
  lab = await startLab();
  mesh = await lab.join("w");
});
afterAll(() => lab[Symbol.asyncDispose]());

const freshTable = (): Promise<Table> =>
  mesh.table({ kind: "watched", name: [String(count++)], expiryMarks: true });

type Watching = { next(): Promise<string>; cursor(): TableCursor; end(): Promise<void> };

/** A watch that is read step by step; `idle` is left out. */
async function startWatch(
  table: Table,
  target: { key: TableKey } | { prefix: TableKey },
  after?: TableCursor,
): Promise<Watching> {
  const ending = new AbortController();
  const changes = await table.watch(target, { after, signal: ending.signal });
  let cursor: TableCursor = { revision: 0, timeMs: 0 };
  const watch: Watching = {
    cursor: () => cursor,
    async next() {
      for (;;) {
        const { value, done } = await changes.next();
        if (done === true) return "end";
        const change: TableChange = value;
        ({ cursor } = change);
        if (change.kind === "idle") continue;
        if (change.kind === "put") return `put ${change.key.join("/")} ${textOf(change.entry.value)}`;
        return "key" in change ? `${change.kind} ${change.key.join("/")}` : change.kind;
      }
    },
    async end() {
      ending.abort(new Error("enough"));
      expect(await watch.next()).toBe("end");
    },
  };
  return watch;
}

/** What a watch tells, up to this. */
async function upTo(last: string, watch: Watching): Promise<string[]> {
  const seen = [await watch.next()];
  while (seen.at(-1) !== last) seen.push(await watch.next());
  return seen;
}

it("tells puts, deletes and expiries below a prefix in their order, and nothing else", async () => {
  const table = await freshTable();
  await table.put(["a", "before"], bytes("0"));
  const watch = await startWatch(table, { prefix: ["a"] });
  expect(await watch.next()).toBe("ready");
  await table.put(["a", "k"], bytes("1"));
  expect(await watch.next()).toBe("put a/k 1");
  await table.put(["b", "k"], bytes("elsewhere"));
  await table.put(["a", "k"], bytes("2"));
  await table.put(["a", "x.y"], bytes("3"));
  expect(await watch.next()).toBe("put a/k 2");
  expect(await watch.next()).toBe("put a/x.y 3");
  await table.delete(["a", "x.y"]);
  expect(await watch.next()).toBe("delete a/x.y");
  await table.put(["a", "k"], bytes("short"), { ttlSeconds: 1 });
  // A value that is gone before it can be read is told as expired only.
  const told = await upTo("expire a/k", watch);
  expect(told.filter((it) => it !== "put a/k short")).toEqual(["expire a/k"]);
  await table.put(["a", "k"], bytes("again"), { expect: "absent" });
  expect(await watch.next()).toBe("put a/k again");
  await watch.end();
});

it("follows one key, and goes on where a cursor says", async () => {
  const table = await freshTable();
  const first = await startWatch(table, { key: ["a", "k"] });
  expect(await first.next()).toBe("ready");
  await table.put(["a", "k2"], bytes("no"));
  await table.put(["a", "k"], bytes("1"));
  expect(await first.next()).toBe("put a/k 1");
  const place = first.cursor();
  await first.end();
  await table.put(["a", "k"], bytes("2"));
  await table.put(["a", "k"], bytes("3"));
  const second = await startWatch(table, { key: ["a", "k"] }, place);
  expect(await second.next()).toBe("ready");
  expect(await second.next()).toBe("put a/k 3");
  await second.end();
});

it("says so when a cursor is too old, or of a table that is gone", async () => {
  const table = await freshTable();
  const revision = await table.put(["a", "k"], bytes("1"));
  const hours = 2 * 3_600_000;
  const old = await startWatch(table, { prefix: ["a"] }, { revision, timeMs: Date.now() - hours });
  expect(await old.next()).toBe("reset");
  await table.put(["a", "k"], bytes("2"));
  expect(await old.next()).toBe("put a/k 2");
  await old.end();
  const other = await startWatch(table, { prefix: ["a"] }, { revision: 1_000_000, timeMs: Date.now() });
  expect(await other.next()).toBe("reset");
  await table.put(["a", "k"], bytes("3"));
  expect(await other.next()).toBe("put a/k 3");
  await other.end();
});

it("hears of expiries in a bucket that was made without marks for them", async () => {
  const bucket = { kind: "watched", name: ["old"] };
  await (await mesh.table(bucket)).put(["a", "k"], bytes("1"));
  const table = await (await lab.join("newer")).table({ ...bucket, expiryMarks: true });
  const watch = await startWatch(table, { key: ["a", "k"] });
  expect(await watch.next()).toBe("ready");
  await table.put(["a", "k"], bytes("short"), { ttlSeconds: 1 });
  const told = await upTo("expire a/k", watch);
  expect(told.filter((it) => it !== "put a/k short")).toEqual(["expire a/k"]);
  await watch.end();
});

it("loses nothing when nats-server is killed", { timeout: 60_000 }, async () => {
  const table = await freshTable();
  const watch = await startWatch(table, { prefix: ["a"] });
  expect(await watch.next()).toBe("ready");
  await table.put(["a", "k"], bytes("1"));
  expect(await watch.next()).toBe("put a/k 1");
  const second = lab.join("other");
  const pending = watch.next();
  await lab.nats.kill();
  await lab.nats.restart();
  const other = await (await second).table({ kind: "watched", name: [String(count - 1)] });
  await other.put(["a", "k"], bytes("2"));
  await other.delete(["a", "k"]);
  await other.put(["a", "z"], bytes("3"));
  const first = await pending;
  const seen = [first, ...(first === "put a/z 3" ? [] : await upTo("put a/z 3", watch))];
  expect(seen.slice(-2)).toEqual(["delete a/k", "put a/z 3"]);
  await watch.end();
});

it("is not hurt by a reader that does not read", { timeout: 60_000 }, async () => {
  const table = await freshTable();
  const watch = await startWatch(table, { prefix: ["a"] });
  expect(await watch.next()).toBe("ready");
  const value = Buffer.alloc(100_000, "x");
  for (let i = 0; i < 200; i++) await table.put(["a", `k${i}`], value);
  for (let i = 0; i < 200; i++) expect(await watch.next()).toBe(`put a/k${i} ${value.toString()}`);
  await watch.end();
});

it("gives keys page by page, as many as asked for, and only those wanted", async () => {
  const table = await freshTable();
  for (let i = 0; i < 600; i++) await table.put(["a", `${i % 2 === 0 ? "even" : "odd"}-${i}`], bytes(""));
  await table.put(["b", "even-b"], bytes(""));
  await table.delete(["a", "even-0"]);
  const keys: string[] = [];
  let after: number | undefined;
  let pages = 0;
  do {
    const options = { limit: 50, wants: (key: TableKey) => key[1]!.startsWith("even-") };
    const page = await table.page(["a"], after === undefined ? options : { ...options, after });
    expect(page.keys.length).toBeLessThanOrEqual(50);
    keys.push(...page.keys.map((key) => key[1]!));
    after = page.next;
    pages++;
  } while (after !== undefined);
  expect(pages).toBe(6);
  expect(keys.toSorted()).toEqual(Array.from({ length: 299 }, (_, i) => `even-${2 * i + 2}`).toSorted());
});
