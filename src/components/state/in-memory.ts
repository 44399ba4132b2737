/**
 * State in the memory of this sidecar: for tests and trying things out. Nothing is shared and nothing survives.
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "../../../mesh/index.ts";
import {
  EtagMismatch,
  aboutKey,
  type StateChange,
  type StateDelete,
  type StateKeyPage,
  type StateRecord,
  type StateSet,
  type StateStore,
  type StateTarget,
  type StateWrite,
} from "../../blocks/state/port.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { ChangeLog } from "./memory/change-log.ts";
import { type ListOptions, keyRange, pageOf } from "./sql/page-of.ts";

export const type = "state.in-memory";
export const versions = ["v1"];
export const capabilities = ["ETAG", "TRANSACTIONAL", "TTL", "DELETE_WITH_PREFIX", "KEYS_LIKE"];

export const metadataSchema = {
  maxEntries: {
    kind: "integer",
    description: "Keys held at once; a save of one more key is refused.",
    default: "1000000",
    min: 1,
  },
} as const satisfies MetadataSchema;

/** How often expired records are dropped, ms. They are invisible from the moment they expire. */
const sweepMs = 10_000;

export function open({ clock, metadata }: ComponentContext<typeof metadataSchema>): Promise<StateStore> {
  return Promise.resolve(new InMemoryStore(clock, metadata.maxEntries));
}

class InMemoryStore implements StateStore {
  readonly hidesEmpty = true;
  readonly #clock: Clock;
  readonly #maxEntries: number;
  readonly #records = new Map<string, StateRecord>();
  /** Keys of records with a time to live. */
  readonly #expiring = new Set<string>();
  readonly #sweep;
  /** From the first watch on. */
  #changes: ChangeLog | undefined;

  constructor(clock: Clock, maxEntries: number) {
    this.#clock = clock;
    this.#maxEntries = maxEntries;
    this.#sweep = clock.setInterval(() => this.#dropExpired(), sweepMs);
  }

  async get(key: string): Promise<StateRecord | undefined> {
    return this.#find(key);
  }

  async getMany(keys: readonly string[]): Promise<(StateRecord | undefined)[]> {
    return keys.map((key) => this.#find(key));
  }

  async set(write: StateSet): Promise<void> {
    this.#check(write);
    this.#checkRoom([write]);
    this.#apply(write);
  }

  async delete(write: StateDelete): Promise<void> {
    this.#check(write);
    this.#apply(write);
  }

  async transact(writes: readonly StateWrite[]): Promise<void> {
    for (const write of writes) this.#check(write);
    this.#checkRoom(writes);
    for (const write of writes) this.#apply(write);
  }

  async list(prefix: string, options: ListOptions): Promise<StateKeyPage> {
    const { limit } = options;
    const { after = "" } = keyRange(prefix, options.after);
    const keys: string[] = [];
    for (const key of this.#records.keys())
      if (key.startsWith(prefix) && key > after && this.#find(key) !== undefined) keys.push(key);
    return pageOf(keys.sort().slice(0, limit + 1), limit);
  }

  async watch(
    target: StateTarget,
    { after, signal }: { after: string | undefined; signal: AbortSignal },
  ): Promise<AsyncIterableIterator<StateChange>> {
    this.#changes ??= new ChangeLog();
    const store = { find: (key: string) => this.#find(key), tick: () => this.#dropExpired() };
    return this.#changes.watch(target, after, signal, this.#clock, store);
  }

  async close(): Promise<void> {
    this.#sweep.cancel();
    this.#records.clear();
    this.#expiring.clear();
  }

  #find(key: string): StateRecord | undefined {
    const record = this.#records.get(key);
    if (record?.expiresAtMs === undefined || record.expiresAtMs > this.#clock.nowMs()) return record;
    this.#remove(key, "expire");
    return undefined;
  }

  #check(write: StateWrite): void {
    if (write.etag === undefined && !write.createOnly) return;
    const record = this.#find(write.key);
    if (write.createOnly ? record !== undefined : record?.etag !== write.etag)
      throw aboutKey(new EtagMismatch(), write.key);
  }

  #checkRoom(writes: readonly StateWrite[]): void {
    if (this.#records.size + writes.length <= this.#maxEntries) return;
    this.#dropExpired();
    const added = new Set<string>();
    for (const { kind, key } of writes) if (kind === "set" && !this.#records.has(key)) added.add(key);
    if (this.#records.size + added.size <= this.#maxEntries) return;
    throw new Error(
      `the in-memory store is full: it holds ${this.#records.size} keys and metadata maxEntries is ` +
        `${this.#maxEntries}; raise maxEntries, delete keys or save them with ttlInSeconds`,
    );
  }

  #apply(write: StateWrite): void {
    if (write.kind === "delete") return this.#remove(write.key, "delete");
    const { key, ttlSeconds } = write;
    // A copy: the caller's bytes may be a view into a buffer that is used again.
    const record = { value: new Uint8Array(write.value), etag: randomUUID() };
    if (ttlSeconds !== undefined && ttlSeconds > 0) {
      this.#records.set(key, { ...record, expiresAtMs: this.#clock.nowMs() + ttlSeconds * 1000 });
      this.#expiring.add(key);
    } else {
      this.#records.set(key, record);
      this.#expiring.delete(key);
    }
    this.#changes?.add(key, "put");
  }

  #remove(key: string, why: "delete" | "expire"): void {
    if (this.#records.delete(key)) this.#changes?.add(key, why);
    this.#expiring.delete(key);
  }

  #dropExpired(): void {
    for (const key of this.#expiring) this.#find(key);
  }
}
