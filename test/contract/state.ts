/**
 * What every state store must do, as one suite over the port (src/blocks/state/port.ts). A store joins by one call
 * of `stateContract` in state.test.ts. Keys are fresh for each test, so stores may keep data between them.
 */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  EtagInvalid,
  EtagMismatch,
  type StateDelete,
  type StateReadOptions,
  type StateRecord,
  type StateSet,
  type StateStore,
} from "../../src/blocks/state/port.ts";
import { eventually } from "../kit/eventually.ts";
import { type StateTraits, savedJson } from "./state-traits.ts";

export type StateFixture = {
  readonly store: StateStore;
  close(): Promise<void>;
  /** Moves the store's clock; absent for stores that live by real time. */
  advance?(ms: number): void;
  /** Ends the server at once and starts it again with its data; absent where there is none to end. */
  readonly server?: { kill(): Promise<void>; restart(): Promise<void> };
};

type Suite = { readonly fixture: () => StateFixture; readonly traits: StateTraits };

const signal = new AbortController().signal;
const reading: StateReadOptions = { consistency: "", metadata: {}, signal };
const strong: StateReadOptions = { ...reading, consistency: "strong" };

/** Runs the suite; `open` is called once and must give a store of its own. */
export function stateContract(name: string, traits: StateTraits, open: () => Promise<StateFixture>): void {
  describe(`state store ${name}`, () => {
    let opened: StateFixture | undefined;
    beforeAll(async () => {
      opened = await open();
    }, 120_000);
    afterAll(async () => {
      await opened?.close();
    });
    const suite: Suite = { fixture: () => opened!, traits };
    values(suite);
    keys(suite);
    if (traits.foreignEtag !== undefined) etags(suite, traits.foreignEtag);
    deletes(suite);
    lives(suite);
    if (traits.transactions === "refused") refusedTransactions(suite);
    else if (traits.transactions !== "none") transactions(suite);
    bulk(suite);
    outage(suite);
  });
}

function values({ fixture, traits }: Suite): void {
  const every = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  const cases: [string, Uint8Array][] = [
    ["no bytes", new Uint8Array(0)],
    ["one zero byte", new Uint8Array(1)],
    ["all byte values", every],
    ["JSON text", Buffer.from('{"b":1,"a":[1,2,{"c":"ü"}]}')],
    ["500 KB", new Uint8Array(500 * 1024).map((_, index) => (index * 31) & 255)],
  ];
  it.each(cases)("gives back exactly the bytes saved: %s", async (_, value) => {
    const key = freshKey();
    await put(fixture(), key, value);
    const record = await read(fixture(), key);
    expect(Buffer.compare(record!.value, value)).toBe(0);
    expect(record!.expiresAtMs).toBeUndefined();
  });

  it("gives back the JSON of an HTTP save in its form", async () => {
    const key = freshKey();
    await fixture().store.set(saving(key, savedJson, { json: true }), signal);
    expect(text(await read(fixture(), key))).toBe(traits.jsonReadsAs ?? savedJson);
    for (const json of ['"text with \\"quotes\\" and \\n"', "null", "true", "12.5", "[]", "{}"]) {
      await fixture().store.set(saving(key, json, { json: true }), signal);
      expect(text(await read(fixture(), key))).toBe(json);
    }
  });

  it("keeps its own copy of the bytes", async () => {
    const key = freshKey();
    const value = Buffer.from("before");
    await put(fixture(), key, value);
    value.fill(0);
    expect(text(await read(fixture(), key))).toBe("before");
  });

  it("says that a key is absent", async () => {
    if (traits.absentFails === true) await expect(fixture().store.get(freshKey(), strong)).rejects.toThrow();
    else expect(await fixture().store.get(freshKey(), strong)).toBeUndefined();
  });

  it("overwrites without ETag, and the ETag changes each time", async () => {
    const key = freshKey();
    const seen = new Set<string>();
    for (const value of ["1", "2", "2"]) {
      await put(fixture(), key, Buffer.from(value));
      const record = await read(fixture(), key);
      expect(text(record)).toBe(value);
      seen.add(record!.etag);
    }
    expect(seen.size).toBe(traits.foreignEtag === undefined ? 1 : 3);
  });
}

function keys({ fixture, traits }: Suite): void {
  const odd = " .*>%||=/\\\u0001\t\r\n\"'ü漢😀\u007f{}~$@";
  const long = Array.from({ length: 300 }, (_, index) => odd[index % odd.length]).join("");
  const cases: [string, string][] = [
    ["empty", ""],
    ["space", " "],
    ["dots", "a.b..c."],
    ["wildcards", "*.>"],
    ["percent and equals", "%2F=3D="],
    ["slashes", "/a//b/"],
    ["unicode", "ключ-漢字-😀"],
    ["controls", "\u0001\r\n\t"],
    ["300 odd characters", long],
    ["4 KB", "k".repeat(4096)],
    ["4 KB of two-byte characters", "ü".repeat(2048)],
    ["separator inside", "type||id||key"],
  ];
  it.each(cases)("takes any key: %s", async (_, key) => {
    const stored = `${freshKey()}||${key}`;
    const neighbour = `${stored}x`;
    if (traits.maxKeyChars !== undefined && neighbour.length > traits.maxKeyChars) {
      await expect(put(fixture(), stored, Buffer.from("mine"))).rejects.toThrow(Error);
      return;
    }
    await put(fixture(), stored, Buffer.from("mine"));
    await put(fixture(), neighbour, Buffer.from("other"));
    expect(text(await read(fixture(), stored))).toBe("mine");
    await fixture().store.delete(deletion(stored), signal);
    expect(await read(fixture(), stored)).toBeUndefined();
    expect(text(await read(fixture(), neighbour))).toBe("other");
  });

  it("tells keys of different prefixes apart", async () => {
    const [a, b] = [freshKey(), freshKey()];
    await put(fixture(), `${a}||k`, Buffer.from("a"));
    await put(fixture(), `${b}||k`, Buffer.from("b"));
    await put(fixture(), `${a}.k`, Buffer.from("dot"));
    expect(text(await read(fixture(), `${a}||k`))).toBe("a");
    expect(text(await read(fixture(), `${b}||k`))).toBe("b");
  });
}

function etags({ fixture, traits }: Suite, foreignEtag: string): void {
  it("writes with the current ETag and refuses any other", async () => {
    const key = freshKey();
    await put(fixture(), key, Buffer.from("1"));
    const first = (await read(fixture(), key))!.etag;
    await fixture().store.set(saving(key, "2", { etag: first }), signal);
    await expectMismatch(fixture().store.set(saving(key, "3", { etag: first }), signal));
    await expectMismatch(fixture().store.set(saving(key, "3", { etag: foreignEtag }), signal));
    expect(text(await read(fixture(), key))).toBe("2");
  });

  it("does not create with an ETag", async () => {
    const key = freshKey();
    if (traits.etagCreates === true) {
      await fixture().store.set(saving(key, "1", { etag: foreignEtag }), signal);
      expect(text(await read(fixture(), key))).toBe("1");
      return;
    }
    await expectMismatch(fixture().store.set(saving(key, "1", { etag: foreignEtag }), signal));
    expect(await read(fixture(), key)).toBeUndefined();
  });

  it("refuses text that is no ETag of its own", async () => {
    const key = freshKey();
    await put(fixture(), key, Buffer.from("1"));
    const etag = traits.malformedEtag ?? "not an etag";
    const kind = traits.malformedEtag === undefined ? EtagMismatch : EtagInvalid;
    const deleteKind = traits.malformedDelete === "mismatch" ? EtagMismatch : kind;
    await expect(fixture().store.set(saving(key, "2", { etag }), signal)).rejects.toBeInstanceOf(kind);
    await expect(fixture().store.delete(deletion(key, { etag }), signal)).rejects.toBeInstanceOf(deleteKind);
    if (hasTransactions(traits)) {
      const refused = fixture().store.transact!([saving(key, "2", { etag })], {}, signal);
      await expect(refused).rejects.toBeInstanceOf(kind);
    }
    expect(text(await read(fixture(), key))).toBe("1");
  });

  it("creates once", async () => {
    const key = freshKey();
    await fixture().store.set(saving(key, "1", { createOnly: true }), signal);
    await expectExists(traits, fixture().store.set(saving(key, "2", { createOnly: true }), signal));
    expect(text(await read(fixture(), key))).toBe("1");
  });

  it("creates over a key that was saved without first-write only where the store has a mark for it", async () => {
    const key = freshKey();
    await put(fixture(), key, Buffer.from("1"));
    const create = fixture().store.set(saving(key, "2", { createOnly: true }), signal);
    if (traits.createMark !== true) await expectExists(traits, create);
    else {
      await create;
      await expect(put(fixture(), key, Buffer.from("3"))).rejects.toThrow("failed to set key");
    }
    expect(text(await read(fixture(), key))).toBe(traits.createMark === true ? "2" : "1");
  });

  it("creates again after a delete", async () => {
    const key = freshKey();
    await put(fixture(), key, Buffer.from("1"));
    await fixture().store.delete(deletion(key), signal);
    await fixture().store.set(saving(key, "2", { createOnly: true }), signal);
    expect(text(await read(fixture(), key))).toBe("2");
  });

  it("counts exactly under 20 writers that compare and set", async () => {
    const key = freshKey();
    await put(fixture(), key, Buffer.from("0"));
    await Promise.all(Array.from({ length: 20 }, () => increment(fixture(), key)));
    expect(text(await read(fixture(), key))).toBe("20");
  });

  it("lets one of 20 creators win", async () => {
    const key = freshKey();
    const tries = Array.from({ length: 20 }, (_, index) =>
      fixture().store.set(saving(key, String(index), { createOnly: true }), signal),
    );
    const outcomes = await Promise.allSettled(tries);
    const winners = outcomes.flatMap((outcome, index) => (outcome.status === "fulfilled" ? [index] : []));
    expect(winners).toHaveLength(1);
    expect(text(await read(fixture(), key))).toBe(String(winners[0]));
  });
}

function deletes({ fixture, traits }: Suite): void {
  const { foreignEtag } = traits;
  it("deletes an absent key without ETag", async () => {
    const key = freshKey();
    await fixture().store.delete(deletion(key), signal);
    await fixture().store.delete(deletion(key), signal);
    expect(await read(fixture(), key)).toBeUndefined();
  });

  if (foreignEtag === undefined) return;

  it("deletes with the current ETag and refuses any other", async () => {
    const key = freshKey();
    await put(fixture(), key, Buffer.from("1"));
    const { etag } = (await read(fixture(), key))!;
    await put(fixture(), key, Buffer.from("2"));
    await expectMismatch(fixture().store.delete(deletion(key, { etag }), signal));
    await expectMismatch(fixture().store.delete(deletion(key, { etag: foreignEtag }), signal));
    const current = (await read(fixture(), key))!.etag;
    await fixture().store.delete(deletion(key, { etag: current }), signal);
    expect(await read(fixture(), key)).toBeUndefined();
  });

  it("refuses to delete an absent key with an ETag", async () => {
    const key = freshKey();
    if (traits.deletesAbsentWithEtag === true) {
      await fixture().store.delete(deletion(key, { etag: foreignEtag }), signal);
      return;
    }
    await expectMismatch(fixture().store.delete(deletion(key, { etag: foreignEtag }), signal));
    await put(fixture(), key, Buffer.from("1"));
    const { etag } = (await read(fixture(), key))!;
    await fixture().store.delete(deletion(key, { etag }), signal);
    await expectMismatch(fixture().store.delete(deletion(key, { etag }), signal));
  });

  it("takes first-write without ETag as: the key must not exist", async () => {
    const key = freshKey();
    await fixture().store.delete(deletion(key, { createOnly: true }), signal);
    await put(fixture(), key, Buffer.from("1"));
    const guarded = fixture().store.delete(deletion(key, { createOnly: true }), signal);
    if (traits.createOnlyDeletes === true) await guarded;
    else await expectMismatch(guarded);
    expect(text(await read(fixture(), key))).toBe(traits.createOnlyDeletes === true ? undefined : "1");
  });
}

function lives({ fixture, traits }: Suite): void {
  it("tells when a record expires, and then it is gone and may be created", async () => {
    const key = freshKey();
    await fixture().store.set(saving(key, "1", { ttlSeconds: 1 }), signal);
    const record = await read(fixture(), key);
    expect(text(record)).toBe("1");
    if (traits.hidesExpiry === true) expect(record!.expiresAtMs).toBeUndefined();
    else expect(record!.expiresAtMs).toBeGreaterThan(0);
    await expired(fixture(), key);
    if (traits.etagCreates !== true)
      await expectMismatch(fixture().store.set(saving(key, "2", { etag: record!.etag }), signal));
    await fixture().store.set(saving(key, "3", { createOnly: true }), signal);
    expect(text(await read(fixture(), key))).toBe("3");
  });

  it.each([undefined, 0, -1])("keeps a record for ever with time to live %s", async (ttlSeconds) => {
    const key = freshKey();
    const canary = freshKey();
    await fixture().store.set(saving(key, "1", { ttlSeconds }), signal);
    await fixture().store.set(saving(canary, "1", { ttlSeconds: 1 }), signal);
    if (traits.endsAtZero === true && ttlSeconds !== undefined) return expired(fixture(), key);
    expect((await read(fixture(), key))!.expiresAtMs).toBeUndefined();
    await expired(fixture(), canary);
    expect(text(await read(fixture(), key))).toBe("1");
  });

  it("forgets the time to live when the record is overwritten without one", async () => {
    const key = freshKey();
    const canary = freshKey();
    await fixture().store.set(saving(key, "1", { ttlSeconds: 1 }), signal);
    await fixture().store.set(saving(key, "2"), signal);
    if (traits.keepsTtl === true) {
      await expired(fixture(), key);
      await fixture().store.set(saving(key, "1", { ttlSeconds: 1 }), signal);
      await fixture().store.set(saving(key, "2", { ttlSeconds: -1 }), signal);
    }
    await fixture().store.set(saving(canary, "1", { ttlSeconds: 1 }), signal);
    await expired(fixture(), canary);
    const record = await read(fixture(), key);
    expect(text(record)).toBe("2");
    expect(record!.expiresAtMs).toBeUndefined();
  });

  if (traits.hidesExpiry === true) return;

  it("counts the time to live from the last write", async () => {
    const key = freshKey();
    await fixture().store.set(saving(key, "1", { ttlSeconds: 3600 }), signal);
    const before = (await read(fixture(), key))!.expiresAtMs!;
    await fixture().store.set(saving(key, "2", { ttlSeconds: 7200 }), signal);
    const after = (await read(fixture(), key))!.expiresAtMs!;
    expect(after - before).toBeGreaterThanOrEqual(3_599_000);
    expect(after - before).toBeLessThan(3_700_000);
  });
}

function transactions({ fixture, traits }: Suite): void {
  const transact = (...writes: (StateSet | StateDelete)[]): Promise<void> =>
    fixture().store.transact!(writes, {}, signal);

  it("does all of a transaction", async () => {
    const [a, b, gone] = [freshKey(), freshKey(), freshKey()];
    await put(fixture(), gone, Buffer.from("old"));
    await transact(saving(a, "1"), deletion(gone), saving(b, "2", { ttlSeconds: 3600 }));
    expect(text(await read(fixture(), a))).toBe("1");
    expect(text(await read(fixture(), b))).toBe("2");
    if (traits.hidesExpiry !== true) expect((await read(fixture(), b))!.expiresAtMs).toBeGreaterThan(0);
    expect(await read(fixture(), gone)).toBeUndefined();
  });

  it("does nothing of a transaction with an ETag that is not current", async () => {
    const [a, b, c] = [freshKey(), freshKey(), freshKey()];
    await put(fixture(), b, Buffer.from("old"));
    const { etag } = (await read(fixture(), b))!;
    await put(fixture(), b, Buffer.from("newer"));
    await expectMismatch(transact(saving(a, "1"), saving(b, "2", { etag }), saving(c, "3")));
    await expectMismatch(transact(saving(a, "1"), deletion(b, { etag })));
    if (traits.createMark !== true)
      await expectExists(traits, transact(saving(a, "1"), saving(b, "2", { createOnly: true })));
    expect(await read(fixture(), a)).toBeUndefined();
    expect(text(await read(fixture(), b))).toBe("newer");
    expect(await read(fixture(), c)).toBeUndefined();
  });

  it("does a transaction whose ETags are current", async () => {
    const [a, b, c] = [freshKey(), freshKey(), freshKey()];
    await put(fixture(), a, Buffer.from("1"));
    await put(fixture(), b, Buffer.from("1"));
    const [first, second] = [(await read(fixture(), a))!.etag, (await read(fixture(), b))!.etag];
    const created = saving(c, "2", { createOnly: true });
    await transact(saving(a, "2", { etag: first }), deletion(b, { etag: second }), created);
    expect(text(await read(fixture(), a))).toBe("2");
    expect(await read(fixture(), b)).toBeUndefined();
    expect(text(await read(fixture(), c))).toBe("2");
  });

  it("takes a transaction of one write", async () => {
    const key = freshKey();
    await transact(saving(key, "1", { createOnly: true }));
    if (traits.createMark !== true)
      await expectExists(traits, transact(saving(key, "2", { createOnly: true })));
    await transact(deletion(key));
    expect(await read(fixture(), key)).toBeUndefined();
  });

  it("stores the last of several writes to one key", async () => {
    const [a, b] = [freshKey(), freshKey()];
    await transact(saving(a, "1"), saving(b, "1"), saving(a, "2"), deletion(b), saving(a, "3"));
    expect(text(await read(fixture(), a))).toBe("3");
    expect(await read(fixture(), b)).toBeUndefined();
    await transact(deletion(a), saving(a, "4"), saving(b, "5"));
    expect(text(await read(fixture(), a))).toBe("4");
  });

  it("checks every ETag of a key against the state before the transaction", async () => {
    const key = freshKey();
    await put(fixture(), key, Buffer.from("1"));
    const { etag } = (await read(fixture(), key))!;
    await transact(saving(key, "2", { etag }), saving(key, "3"));
    expect(text(await read(fixture(), key))).toBe("3");
    await expectMismatch(transact(saving(key, "4", { etag }), saving(key, "5")));
    const current = (await read(fixture(), key))!.etag;
    await expectMismatch(transact(saving(key, "4", { etag: current }), saving(key, "5", { etag })));
    await transact(saving(key, "6"), saving(key, "7", { etag: current }));
    expect(text(await read(fixture(), key))).toBe("7");
  });

  it("keeps a sum under concurrent transfers", async () => {
    const [a, b] = [freshKey(), freshKey()];
    await transact(saving(a, "50"), saving(b, "50"));
    await Promise.all(Array.from({ length: 8 }, () => transfer(fixture(), a, b)));
    expect(text(await read(fixture(), a))).toBe("42");
    expect(text(await read(fixture(), b))).toBe("58");
  });

  it("takes a hundred writes at once", async () => {
    const names = Array.from({ length: 100 }, freshKey);
    await transact(...names.map((key, index) => saving(key, String(index))));
    expect(text(await read(fixture(), names[99]!))).toBe("99");
  });
}

function refusedTransactions({ fixture }: Suite): void {
  it("says why transactions do not work with this server", async () => {
    const key = freshKey();
    await expect(fixture().store.transact!([saving(key, "1")], {}, signal)).rejects.toThrow(/replica/i);
    expect(await read(fixture(), key)).toBeUndefined();
  });
}

/** Last of the suite: it ends the server. */
function outage({ fixture }: Suite): void {
  it("fails in time while its server is away, and serves again when it is back", { timeout: 120_000 }, async () => {
    const { server, store } = fixture();
    if (server === undefined) return;
    const key = freshKey();
    await put(fixture(), key, Buffer.from("1"));
    await server.kill();
    const startedMs = performance.now();
    await expect(store.get(key, strong)).rejects.toThrow(Error);
    expect(performance.now() - startedMs).toBeLessThan(25_000);
    await expect(store.set(saving(key, "2"), signal)).rejects.toThrow(Error);
    await server.restart();
    await eventually(async () => expect(text(await store.get(key, strong))).toBe("1"), { timeoutMs: 30_000 });
    await store.set(saving(key, "3"), signal);
    expect(text(await read(fixture(), key))).toBe("3");
  });
}

function bulk({ fixture }: Suite): void {
  it("reads many keys in the order asked for, repeated and absent ones too", async () => {
    const [a, b, absent, gone] = [freshKey(), freshKey(), freshKey(), freshKey()];
    await put(fixture(), b, Buffer.from("b"));
    await put(fixture(), a, Buffer.from("a"));
    await put(fixture(), gone, Buffer.from("gone"));
    await fixture().store.delete(deletion(gone), signal);
    const found = await readMany(fixture(), [a, absent, b, gone, a]);
    const texts = found.map((record) => (record instanceof Error ? "error" : record && text(record)));
    expect(texts).toEqual(["a", undefined, "b", undefined, "a"]);
    const [first] = found;
    expect(first).toEqual(await fixture().store.get(a, strong));
    expect(await readMany(fixture(), [])).toEqual([]);
  });

  it("reads 1,500 keys at once", async () => {
    const key = freshKey();
    await put(fixture(), key, Buffer.from("here"));
    const asked = Array.from({ length: 1500 }, (_, index) => (index === 1400 ? key : `${key}-${index}`));
    const found = await readMany(fixture(), asked);
    expect(found).toHaveLength(1500);
    expect(found.flatMap((record, index) => (record === undefined ? [] : [index]))).toEqual([1400]);
  });
}

function freshKey(): string {
  return `test-${randomUUID()}`;
}

function saving(key: string, value: string, more: Partial<StateSet> = {}): StateSet {
  return {
    kind: "set",
    key,
    value: Buffer.from(value),
    json: false,
    etag: undefined,
    createOnly: false,
    ttlSeconds: undefined,
    metadata: {},
    ...more,
  };
}

function deletion(key: string, more: Partial<StateDelete> = {}): StateDelete {
  return { kind: "delete", key, etag: undefined, createOnly: false, metadata: {}, ...more };
}

async function put({ store }: StateFixture, key: string, value: Uint8Array): Promise<void> {
  await store.set({ ...saving(key, ""), value }, signal);
}

async function read({ store }: StateFixture, key: string): Promise<StateRecord | undefined> {
  return store.get(key, strong);
}

/** As the block does: store by store, one call or many. */
async function readMany(
  { store }: StateFixture,
  keys: string[],
): Promise<(StateRecord | undefined | Error)[]> {
  return store.getMany?.(keys, reading) ?? Promise.all(keys.map((key) => store.get(key, reading)));
}

function text(record: StateRecord | undefined): string | undefined {
  return record === undefined ? undefined : Buffer.from(record.value).toString();
}

async function expectMismatch(write: Promise<void>): Promise<void> {
  await expect(write).rejects.toBeInstanceOf(EtagMismatch);
}

/** A create that found the key. */
async function expectExists(traits: StateTraits, write: Promise<void>): Promise<void> {
  if (traits.createConflict !== "error") return expectMismatch(write);
  const failure = await write.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(Error);
  expect(failure).not.toBeInstanceOf(EtagMismatch);
}

function hasTransactions({ transactions: kind }: StateTraits): boolean {
  return kind === undefined || kind === "real";
}

/** Waits until a record with a time to live of one second is gone. */
async function expired(fixture: StateFixture, key: string): Promise<void> {
  fixture.advance?.(1_000);
  await eventually(async () => (await read(fixture, key)) === undefined, {
    timeoutMs: 15_000,
    what: "expiry",
  });
}

async function increment(fixture: StateFixture, key: string): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const record = (await read(fixture, key))!;
    try {
      await fixture.store.set(saving(key, String(Number(text(record)) + 1), { etag: record.etag }), signal);
      return;
    } catch (error) {
      if (!(error instanceof EtagMismatch)) throw error;
    }
  }
  throw new Error("no luck in 200 tries");
}

async function transfer(fixture: StateFixture, from: string, to: string): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const [source, target] = [(await read(fixture, from))!, (await read(fixture, to))!];
    const less = saving(from, String(Number(text(source)) - 1), { etag: source.etag });
    const more = saving(to, String(Number(text(target)) + 1), { etag: target.etag });
    try {
      await fixture.store.transact!([less, more], {}, signal);
      return;
    } catch (error) {
      if (!(error instanceof EtagMismatch)) throw error;
    }
  }
  throw new Error("no luck in 200 tries");
}
