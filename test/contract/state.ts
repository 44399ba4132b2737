/**
 * What every state store must do, as one suite over the port (src/blocks/state/port.ts). A store joins by one call
 * of `stateContract` in state.test.ts. Keys are fresh for each test, so stores may keep data between them.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EtagInvalid, EtagMismatch } from "../../src/blocks/state/port.ts";
import { eventually } from "../kit/eventually.ts";
import {
  type StateFixture,
  type Suite,
  deletion,
  expectExists,
  expectMismatch,
  expired,
  freshKey,
  hasTransactions,
  increment,
  put,
  read,
  saving,
  signal,
  strong,
  text,
} from "./state-steps.ts";
import { queries } from "./state-queries.ts";
import { listing, watching } from "./state-listing.ts";
import { bulk, outage, refusedTransactions, transactions } from "./state-together.ts";
import { type StateTraits, savedJson } from "./state-traits.ts";

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
    if (traits.noTtl !== true) lives(suite);
    if (traits.transactions === "refused") refusedTransactions(suite);
    else if (traits.transactions !== "none") transactions(suite);
    bulk(suite);
    if (traits.queries === true) queries(suite);
    if (traits.lists === true) listing(suite);
    if (traits.watches === true) watching(suite);
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
    if (
      traits.refusesOddKeys === true &&
      /^$|[^-/_=.a-zA-Z0-9]|^\.|\.$|\.\./.test(key.replaceAll("||", "."))
    ) {
      await expect(put(fixture(), stored, Buffer.from("mine"))).rejects.toThrow("nats: invalid key");
      return;
    }
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
    if (traits.refusesOddKeys !== true) await put(fixture(), `${a}.k`, Buffer.from("dot"));
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
    // Again if it was over before it was read.
    const record = await eventually(async () => {
      await fixture().store.set(saving(key, "1", { ttlSeconds: 1 }), signal);
      return (await read(fixture(), key)) ?? false;
    });
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
    // Where it stays the key must not be gone before it is overwritten.
    const ttlSeconds = traits.keepsTtl === true ? 5 : 1;
    await fixture().store.set(saving(key, "1", { ttlSeconds }), signal);
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
