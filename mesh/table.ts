/**
 * A KV bucket with revisions, guards, time to live and atomic batches, on raw requests. The stored form is the NATS
 * KV one, so `nats kv get` and any client read and write the same data. Normative: README.md, "Tables".
 */
import { randomUUID } from "node:crypto";
import { conflict, maxBatchWrites, maxConflictTries, readsAtOnce, writeBatch } from "./batch.ts";
import {
  type Current,
  type LeaderMessage,
  guardOf,
  keyOf,
  nothing,
  opOf,
  readEntry,
  readLeaderEntry,
  writeHeaders,
} from "./entry.ts";
import { MeshError, cancelledBy, isMeshError } from "./errors.ts";
import { headerValue } from "./headers.ts";
import {
  type AttemptOptions,
  attemptMsFor,
  type JetStream,
  JsCode,
  type WaitOptions,
  isJsError,
  storageError,
} from "./jetstream.ts";
import { Reads } from "./room.ts";
import { bucketConfig, type BucketOptions, type StreamConfig, type Topology } from "./topology.ts";
import { encodeKey, keyFilter } from "./subjects.ts";
import type {
  Expect,
  Table,
  TableChange,
  TableCursor,
  TableEntry,
  TableKey,
  TablePage,
  TableReadOptions,
  TableWrite,
} from "./types.ts";
import { watchTable } from "./watch.ts";

/** One operation's longest time with all retries, ms: a cluster takes up to 9 s to choose another leader. */
const operationMs = 20_000;
/** The same while NATS is away, ms. */
const awayMs = 10_000;
/** A replica that does not answer within this time is passed over, ms. */
const replicaMs = 1_000;
/** Own writes remembered for read-your-writes on replicated buckets. */
const maxRemembered = 10_000;
/** One multi-read: keys, and bytes of the answer, which must stay below NATS' max_pending. */
const maxManyKeys = 1_000;
const maxManyBytes = 32 * 1024 * 1024;
/** One page of a listing: messages and bytes. */
const pageKeys = 256;
const fewKeys = 16;
const pageBytes = 4 * 1024 * 1024;
/** Requests that one page of a listing may take when few of the keys are wanted. */
const maxPageRequests = 64;
/** Wait of a guarded write that met another one in flight, ms, times the number of tries. */
const inFlightWaitMs = 2;
const empty = new Uint8Array(0);
const noOptions = Object.freeze({});

export class JetStreamTable implements Table {
  readonly bucket: string;
  readonly #js: JetStream;
  readonly #topology: Topology;
  readonly #config: StreamConfig;
  readonly #stream: string;
  /** Before the encoded key in a subject. */
  readonly #prefix: string;
  /** Encoded key to revision of this participant's last write; only where replicas may answer stale. */
  readonly #ownWrites = new Map<string, number>();
  readonly #reads: Reads;
  readonly #onMissing = (options: WaitOptions): Promise<unknown> =>
    this.#topology.refresh(this.#config, options);

  constructor(js: JetStream, topology: Topology, bucket: string, options: BucketOptions) {
    this.bucket = bucket;
    this.#js = js;
    this.#topology = topology;
    this.#config = bucketConfig(bucket, options);
    this.#stream = this.#config.name;
    this.#prefix = `$KV.${bucket}.`;
    this.#reads = new Reads(js.room, () => js.connection.maxPayloadBytes());
  }

  async get(key: TableKey, options: TableReadOptions = noOptions): Promise<TableEntry | undefined> {
    const encoded = encodeKey(key);
    const attempt = this.#attempt(options.signal, Number.POSITIVE_INFINITY);
    const replicas = this.#topology.replicasOf(this.#stream) ?? (await this.#ensure(attempt));
    if (replicas === 1) return (await this.#readAny(encoded, attempt)).entry;
    return (await this.#readReplicated(encoded, attempt, options.strong === true)).entry;
  }

  async getMany(
    keys: readonly TableKey[],
    options: TableReadOptions = noOptions,
  ): Promise<(TableEntry | undefined)[]> {
    const encoded = keys.map(encodeKey);
    const attempt = this.#attempt(options.signal, Number.POSITIVE_INFINITY);
    const replicas = await this.#ensure(attempt);
    const found = new Map<string, Current>();
    const unique = [...new Set(encoded)];
    if (replicas > 1 && options.strong === true) {
      await this.#readFresh(unique, found, attempt);
    } else {
      const roomBytes = this.#js.connection.maxPayloadBytes() / 2;
      for (const group of inGroups(unique, this.#prefix.length, roomBytes))
        await this.#readGroup(group, found, attempt);
      const stale = unique.filter((key) => (this.#ownWrites.get(key) ?? 0) > (found.get(key)?.revision ?? 0));
      await this.#readFresh(stale, found, attempt);
    }
    return encoded.map((key) => found.get(key)?.entry);
  }

  async put(
    key: TableKey,
    value: Uint8Array,
    options: { expect?: Expect; ttlSeconds?: number; parts?: string; signal?: AbortSignal } = noOptions,
  ): Promise<number> {
    const { expect, ttlSeconds, parts, signal } = options;
    return this.#write({ kind: "put", key, value, expect, ttlSeconds, parts } as TableWrite, signal);
  }

  /** The key goes without a tombstone: nothing tells watches. */
  purge(key: TableKey): Promise<void> {
    return this.#purge(this.#prefix + encodeKey(key));
  }

  /** The same for all keys below a prefix. */
  purgeBelow(prefix: TableKey): Promise<void> {
    return this.#purge(keyFilter(this.bucket, prefix));
  }

  async #purge(filter: string): Promise<void> {
    const attempt = this.#attempt(undefined, Number.POSITIVE_INFINITY);
    await this.#storage(this.#js.api(`STREAM.PURGE.${this.#stream}`, { filter }, attempt));
  }

  /** False when nobody has written yet; other calls create the bucket. */
  async exists(signal: AbortSignal): Promise<boolean> {
    const attempt = { ...this.#attempt(signal, Number.POSITIVE_INFINITY), onMissing: undefined };
    try {
      await this.#js.api(`STREAM.INFO.${this.#stream}`, undefined, attempt);
      return true;
    } catch (error) {
      if (isJsError(error, JsCode.streamNotFound)) return false;
      throw storageError(error);
    }
  }

  async delete(key: TableKey, options: { expect?: Expect; signal?: AbortSignal } = noOptions): Promise<void> {
    const { expect, signal } = options;
    if (expect === "absent") {
      const attempt = this.#attempt(signal, Number.POSITIVE_INFINITY);
      await this.#ensure(attempt);
      const { entry } = await this.#readLeader(encodeKey(key), attempt);
      if (entry !== undefined) throw conflict(key, undefined, 0);
      return;
    }
    await this.#write({ kind: "delete", key, expect } as TableWrite, signal);
  }

  async batch(writes: readonly TableWrite[], options: { signal?: AbortSignal } = noOptions): Promise<void> {
    if (writes.length === 0) return;
    if (writes.length > maxBatchWrites) {
      throw new MeshError(
        "storage",
        `a batch of ${writes.length} writes is above the server's limit of ${maxBatchWrites}`,
      );
    }
    if (writes.length === 1) return void (await this.#write(writes[0]!, options.signal));
    const attempt = this.#attempt(options.signal, 0);
    await this.#ensure(attempt);
    const read = (encoded: string): Promise<Current> => this.#readLeader(encoded, attempt);
    const revisions = await writeBatch({ js: this.#js, prefix: this.#prefix, attempt, read }, writes);
    // An unknown revision makes the next reads ask the leader.
    for (const [i, write] of writes.entries())
      this.#remember(encodeKey(write.key), revisions[i] ?? Number.MAX_SAFE_INTEGER);
  }

  async list(prefix: TableKey, limit: number): Promise<TableKey[]> {
    const found = new Map<string, TableKey>();
    let after: number | undefined;
    do {
      const page = await this.#page(prefix, after, limit - found.size, () => true, undefined);
      for (const [subject, key] of page.found) {
        if (key === undefined) found.delete(subject);
        else found.set(subject, key);
      }
      after = page.next;
    } while (after !== undefined && found.size < limit);
    return [...found.values()].slice(0, limit);
  }

  async page(
    prefix: TableKey,
    options: { after?: number; limit: number; wants: (key: TableKey) => boolean; signal?: AbortSignal },
  ): Promise<TablePage> {
    const { after, limit, wants, signal } = options;
    const { found, next } = await this.#page(prefix, after, limit, wants, signal);
    const keys = [...found.values()].filter((key) => key !== undefined);
    return next === undefined ? { keys } : { keys, next };
  }

  /** Subjects to keys, in the order of the stream; undefined for a key that is absent, or was and came again. */
  async #page(
    prefix: TableKey,
    after: number | undefined,
    limit: number,
    wants: (key: TableKey) => boolean,
    signal: AbortSignal | undefined,
  ): Promise<{ found: Map<string, TableKey | undefined>; next: number | undefined }> {
    const attempt = this.#attempt(signal, Number.POSITIVE_INFINITY);
    const replicas = await this.#ensure(attempt);
    const next_by_subj = keyFilter(this.bucket, prefix);
    const found = new Map<string, TableKey | undefined>();
    let seq = (after ?? 0) + 1;
    let live = 0;
    /** True when the page is full. */
    const take = ({ revision, entry }: Current, headers: string): boolean => {
      const subject = headerValue(headers, "Nats-Subject");
      seq = revision + 1;
      const key = entry === undefined ? undefined : keyOf(this.#prefix, headers);
      const wanted = key !== undefined && isBelow(prefix, key) && wants(key);
      live += Number(wanted) - Number(found.get(subject) !== undefined);
      // A key that is rewritten or deleted meanwhile comes again, later.
      found.delete(subject);
      found.set(subject, wanted ? key : undefined);
      return live >= limit;
    };
    for (let requests = 0; requests < maxPageRequests; requests++) {
      const batch = Math.min(pageKeys, Math.max(fewKeys, 2 * (limit - live)));
      const request = { next_by_subj, seq, batch, max_bytes: pageBytes };
      const page = await this.#storage(this.#js.directGetMany(this.#stream, request, attempt));
      for (const message of page.messages) {
        const full = take(readEntry(message), message.headers);
        const rest = replicas > 1 || page.pending > 0 || message !== page.messages.at(-1);
        if (full && rest) return { found, next: seq - 1 };
      }
      if (page.pending > 0 && page.messages.length > 0) continue;
      // A replica that is behind does not know what was written of late, to keys that it has listed before too.
      const late = replicas === 1 ? undefined : await this.#leaderNext(next_by_subj, seq, attempt);
      if (late === undefined) return { found, next: undefined };
      if (take(late.current, late.headers)) return { found, next: seq - 1 };
    }
    return { found, next: seq - 1 };
  }

  /** The first message at or behind `seq` that the leader has; `headers` as a direct read gives them. */
  async #leaderNext(
    next_by_subj: string,
    seq: number,
    attempt: AttemptOptions,
  ): Promise<{ current: Current; headers: string } | undefined> {
    try {
      const request = { next_by_subj, seq };
      const { message } = await this.#js.api<{ message: LeaderMessage & { subject: string } }>(
        `STREAM.MSG.GET.${this.#stream}`,
        request,
        attempt,
      );
      const current = readLeaderEntry(message);
      return { current, headers: `\r\nNats-Subject: ${message.subject}\r\n${current.headers}` };
    } catch (error) {
      if (isJsError(error, JsCode.messageNotFound)) return undefined;
      throw storageError(error);
    }
  }

  watch(
    target: { readonly key: TableKey } | { readonly prefix: TableKey },
    { after, signal }: { after?: TableCursor | undefined; signal: AbortSignal },
  ): Promise<AsyncIterableIterator<TableChange>> {
    const filter =
      "key" in target ? this.#prefix + encodeKey(target.key) : keyFilter(this.bucket, target.prefix);
    const wants = (key: TableKey): boolean => "key" in target || isBelow(target.prefix, key);
    const common = { js: this.#js, stream: this.#stream, prefix: this.#prefix };
    const attempt = (now: AbortSignal): AttemptOptions => this.#attempt(now, Number.POSITIVE_INFINITY);
    const ensure = (options: AttemptOptions): Promise<unknown> => this.#ensure(options);
    const read = (encoded: string): Promise<Current> => this.#readLeader(encoded, attempt(signal));
    return watchTable({ ...common, filter, wants, attempt, ensure, read }, after, signal);
  }

  #attempt(signal: AbortSignal | undefined, repeatMs: number): AttemptOptions {
    const awayEndMs = this.#js.endIn(awayMs);
    const endMs = awayEndMs + (operationMs - awayMs);
    const attemptMs = attemptMsFor(this.#topology.replicasOf(this.#stream));
    return { endMs, awayEndMs, signal, repeatMs, attemptMs, onMissing: this.#onMissing };
  }

  #ensure(attempt: AttemptOptions): Promise<number> {
    return this.#topology.ensure(this.#config, attempt);
  }

  /** State of a key as any replica has it. */
  async #readAny(encoded: string, attempt: AttemptOptions): Promise<Current> {
    const bytes = await this.#reads.enter(1, attempt.signal);
    try {
      const message = await this.#storage(this.#js.directGet(this.#stream, this.#prefix + encoded, attempt));
      if (message === undefined) return nothing;
      this.#reads.learn(message.data.length);
      return readEntry(message);
    } finally {
      this.#reads.leave(bytes);
    }
  }

  async #readReplicated(encoded: string, attempt: AttemptOptions, strong: boolean): Promise<Current> {
    const own = this.#ownWrites.get(encoded) ?? 0;
    if (strong || own === Number.MAX_SAFE_INTEGER) return this.#readLeader(encoded, attempt);
    try {
      // A frozen replica stays in the group that answers until its routes are dropped.
      const current = await this.#readAny(encoded, { ...attempt, attemptMs: replicaMs, repeatMs: 0 });
      if (current.revision >= own) return current;
    } catch (error) {
      if (!isMeshError(error, "timeout", "interrupted")) throw error;
    }
    return this.#readLeader(encoded, attempt);
  }

  /** Fresh state through the stream's leader. */
  async #readLeader(encoded: string, attempt: AttemptOptions): Promise<Current> {
    const reading = { ...attempt, repeatMs: Number.POSITIVE_INFINITY };
    if (this.#topology.replicasOf(this.#stream) === 1) return this.#readAny(encoded, reading);
    const bytes = await this.#reads.enter(1, attempt.signal);
    try {
      const request = { last_by_subj: this.#prefix + encoded };
      const reply = await this.#js.api<{ message: LeaderMessage }>(
        `STREAM.MSG.GET.${this.#stream}`,
        request,
        reading,
      );
      const current = readLeaderEntry(reply.message);
      this.#reads.learn(current.entry?.value.length ?? 0);
      return current;
    } catch (error) {
      if (isJsError(error, JsCode.messageNotFound)) return nothing;
      throw storageError(error);
    } finally {
      this.#reads.leave(bytes);
    }
  }

  async #readFresh(
    encoded: readonly string[],
    found: Map<string, Current>,
    attempt: AttemptOptions,
  ): Promise<void> {
    for (let i = 0; i < encoded.length; i += readsAtOnce) {
      const part = encoded.slice(i, i + readsAtOnce);
      const states = await Promise.all(part.map((key) => this.#readLeader(key, attempt)));
      for (const [n, key] of part.entries()) found.set(key, states[n]!);
    }
  }

  /** One snapshot, unless the server has to cut its answer. */
  async #readGroup(
    group: readonly string[],
    found: Map<string, Current>,
    attempt: AttemptOptions,
  ): Promise<void> {
    for (let rest = group; rest.length > 0;) {
      const request = { multi_last: rest.map((key) => this.#prefix + key), max_bytes: maxManyBytes };
      const bytes = await this.#reads.enter(rest.length, attempt.signal);
      const answer = this.#storage(this.#js.directGetMany(this.#stream, request, attempt));
      const { messages, pending } = await answer.finally(() => this.#reads.leave(bytes));
      for (const message of messages) {
        this.#reads.learn(message.data.length);
        found.set(
          headerValue(message.headers, "Nats-Subject").slice(this.#prefix.length),
          readEntry(message),
        );
      }
      if (pending === 0 || messages.length === 0) return;
      rest = rest.filter((key) => !found.has(key));
    }
  }

  /** One guarded or plain write; resolves with its revision. */
  async #write(write: TableWrite, signal: AbortSignal | undefined): Promise<number> {
    const encoded = encodeKey(write.key);
    const guarded = write.expect !== undefined;
    const attempt = this.#attempt(signal, guarded ? 0 : Number.POSITIVE_INFINITY);
    const replicas = this.#topology.replicasOf(this.#stream) ?? (await this.#ensure(attempt));
    const revision = guarded
      ? await this.#writeGuarded(write, encoded, attempt)
      : (
          await this.#storage(
            this.#js.publish(this.#prefix + encoded, valueOf(write), writeHeaders(write, encoded), attempt),
          )
        ).seq;
    if (replicas > 1) this.#remember(encoded, revision);
    return revision;
  }

  async #writeGuarded(write: TableWrite, encoded: string, attempt: AttemptOptions): Promise<number> {
    const op = randomUUID();
    const { clock, random } = this.#js.connection.settings;
    let guard = write.expect === "absent" ? 0 : write.expect!;
    // Why it is not known whether an earlier try was applied.
    let open: MeshError | undefined;
    for (let conflicts = 0; ;) {
      try {
        const headers = writeHeaders(write, encoded, guard, op);
        return (await this.#js.publish(this.#prefix + encoded, valueOf(write), headers, attempt)).seq;
      } catch (error) {
        const conflicted = isJsError(error, JsCode.wrongLastSequence, JsCode.wrongLastSequenceInFlight);
        if (isMeshError(error, "timeout", "interrupted")) open ??= error;
        else if (conflicted) conflicts++;
        else throw open ?? storageError(error);
        const state = await this.#readLeader(encoded, attempt).catch((problem: unknown) =>
          Promise.reject(open ?? problem),
        );
        if (opOf(state) === op) return state.revision;
        const late = conflicts >= maxConflictTries || clock.monotonicMs() >= attempt.endMs;
        if (late) throw open ?? conflict(write.key, error, 0);
        if (state.revision !== guard) guard = nextGuard(write, state, guard, open, error);
        else if (conflicted)
          await clock.sleep(inFlightWaitMs * conflicts * random(), attempt.signal).catch(giveUp(attempt));
      }
    }
  }

  #remember(encoded: string, revision: number): void {
    if (this.#topology.replicasOf(this.#stream) === 1) return;
    const before = this.#ownWrites.get(encoded) ?? 0;
    this.#ownWrites.delete(encoded);
    if (this.#ownWrites.size >= maxRemembered) this.#ownWrites.delete(this.#ownWrites.keys().next().value!);
    // An unknown revision is settled by the next known one.
    this.#ownWrites.set(encoded, before === Number.MAX_SAFE_INTEGER ? revision : Math.max(before, revision));
  }

  async #storage<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw storageError(error);
    }
  }
}

/**
 * Guard of the next try after the key turned out to have another revision: that of a tombstone when the key must be
 * absent. Throws `conflict`, or what left an earlier try open, when that try may have been applied and replaced since.
 */
function nextGuard(
  write: TableWrite,
  state: Current,
  guard: number,
  open: MeshError | undefined,
  cause: unknown,
): number {
  // Whoever replaced what this write expected came before all of its tries.
  if (open !== undefined && guardOf(state) !== guard) throw open;
  if (write.expect === "absent" && state.entry === undefined) return state.revision;
  throw conflict(write.key, cause, 0);
}

function giveUp({ signal }: AttemptOptions): () => Promise<never> {
  return () => Promise.reject(cancelledBy(signal!));
}

function valueOf(write: TableWrite): Uint8Array {
  return write.kind === "put" ? write.value : empty;
}

function isBelow(prefix: TableKey, key: TableKey): boolean {
  return key.length > prefix.length && prefix.every((part, i) => key[i] === part);
}

/** Encoded keys in groups whose multi-read fits into one request each. */
function inGroups(keys: readonly string[], prefixBytes: number, roomBytes: number): string[][] {
  const groups: string[][] = [];
  let group: string[] = [];
  let bytes = 0;
  for (const key of keys) {
    const more = prefixBytes + key.length + 3;
    if (group.length > 0 && (group.length === maxManyKeys || bytes + more > roomBytes)) {
      groups.push(group);
      group = [];
      bytes = 0;
    }
    group.push(key);
    bytes += more;
  }
  if (group.length > 0) groups.push(group);
  return groups;
}
