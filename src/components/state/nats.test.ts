import { describe, expect, it } from "vitest";
import { type LargeTable, type Mesh, MeshError, type TableWrite, systemClock } from "../../../mesh/index.ts";
import {
  EtagInvalid,
  EtagMismatch,
  type StateDelete,
  type StateSet,
  type StateStore,
} from "../../blocks/state/port.ts";
import { open } from "./nats.ts";

const signal = new AbortController().signal;

/** The store on a table that notes its calls, and fails all of them when an error is given. */
async function noting(error?: Error): Promise<{ store: StateStore; calls: unknown[][] }> {
  const calls: unknown[][] = [];
  const note =
    <T>(name: string, result: T) =>
    async (...args: unknown[]): Promise<T> => {
      calls.push([name, ...args]);
      if (error !== undefined) throw error;
      return result;
    };
  const entry = { value: Buffer.from("v"), revision: 7 };
  const table = {
    bucket: "b",
    get: note("get", entry),
    getMany: note("getMany", [entry, undefined]),
    put: note("put", 8),
    delete: note("delete", undefined),
    batch: note("batch", undefined),
    list: note("list", []),
  } as unknown as LargeTable;
  const mesh = {
    largeTable: (options: unknown) => (calls.push(["table", options]), table),
  } as unknown as Mesh;
  type Context = Parameters<typeof open>[0];
  const store = await open({
    mesh,
    namespace: "ns",
    name: "orders",
    metadata: { storage: "file", maxValueSize: 1000 },
    clock: systemClock,
  } as Context);
  return { store, calls };
}

function saving(key: string, more: Partial<StateSet> = {}): StateSet {
  const rest = { value: Buffer.from("v"), json: false, etag: undefined, createOnly: false, metadata: {} };
  return { kind: "set", key, ttlSeconds: undefined, ...rest, ...more };
}

function deletion(key: string, more: Partial<StateDelete> = {}): StateDelete {
  return { kind: "delete", key, etag: undefined, createOnly: false, metadata: {}, ...more };
}

describe("keys and options of state.nats", () => {
  it("keeps one bucket for namespace and component name", async () => {
    const { calls } = await noting();
    const bucket = { kind: "state", name: ["ns", "orders"], storage: "file", expiryMarks: true };
    expect(calls).toEqual([["table", { ...bucket, maxValueBytes: 1000 }]]);
  });

  it.each([
    ["app||k", ["app", "k"]],
    ["k", ["k"]],
    ["||k", ["", "k"]],
    ["app||", ["app", ""]],
    ["app||type||id||k", ["app", "type||id||k"]],
    ["a|b||c|", ["a|b", "c|"]],
  ])("splits %s at the first separator", async (key, parts) => {
    const { store, calls } = await noting();
    await store.get(key, { consistency: "", metadata: {}, signal });
    expect(calls[1]).toEqual(["get", parts, { signal }]);
  });

  it("asks the leader only for strong reads", async () => {
    const { store, calls } = await noting();
    await store.getMany!(["a", "b"], { consistency: "strong", metadata: {}, signal });
    await store.getMany!(["a", "b"], { consistency: "eventual", metadata: {}, signal });
    expect(calls.slice(1).map((call) => call[2])).toEqual([{ strong: true, signal }, { signal }]);
  });

  it("passes the time to live on when there is one", async () => {
    const { store, calls } = await noting();
    for (const ttlSeconds of [undefined, 0, -1, 30]) await store.set(saving("k", { ttlSeconds }), signal);
    expect(calls.slice(1).map((call) => call[3])).toEqual([
      { signal },
      { signal },
      { signal },
      { signal, ttlSeconds: 30 },
    ]);
    await expect(store.set(saving("k", { ttlSeconds: 2 ** 31 }), signal)).rejects.toThrow(
      "incorrect value for metadata 'ttlInSeconds': 2147483648 is above the largest value, 2147483647",
    );
  });
});

describe("ETags of state.nats", () => {
  it.each(["x", "1.5", "-1", " 7", "0x7", "7e0", '"7"'])("calls %s malformed", async (etag) => {
    const { store, calls } = await noting();
    await expect(store.set(saving("k", { etag }), signal)).rejects.toBeInstanceOf(EtagInvalid);
    await expect(store.delete(deletion("k", { etag }), signal)).rejects.toBeInstanceOf(EtagInvalid);
    await expect(store.transact!([saving("k", { etag })], {}, signal)).rejects.toBeInstanceOf(EtagInvalid);
    expect(calls).toHaveLength(1);
  });

  it.each(["0", "00", "07", "9007199254740993"])(
    "never asks the server about %s, which no key can have",
    async (etag) => {
      const { store, calls } = await noting();
      await expect(store.set(saving("k", { etag }), signal)).rejects.toBeInstanceOf(EtagMismatch);
      await expect(store.delete(deletion("k", { etag }), signal)).rejects.toBeInstanceOf(EtagMismatch);
      expect(calls).toHaveLength(1);
    },
  );

  it("turns ETag and create into guards", async () => {
    const { store, calls } = await noting();
    await store.set(saving("k", { etag: "7" }), signal);
    await store.set(saving("k", { createOnly: true }), signal);
    await store.delete(deletion("k", { etag: "7" }), signal);
    await store.delete(deletion("k", { createOnly: true }), signal);
    const guards = calls.slice(1).map((call) => (call.at(-1) as { expect?: unknown }).expect);
    expect(guards).toEqual([7, "absent", 7, "absent"]);
  });
});

describe("transactions of state.nats", () => {
  async function batchOf(...writes: (StateSet | StateDelete)[]): Promise<readonly TableWrite[]> {
    const { store, calls } = await noting();
    await store.transact!(writes, {}, signal);
    return calls[1]![1] as readonly TableWrite[];
  }

  it("names each key once, with its last write and its guard", async () => {
    const value = Buffer.from("2");
    expect(
      await batchOf(
        saving("a", { etag: "7" }),
        saving("b", { createOnly: true }),
        saving("a", { value, ttlSeconds: 9 }),
        deletion("b"),
        deletion("c"),
      ),
    ).toEqual([
      { kind: "put", key: ["a"], value, expect: 7, ttlSeconds: 9 },
      { kind: "delete", key: ["b"], expect: "absent" },
      { kind: "delete", key: ["c"] },
    ]);
  });

  it("refuses two guards of one key that cannot both hold", async () => {
    const { store, calls } = await noting();
    const impossible = [saving("a", { etag: "7" }), saving("a", { createOnly: true })];
    await expect(store.transact!(impossible, {}, signal)).rejects.toBeInstanceOf(EtagMismatch);
    expect(calls).toHaveLength(1);
  });
});

describe("failures of state.nats", () => {
  it("names the key whose guard failed", async () => {
    const conflict = new MeshError("conflict", "wrong last sequence", { index: 1 });
    const { store } = await noting(conflict);
    const writes = [saving("app||a", { etag: "7" }), saving("app||b", { createOnly: true })];
    await expect(store.transact!(writes, {}, signal)).rejects.toThrow(
      "possible etag mismatch. error from state store: key 'b' exists",
    );
    await expect(store.delete(deletion("app||c", { etag: "7" }), signal)).rejects.toThrow(
      "possible etag mismatch. error from state store: key 'c' was changed or deleted since that ETag was read",
    );
  });

  it("names size, limit and remedy of a value that is too large", async () => {
    const { store } = await noting(new MeshError("too-large", "payload of 2010 bytes"));
    const text =
      "the value of key 'b' takes 2000 bytes, more than the 1000 that metadata maxValueSize allows; " +
      "raise it or store a smaller value";
    const large = saving("app||b", { value: Buffer.alloc(2000) });
    await expect(store.set(large, signal)).rejects.toThrow(text);
    await expect(store.transact!([saving("app||a"), large, deletion("app||c")], {}, signal)).rejects.toThrow(
      text,
    );
  });

  it("leaves other errors as they are", async () => {
    const away = new MeshError("disconnected", "NATS is away");
    const { store } = await noting(away);
    await expect(store.set(saving("k"), signal)).rejects.toBe(away);
    await expect(store.get("k", { consistency: "", metadata: {}, signal })).rejects.toBe(away);
  });
});
