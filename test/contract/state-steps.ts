/** The small steps of the contract suite of state stores: records written, read and waited for. */
import { randomUUID } from "node:crypto";
import { expect } from "vitest";
import {
  EtagMismatch,
  type StateDelete,
  type StateReadOptions,
  type StateRecord,
  type StateSet,
  type StateStore,
} from "../../src/blocks/state/port.ts";
import { eventually } from "../kit/eventually.ts";
import type { StateTraits } from "./state-traits.ts";

export type StateFixture = {
  readonly store: StateStore;
  close(): Promise<void>;
  /** Moves the store's clock; absent for stores that live by real time. */
  advance?(ms: number): void;
  /** Ends the server at once and starts it again with its data; absent where there is none to end. */
  readonly server?: { kill(): Promise<unknown>; restart(): Promise<void> };
};

export type Suite = { readonly fixture: () => StateFixture; readonly traits: StateTraits };

export const signal = new AbortController().signal;
export const reading: StateReadOptions = { consistency: "", metadata: {}, signal };
export const strong: StateReadOptions = { ...reading, consistency: "strong" };

export function freshKey(): string {
  return `test-${randomUUID()}`;
}

export function saving(key: string, value: string, more: Partial<StateSet> = {}): StateSet {
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

export function deletion(key: string, more: Partial<StateDelete> = {}): StateDelete {
  return { kind: "delete", key, etag: undefined, createOnly: false, metadata: {}, ...more };
}

export async function put({ store }: StateFixture, key: string, value: Uint8Array): Promise<void> {
  await store.set({ ...saving(key, ""), value }, signal);
}

export async function read({ store }: StateFixture, key: string): Promise<StateRecord | undefined> {
  try {
    return await store.get(key, strong);
  } catch (error) {
    // What one store says instead.
    if ((error as Error).message === "nats: key not found") return undefined;
    throw error;
  }
}

/** As the block does: store by store, one call or many. */
export async function readMany(
  fixture: StateFixture,
  keys: string[],
): Promise<(StateRecord | undefined | Error)[]> {
  return fixture.store.getMany?.(keys, reading) ?? Promise.all(keys.map((key) => read(fixture, key)));
}

export function text(record: StateRecord | undefined): string | undefined {
  return record === undefined ? undefined : Buffer.from(record.value).toString();
}

export async function expectMismatch(write: Promise<void>): Promise<void> {
  await expect(write).rejects.toBeInstanceOf(EtagMismatch);
}

/** A create that found the key. */
export async function expectExists(traits: StateTraits, write: Promise<void>): Promise<void> {
  if (traits.createConflict !== "error") return expectMismatch(write);
  const failure = await write.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(Error);
  expect(failure).not.toBeInstanceOf(EtagMismatch);
}

export function hasTransactions({ transactions: kind }: StateTraits): boolean {
  return kind === undefined || kind === "real";
}

/** Waits until a record with a time to live of one second is gone. */
export async function expired(fixture: StateFixture, key: string): Promise<void> {
  fixture.advance?.(1_000);
  await eventually(async () => (await read(fixture, key)) === undefined, {
    timeoutMs: 15_000,
    what: "expiry",
  });
}

export async function increment(fixture: StateFixture, key: string): Promise<void> {
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

export async function transfer(fixture: StateFixture, from: string, to: string): Promise<void> {
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
