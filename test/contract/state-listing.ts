/** The part of the contract suite of state stores that is about keys by prefix and watches. */
import { expect, it } from "vitest";
import { CursorInvalid, type StateChange, type StateTarget } from "../../src/blocks/state/port.ts";
import { eventually } from "../kit/eventually.ts";
import { type Suite, deletion, expired, freshKey, put, saving, signal } from "./state-steps.ts";

export function listing({ fixture, traits }: Suite): void {
  const pages = async (prefix: string, limit: number): Promise<string[][]> => {
    const found: string[][] = [];
    let after: string | undefined;
    do {
      const page = await fixture().store.list!(prefix, { limit, after, signal });
      found.push([...page.keys]);
      after = page.next;
    } while (after !== undefined);
    return found;
  };
  const list = async (prefix: string): Promise<string[]> =>
    [...new Set((await pages(prefix, 1_000)).flat())].toSorted();

  it("lists the keys that begin with a prefix, and no other", async () => {
    const app = freshKey();
    const odd = traits.refusesOddKeys === true ? ["order.1", "order-1"] : ["or%er_1", "or!er", "ör*[a]?\\1"];
    const names = [...odd, "order", "Order", "item"].map((name) => `${app}||${name}`);
    for (const name of [...names, `${app}x||order`]) await put(fixture(), name, Buffer.from("1"));
    expect(await list(`${app}||`)).toEqual(names.toSorted());
    expect(await list(`${app}||or`)).toEqual(
      names.filter((name) => name.startsWith(`${app}||or`)).toSorted(),
    );
    for (const name of names) expect(await list(name)).toContain(name);
    expect(await list(`${app}||or%`)).toEqual(names.filter((name) => name.startsWith(`${app}||or%`)));
    expect(await list(`${app}||nothing`)).toEqual([]);
  });

  it("gives pages of at most so many keys, and each key once when nobody writes", async () => {
    const app = freshKey();
    const names = Array.from({ length: 57 }, (_, index) => `${app}||k${index}`);
    for (const name of names) await put(fixture(), name, Buffer.from("1"));
    const found = await pages(`${app}||`, 10);
    for (const page of found) expect(page.length).toBeLessThanOrEqual(10);
    expect(found.flat().toSorted()).toEqual(names.toSorted());
  });

  it("leaves out what was deleted or has expired", async () => {
    const app = freshKey();
    const [kept, gone, old] = [`${app}||kept`, `${app}||gone`, `${app}||old`];
    for (const name of [kept, gone]) await put(fixture(), name, Buffer.from("1"));
    await fixture().store.delete(deletion(gone), signal);
    if (traits.noTtl !== true) {
      await fixture().store.set(saving(old, "1", { ttlSeconds: 1 }), signal);
      await expired(fixture(), old);
    }
    expect(await list(`${app}||`)).toEqual([kept]);
  });

  it("refuses or survives a cursor that is none of its own", async () => {
    for (const after of ["", "x", "-1", "9".repeat(400), "\u0000'; --", "💥"]) {
      const answer = await fixture().store.list!(`${freshKey()}||`, { limit: 1, after, signal }).catch(
        (error: unknown) => error,
      );
      if (answer instanceof Error) expect(answer).toBeInstanceOf(CursorInvalid);
      else expect(answer).toMatchObject({ keys: [] });
    }
  });
}

type Watching = { next(): Promise<string>; cursor(): string; end(): Promise<void> };

export function watching({ fixture, traits }: Suite): void {
  const start = async (target: StateTarget, after?: string): Promise<Watching> => {
    const ending = new AbortController();
    const changes = await fixture().store.watch!(target, { after, signal: ending.signal });
    let cursor = "";
    const watch: Watching = {
      cursor: () => cursor,
      async next() {
        for (;;) {
          const { value, done } = await changes.next();
          if (done === true) return "end";
          const change: StateChange = value;
          ({ cursor } = change);
          if (change.kind === "idle") continue;
          if (!("key" in change)) return change.kind;
          if (change.kind !== "put") return `${change.kind} ${change.key}`;
          if (change.record instanceof Error) throw change.record;
          expect(change.record.etag).not.toBe("");
          return `put ${change.key} ${Buffer.from(change.record.value).toString()}`;
        }
      },
      async end() {
        ending.abort(new Error("enough"));
        expect(await watch.next()).toBe("end");
      },
    };
    return watch;
  };

  it("tells of puts and deletes below a prefix, in their order", async () => {
    const app = freshKey();
    const watch = await start({ prefix: `${app}||a` });
    expect(await watch.next()).toBe("ready");
    await put(fixture(), `${app}||a1`, Buffer.from("1"));
    expect(await watch.next()).toBe(`put ${app}||a1 1`);
    await put(fixture(), `${app}||b`, Buffer.from("not this"));
    await put(fixture(), `${app}||a2`, Buffer.from("2"));
    expect(await watch.next()).toBe(`put ${app}||a2 2`);
    await fixture().store.delete(deletion(`${app}||a1`), signal);
    expect(await watch.next()).toBe(`delete ${app}||a1`);
    const writes = [saving(`${app}||a3`, "3"), deletion(`${app}||a2`)];
    await fixture().store.transact!(writes, {}, signal);
    expect([await watch.next(), await watch.next()].toSorted()).toEqual([
      `delete ${app}||a2`,
      `put ${app}||a3 3`,
    ]);
    await watch.end();
  });

  it("follows one key, and goes on behind a cursor", async () => {
    const key = `${freshKey()}||k`;
    const first = await start({ key });
    expect(await first.next()).toBe("ready");
    await put(fixture(), `${key}2`, Buffer.from("not this"));
    await put(fixture(), key, Buffer.from("1"));
    expect(await first.next()).toBe(`put ${key} 1`);
    await first.end();
    await put(fixture(), key, Buffer.from("2"));
    const second = await start({ key }, first.cursor());
    expect(await second.next()).toBe("ready");
    expect(await second.next()).toBe(`put ${key} 2`);
    await second.end();
  });

  it("tells that a record has expired", async () => {
    const key = `${freshKey()}||k`;
    const watch = await start({ key });
    expect(await watch.next()).toBe("ready");
    await fixture().store.set(saving(key, "1", { ttlSeconds: 1 }), signal);
    expect(await watch.next()).toBe(`put ${key} 1`);
    await expired(fixture(), key);
    expect(await watch.next()).toBe(`${traits.expiresAsDelete === true ? "delete" : "expire"} ${key}`);
    await watch.end();
  });

  it("refuses a cursor that is none", async () => {
    for (const after of ["", "x", "-", "1 2", "9".repeat(400)])
      await expect(start({ prefix: "a" }, after)).rejects.toBeInstanceOf(CursorInvalid);
  });

  it("goes on when its server was away", { timeout: 120_000 }, async () => {
    const { server } = fixture();
    if (server === undefined) return;
    const key = `${freshKey()}||k`;
    const watch = await start({ key });
    expect(await watch.next()).toBe("ready");
    await put(fixture(), key, Buffer.from("1"));
    expect(await watch.next()).toBe(`put ${key} 1`);
    const next = watch.next();
    await server.kill();
    await server.restart();
    await eventually(() => put(fixture(), key, Buffer.from("2")).then(() => true), { timeoutMs: 30_000 });
    expect(await next).toBe(`put ${key} 2`);
    await watch.end();
  });
}
