/**
 * A table that takes values above NATS' max_payload: these lie in parts in a bucket of their own, and the key holds a
 * message without payload that names them. Parts never change, so a reader sees one version or another. Normative:
 * README.md, "Large values".
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "./clock.ts";
import { MeshError, isMeshError } from "./errors.ts";
import type { JetStreamTable } from "./table.ts";
import type {
  Expect,
  LargeTable,
  TableChange,
  TableCursor,
  TableEntry,
  TableKey,
  TablePage,
  TableReadOptions,
  TableWrite,
} from "./types.ts";

type Put = Extract<TableWrite, { kind: "put" }>;
type Parts = { readonly id: string; readonly count: number; readonly bytes: number };
type PutOptions = { expect?: Expect; ttlSeconds?: number; signal?: AbortSignal };

/** Bytes of one part, at most; half of max_payload when that is less. */
const maxPartBytes = 512 * 1024;
/** Parts that are read or written at once. */
const partsAtOnce = 8;
/** File streams of NATS take no larger record, bytes. */
const maxRecordBytes = 32 * 1024 * 1024;
/** Room for headers; a long key stands in one of them. */
const headerBytes = 1_024;
const bytesPerKeyChar = 9;
/** Parts without a value are left alone while their writer may still be at work, s. The writer gives up long before. */
const writingSeconds = 3_600;
const writingMs = 300_000;
/** One of several participants sweeps so often, s. */
const sweepSeconds = 600;
const sweepPage = 64;
/** Keys of which it is known that their value is large, so that what is replaced goes at once. */
const maxKnown = 1_000;
/** Reads of a value that is replaced again and again. */
const maxTries = 8;
/** A write without a guard that others come before: tries again for so long, and waits so long at most, ms. */
const againMs = 30_000;
const maxAgainWaitMs = 200;
/** Large values of one read of many, bytes in all. */
const maxManyBytes = 256 * 1024 * 1024;
const noOptions = Object.freeze({});
const empty = new Uint8Array(0);

export type LargeTableInit = {
  readonly values: JetStreamTable;
  readonly parts: JetStreamTable;
  readonly maxValueBytes: number;
  readonly maxPayloadBytes: () => number;
  readonly clock: Clock;
  readonly random: () => number;
};

export class LargeValueTable implements LargeTable {
  readonly bucket: string;
  readonly #values: JetStreamTable;
  readonly #parts: JetStreamTable;
  readonly #init: LargeTableInit;
  /** Key to the id of its parts. */
  readonly #known = new Map<string, string>();

  constructor(init: LargeTableInit) {
    this.bucket = init.values.bucket;
    this.#values = init.values;
    this.#parts = init.parts;
    this.#init = init;
  }

  async get(key: TableKey, options: TableReadOptions = noOptions): Promise<TableEntry | undefined> {
    const entry = await this.#values.get(key, options);
    return entry?.parts === undefined ? entry : this.#whole(key, entry, options.signal);
  }

  async getMany(
    keys: readonly TableKey[],
    options: TableReadOptions = noOptions,
  ): Promise<(TableEntry | undefined)[]> {
    const entries = await this.#values.getMany(keys, options);
    let bytes = 0;
    for (const [n, entry] of entries.entries()) {
      if (entry?.parts === undefined) continue;
      bytes += partsOf(entry.parts).bytes;
      if (bytes > maxManyBytes)
        throw new MeshError(
          "too-large",
          `these values take more than ${maxManyBytes} bytes; read fewer at once`,
        );
      entries[n] = await this.#whole(keys[n]!, entry, options.signal);
    }
    return entries;
  }

  async put(key: TableKey, value: Uint8Array, options: PutOptions = noOptions): Promise<number> {
    if (value.length > this.#smallBytes(key))
      return this.#putLarge({ kind: "put", key, value, ...options }, options.signal);
    const before = this.#idOf(key);
    const revision = await this.#values.put(key, value, options);
    if (before !== undefined) await this.#forget(key, before);
    return revision;
  }

  async delete(key: TableKey, options: { expect?: Expect; signal?: AbortSignal } = noOptions): Promise<void> {
    const before = this.#idOf(key);
    await this.#values.delete(key, options);
    if (before !== undefined) await this.#forget(key, before);
  }

  async batch(writes: readonly TableWrite[], options: { signal?: AbortSignal } = noOptions): Promise<void> {
    const isLarge = (write: TableWrite): write is Put =>
      write.kind === "put" && write.value.length > this.#smallBytes(write.key);
    const before = writes.map((write) => (isLarge(write) ? undefined : this.#idOf(write.key)));
    if (writes.some(isLarge)) await this.#batchLarge(writes, isLarge, options.signal);
    else await this.#values.batch(writes, options);
    for (const [n, id] of before.entries()) if (id !== undefined) await this.#forget(writes[n]!.key, id);
  }

  list(prefix: TableKey, limit: number): Promise<TableKey[]> {
    return this.#values.list(prefix, limit);
  }

  page(...args: Parameters<LargeTable["page"]>): Promise<TablePage> {
    return this.#values.page(...args);
  }

  async watch(
    target: { readonly key: TableKey } | { readonly prefix: TableKey },
    options: { after?: TableCursor | undefined; signal: AbortSignal },
  ): Promise<AsyncIterableIterator<TableChange>> {
    return this.#wholeChanges(await this.#values.watch(target, options), options.signal);
  }

  async *#wholeChanges(
    changes: AsyncIterable<TableChange>,
    signal: AbortSignal,
  ): AsyncIterableIterator<TableChange> {
    for await (const change of changes) {
      if (change.kind !== "put" || change.entry.parts === undefined) {
        yield change;
        continue;
      }
      try {
        const { parts, ...entry } = change.entry;
        const value = await this.#read(partsOf(parts), signal);
        // Replaced meanwhile, which will be told.
        if (value === undefined) yield { kind: "idle", cursor: change.cursor };
        else yield { ...change, entry: { ...entry, value } };
      } catch (error) {
        if (!(error instanceof MeshError) || signal.aborted) throw error;
        yield { ...change, error };
      }
    }
  }

  /** The value that an entry points at; of a later entry when this one was replaced meanwhile. */
  async #whole(
    key: TableKey,
    first: TableEntry,
    signal: AbortSignal | undefined,
  ): Promise<TableEntry | undefined> {
    let entry: TableEntry | undefined = first;
    for (let tries = 0; tries < maxTries; tries++) {
      if (entry?.parts === undefined) return entry;
      const { parts, ...rest }: TableEntry = entry;
      const about = partsOf(parts);
      const value = await this.#read(about, signal);
      if (value !== undefined) {
        this.#remember(key, about.id);
        return { ...rest, value };
      }
      const revision: number = entry.revision;
      entry = await this.#values.get(key, strongly(signal));
      if (entry?.revision === revision)
        throw new MeshError("storage", `parts of the value are gone from bucket ${this.#parts.bucket}`);
    }
    throw new MeshError("timeout", "the value is replaced faster than it can be read");
  }

  /** Undefined when a part is not there. */
  async #read({ id, count, bytes }: Parts, signal: AbortSignal | undefined): Promise<Uint8Array | undefined> {
    const { maxValueBytes } = this.#init;
    if (bytes > maxValueBytes) throw tooLarge(bytes, maxValueBytes);
    const value = Buffer.allocUnsafe(bytes);
    let at = 0;
    for (let n = 1; n <= count; n += partsAtOnce) {
      const keys = Array.from({ length: Math.min(partsAtOnce, count - n + 1) }, (_, i) => partKey(id, n + i));
      let found = await this.#parts.getMany(keys, signal === undefined ? noOptions : { signal });
      if (found.includes(undefined)) found = await this.#parts.getMany(keys, strongly(signal));
      for (const part of found) {
        if (part === undefined) return undefined;
        if (at + part.value.length > bytes) throw malformed();
        value.set(part.value, at);
        at += part.value.length;
      }
    }
    if (at !== bytes) throw malformed();
    return value;
  }

  async #putLarge(put: Put, signal: AbortSignal | undefined): Promise<number> {
    const before = await this.#guarded(put, signal);
    const parts = await this.#upload(put, signal);
    let guarded = before;
    const patience = this.#patience(signal);
    for (;;) {
      const { expect } = guarded;
      const { ttlSeconds } = put;
      const options = { expect, parts: parts.text, ...(ttlSeconds === undefined ? {} : { ttlSeconds }) };
      try {
        const revision = await this.#values.put(
          put.key,
          empty,
          signal === undefined ? options : { ...options, signal },
        );
        await this.#done(put.key, parts.id, guarded.replaced);
        return revision;
      } catch (error) {
        const again = put.expect === undefined && isMeshError(error, "conflict");
        if (!again || !(await patience.goOn())) throw await this.#failed([parts.id], error);
      }
      guarded = await this.#guarded(put, signal);
    }
  }

  async #batchLarge(
    writes: readonly TableWrite[],
    isLarge: (write: TableWrite) => write is Put,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const large = writes.filter(isLarge);
    const guard = (): Promise<Guarded[]> =>
      Promise.all(large.map((put) => this.#guarded(put, signal, writes.indexOf(put))));
    let guards = await guard();
    const uploaded: { id: string; text: string }[] = [];
    try {
      for (const put of large) uploaded.push(await this.#upload(put, signal));
    } catch (error) {
      throw await this.#failed(
        uploaded.map(({ id }) => id),
        error,
      );
    }
    const patience = this.#patience(signal);
    for (;;) {
      const batch = writes.map((write): TableWrite => {
        const n = large.indexOf(write as Put);
        if (n < 0) return write;
        return { ...write, value: empty, parts: uploaded[n]!.text, expect: guards[n]!.expect } as TableWrite;
      });
      try {
        await this.#values.batch(batch, signal === undefined ? noOptions : { signal });
        break;
      } catch (error) {
        const index = isMeshError(error, "conflict") ? error.index : undefined;
        const refused = index === undefined ? undefined : writes[index];
        const own = refused !== undefined && isLarge(refused) && refused.expect === undefined;
        if (!own || !(await patience.goOn()))
          throw await this.#failed(
            uploaded.map(({ id }) => id),
            error,
          );
      }
      guards = await guard();
    }
    for (const [n, put] of large.entries()) await this.#done(put.key, uploaded[n]!.id, guards[n]!.replaced);
  }

  /**
   * The guard of a large write, which always has one: without, it could be applied twice, the second time when its
   * parts are gone. Fails at once where it would in the end.
   */
  async #guarded(put: Put, signal: AbortSignal | undefined, index = 0): Promise<Guarded> {
    const { maxValueBytes } = this.#init;
    if (put.value.length > maxValueBytes) throw tooLarge(put.value.length, maxValueBytes);
    const entry = await this.#values.get(put.key, strongly(signal));
    const current: Expect = entry?.revision ?? "absent";
    if (put.expect !== undefined && put.expect !== current)
      throw new MeshError("conflict", "another write came first", { index });
    return { expect: current, replaced: entry?.parts === undefined ? undefined : partsOf(entry.parts).id };
  }

  async #upload({ key, value }: Put, signal: AbortSignal | undefined): Promise<{ id: string; text: string }> {
    const { clock, maxPayloadBytes } = this.#init;
    const id = randomUUID();
    const endMs = clock.monotonicMs() + writingMs;
    const options = signal === undefined ? noOptions : { signal };
    const partBytes = Math.min(maxPartBytes, Math.floor(maxPayloadBytes() / 2));
    const count = Math.ceil(value.length / partBytes);
    try {
      await this.#parts.put(["w", id], empty, { ...options, ttlSeconds: writingSeconds });
      await this.#parts.put(["m", id], Buffer.from(JSON.stringify({ v: 1, key })), options);
      for (let n = 0; n < count; n += partsAtOnce) {
        if (clock.monotonicMs() > endMs)
          throw new MeshError("timeout", `writing the value took longer than ${writingMs} ms`);
        const some = Array.from({ length: Math.min(partsAtOnce, count - n) }, (_, i) => n + i);
        const puts = some.map((part) => {
          const bytes = value.subarray(part * partBytes, (part + 1) * partBytes);
          return this.#parts.put(partKey(id, part + 1), bytes, options);
        });
        // All of them: one that is still on its way must not come when the rest was removed.
        const failures = (await Promise.allSettled(puts)).flatMap((put) =>
          put.status === "rejected" ? [put.reason as unknown] : [],
        );
        if (failures.length > 0) throw failures.find(isOpen) ?? failures[0];
      }
    } catch (error) {
      throw await this.#failed([id], error);
    }
    return { id, text: `${id} ${count} ${value.length}` };
  }

  async #done(key: TableKey, id: string, replaced: string | undefined): Promise<void> {
    this.#remember(key, id);
    await this.#parts.purge(["w", id]).catch(() => {});
    if (replaced !== undefined) await this.#remove(replaced);
  }

  /** After a write that certainly did not happen its parts go; after a doubt about any of them the sweep decides. */
  async #failed(ids: readonly string[], error: unknown): Promise<unknown> {
    if (!isOpen(error)) for (const id of ids) await this.#remove(id);
    return error;
  }

  /** What cannot be removed now is left to the sweep. */
  async #remove(id: string): Promise<void> {
    try {
      await this.#parts.purgeBelow(["p", id]);
      await this.#parts.purge(["m", id]);
      await this.#parts.purge(["w", id]);
    } catch {
      // See above.
    }
  }

  #remember(key: TableKey, id: string): void {
    const name = key.join("\0");
    this.#known.delete(name);
    if (this.#known.size >= maxKnown) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(name, id);
  }

  #idOf(key: TableKey): string | undefined {
    return this.#known.size === 0 ? undefined : this.#known.get(key.join("\0"));
  }

  /**
   * The value was replaced by a small one or deleted. `id` was known before that write began: one that has become known
   * since may be that of a later write.
   */
  async #forget(key: TableKey, id: string): Promise<void> {
    const name = key.join("\0");
    if (this.#known.get(name) === id) this.#known.delete(name);
    await this.#remove(id);
  }

  /** Between tries of a write that others come before: true when there is time for one more, after a short wait. */
  #patience(signal: AbortSignal | undefined): { goOn(): Promise<boolean> } {
    const { clock, random } = this.#init;
    let endMs: number | undefined;
    let waitMs = 5;
    return {
      async goOn() {
        endMs ??= clock.monotonicMs() + againMs;
        if (clock.monotonicMs() > endMs) return false;
        waitMs = Math.min(2 * waitMs, maxAgainWaitMs);
        const waited = clock.sleep(waitMs * random(), signal).then(() => true);
        return waited.catch(() => false);
      },
    };
  }

  #smallBytes(key: TableKey): number {
    const limit = Math.min(this.#init.maxPayloadBytes(), maxRecordBytes);
    let chars = 0;
    for (const part of key) chars += part.length + 1;
    return Math.max(limit / 2, limit - headerBytes - bytesPerKeyChar * chars);
  }

  async sweep(signal: AbortSignal): Promise<number> {
    if (!(await this.#parts.exists(signal))) return 0;
    try {
      await this.#parts.put(["s"], empty, { expect: "absent", ttlSeconds: sweepSeconds, signal });
    } catch (error) {
      if (isMeshError(error, "conflict")) return 0;
      throw error;
    }
    let removed = 0;
    let after: number | undefined;
    do {
      const options = { limit: sweepPage, wants: () => true, signal };
      const page = await this.#parts.page(["m"], after === undefined ? options : { ...options, after });
      for (const id of await this.#unused(
        page.keys.map((key) => key[1]!),
        signal,
      )) {
        await this.#remove(id);
        removed++;
      }
      after = page.next;
    } while (after !== undefined);
    return removed;
  }

  /** Those of these sets of parts that no value points at and nobody is writing. */
  async #unused(ids: readonly string[], signal: AbortSignal): Promise<string[]> {
    // In this order: who has ended writing between the two reads has a value that points at it.
    const writing = await this.#parts.getMany(
      ids.map((id) => ["w", id]),
      strongly(signal),
    );
    const about = await this.#parts.getMany(
      ids.map((id) => ["m", id]),
      strongly(signal),
    );
    const unused: string[] = [];
    for (const [n, id] of ids.entries()) {
      const manifest = about[n];
      if (writing[n] !== undefined || manifest === undefined) continue;
      const key = ownerOf(manifest);
      if (key === undefined) continue;
      const entry = await this.#values.get(key, strongly(signal));
      if (entry?.parts === undefined || partsOf(entry.parts).id !== id) unused.push(id);
    }
    return unused;
  }
}

type Guarded = { readonly expect: Expect; readonly replaced: string | undefined };

function strongly(signal: AbortSignal | undefined): TableReadOptions {
  return signal === undefined ? { strong: true } : { strong: true, signal };
}

/** It is not known whether the write was done, or will be. */
function isOpen(error: unknown): boolean {
  return isMeshError(error, "timeout", "interrupted", "cancelled", "closed", "disconnected");
}

function partKey(id: string, n: number): TableKey {
  return ["p", id, String(n)];
}

function tooLarge(bytes: number, limit: number): MeshError {
  return new MeshError("too-large", `a value of ${bytes} bytes is above the limit of ${limit}`);
}

function malformed(): MeshError {
  return new MeshError("protocol", "the parts of the value are not those that it names");
}

function partsOf(text: string): Parts {
  const match = /^([\w-]{1,64}) (\d{1,7}) (\d{1,12})$/.exec(text);
  if (match === null) throw malformed();
  return { id: match[1]!, count: Number(match[2]), bytes: Number(match[3]) };
}

/** Key that a set of parts was made for; undefined in a form of a later version. */
function ownerOf({ value }: TableEntry): TableKey | undefined {
  try {
    const { v, key } = JSON.parse(Buffer.from(value).toString()) as { v: unknown; key: unknown };
    const isKey = Array.isArray(key) && key.length > 0 && key.every((part) => typeof part === "string");
    return v === 1 && isKey ? key : undefined;
  } catch {
    return undefined;
  }
}
