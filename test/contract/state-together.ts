/** The part of the contract suite of state stores that is about several keys at once, and about outages. */
import { expect, it } from "vitest";
import { type StateDelete, type StateSet, keyOfRefusal } from "../../src/blocks/state/port.ts";
import { eventually } from "../kit/eventually.ts";
import {
  type Suite,
  deletion,
  expectExists,
  expectMismatch,
  freshKey,
  put,
  read,
  readMany,
  saving,
  signal,
  strong,
  text,
  transfer,
} from "./state-steps.ts";

export function transactions({ fixture, traits }: Suite): void {
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

  it("names the key for which a transaction is refused", async () => {
    const [a, b, c] = [freshKey(), freshKey(), freshKey()];
    await put(fixture(), b, Buffer.from("old"));
    const { etag } = (await read(fixture(), b))!;
    await put(fixture(), b, Buffer.from("newer"));
    const refused = async (write: StateSet | StateDelete): Promise<string | undefined> =>
      transact(saving(a, "1"), write, saving(c, "3")).then(
        () => "done",
        (error: unknown) => keyOfRefusal(error),
      );
    expect(await refused(saving(b, "2", { etag }))).toBe(b);
    expect(await refused(deletion(b, { etag }))).toBe(b);
    if (traits.createMark !== true) expect(await refused(saving(b, "2", { createOnly: true }))).toBe(b);
    const malformed = traits.malformedEtag ?? "not an etag";
    expect(await refused(saving(b, "2", { etag: malformed }))).toBe(b);
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

export function refusedTransactions({ fixture }: Suite): void {
  it("says why transactions do not work with this server", async () => {
    const key = freshKey();
    await expect(fixture().store.transact!([saving(key, "1")], {}, signal)).rejects.toThrow(/replica/i);
    expect(await read(fixture(), key)).toBeUndefined();
  });
}

/** Last of the suite: it ends the server. */
export function outage({ fixture }: Suite): void {
  it(
    "fails in time while its server is away, and serves again when it is back",
    { timeout: 120_000 },
    async () => {
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
      await eventually(async () => expect(text(await store.get(key, strong))).toBe("1"), {
        timeoutMs: 30_000,
      });
      await store.set(saving(key, "3"), signal);
      expect(text(await read(fixture(), key))).toBe("3");
    },
  );
}

export function bulk({ fixture }: Suite): void {
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
