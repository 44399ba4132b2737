/**
 * A KV bucket with revisions, guards, time to live and atomic batches, on raw requests. The stored form is the NATS
 * KV one, so `nats kv get` and any client read and write the same data. Normative: README.md, "Tables".
 */
import { randomUUID } from "node:crypto";
import type { Msg, MsgHdrs } from "@nats-io/transport-node";
import { MeshError, isMeshError } from "./errors.ts";
import { JsCode, JetStreamError, type JetStream, isJsError, natsHeaders } from "./jetstream.ts";
import { bucketConfig, type StreamConfig, type Topology } from "./topology.ts";
import { encodeKey, fullKey, isHashedKey, keyFilter, parseKey } from "./subjects.ts";
import type { Expect, Table, TableEntry, TableKey, TableReadOptions, TableWrite } from "./types.ts";

/** One operation's longest time with all retries, ms. */
const operationMs = 10_000;
/** A tombstone is kept this long so that watchers see the delete; then the key is truly gone. */
const tombstoneTtl = "3600s";
/** Own writes remembered for read-your-writes on replicated buckets. */
const maxRemembered = 10_000;
/** Limits of the server: keys in one multi-read, messages in one batch. */
export const maxManyKeys = 1_000;
export const maxBatchWrites = 1_000;
/** Tries of a guarded write that met a tombstone or another write in flight. */
const maxConflictTries = 8;
const empty = new Uint8Array(0);

/** Decoded state of one key: absent keys may still have a tombstone with a revision. */
type Current = { readonly entry: TableEntry | undefined; readonly revision: number; readonly op: string | undefined };

export class JetStreamTable implements Table {
  readonly bucket: string;
  readonly #js: JetStream;
  readonly #topology: Topology;
  readonly #config: StreamConfig;
  /** Encoded key to revision of this participant's last write; only where replicas may answer stale. */
  readonly #ownWrites = new Map<string, number>();
  #replicas: number | undefined;

  constructor(js: JetStream, topology: Topology, bucket: string, storage: "file" | "memory") {
    this.bucket = bucket;
    this.#js = js;
    this.#topology = topology;
    this.#config = bucketConfig(bucket, storage);
  }

  async get(key: TableKey, options: TableReadOptions = {}): Promise<TableEntry | undefined> {
    const encoded = encodeKey(key);
    await this.#ensure(options.signal);
    return (await this.#read(encoded, options)).entry;
  }

  async getMany(keys: readonly TableKey[], options: TableReadOptions = {}): Promise<(TableEntry | undefined)[]> {
    if (keys.length === 0) return [];
    const replicated = (await this.#ensure(options.signal)) > 1;
    if (keys.length > maxManyKeys || (replicated && options.strong === true)) {
      return inChunks(keys, 64, (key) => this.get(key, options));
    }
    const subjects = keys.map((key) => this.#subject(encodeKey(key)));
    const unique = [...new Set(subjects)];
    const request = { multi_last: unique };
    const messages = await this.#storage(() =>
      this.#js.directGetMany(this.#stream, request, this.#attempt(options.signal, true)),
    );
    const found = new Map(messages.map((message) => [message.headers?.get("Nats-Subject") ?? "", decode(message)]));
    return subjects.map((subject) => found.get(subject)?.entry);
  }

  async put(
    key: TableKey,
    value: Uint8Array,
    options: { expect?: Expect; ttlSeconds?: number; signal?: AbortSignal } = {},
  ): Promise<number> {
    const write: TableWrite = {
      kind: "put",
      key,
      value,
      ...(options.expect === undefined ? {} : { expect: options.expect }),
      ...(options.ttlSeconds === undefined ? {} : { ttlSeconds: options.ttlSeconds }),
    };
    await this.#ensure(options.signal);
    return this.#write(write, options.signal);
  }

  async delete(key: TableKey, options: { expect?: Expect; signal?: AbortSignal } = {}): Promise<void> {
    await this.#ensure(options.signal);
    if (options.expect === "absent") {
      const current = await this.#readLeader(encodeKey(key), options.signal);
      if (current.entry !== undefined) throw conflict(key);
      return;
    }
    await this.#write({ kind: "delete", key, ...(options.expect === undefined ? {} : { expect: options.expect }) }, options.signal);
  }

  async batch(writes: readonly TableWrite[], options: { signal?: AbortSignal } = {}): Promise<void> {
    if (writes.length === 0) return;
    if (writes.length > maxBatchWrites) {
      throw new MeshError("storage", `a batch of ${writes.length} writes is above the server's limit of ${maxBatchWrites}`);
    }
    await this.#ensure(options.signal);
    if (writes.length === 1) return void (await this.#write(writes[0]!, options.signal));
    await this.#writeBatch(writes, options.signal);
  }

  async list(prefix: TableKey, limit: number): Promise<TableKey[]> {
    await this.#ensure();
    const keys: TableKey[] = [];
    const filter = keyFilter(this.bucket, prefix);
    for (let sequence = 1; keys.length < limit; ) {
      const request = { next_by_subj: filter, seq: sequence, batch: 256 };
      const page = await this.#storage(() => this.#js.directGetMany(this.#stream, request, this.#attempt(undefined, false)));
      if (page.length === 0) break;
      for (const message of page) {
        const current = decode(message);
        sequence = current.revision + 1;
        if (current.entry !== undefined && keys.length < limit) keys.push(this.#keyOf(message));
      }
    }
    return keys;
  }

  get #stream(): string {
    return this.#config.name;
  }

  #subject(encodedKey: string): string {
    return `$KV.${this.bucket}.${encodedKey}`;
  }

  #keyOf(message: Msg): TableKey {
    const encoded = (message.headers?.get("Nats-Subject") ?? "").slice(this.bucket.length + 5);
    return parseKey(isHashedKey(encoded) ? (message.headers?.get("Weft-Key") ?? encoded) : encoded);
  }

  async #ensure(signal?: AbortSignal): Promise<number> {
    this.#replicas = await this.#topology.ensure(this.#config, signal);
    return this.#replicas;
  }

  #attempt(signal: AbortSignal | undefined, idempotent: boolean) {
    return { timeoutMs: operationMs, signal, idempotent, onMissing: () => this.#recreate() };
  }

  async #recreate(): Promise<void> {
    this.#topology.forget(this.#stream);
    await this.#ensure();
  }

  async #read(encoded: string, options: TableReadOptions): Promise<Current> {
    const replicated = (this.#replicas ?? 1) > 1;
    if (replicated && options.strong === true) return this.#readLeader(encoded, options.signal);
    const message = await this.#storage(() =>
      this.#js.directGet(this.#stream, this.#subject(encoded), this.#attempt(options.signal, true)),
    );
    const current = message === undefined ? nothing : decode(message);
    const own = this.#ownWrites.get(encoded);
    if (own !== undefined && current.revision < own) return this.#readLeader(encoded, options.signal);
    return current;
  }

  /** Fresh read through the stream's leader. */
  async #readLeader(encoded: string, signal?: AbortSignal): Promise<Current> {
    if ((this.#replicas ?? 1) === 1) {
      const message = await this.#storage(() =>
        this.#js.directGet(this.#stream, this.#subject(encoded), this.#attempt(signal, true)),
      );
      return message === undefined ? nothing : decode(message);
    }
    try {
      const request = { last_by_subj: this.#subject(encoded) };
      const reply = await this.#storage(() =>
        this.#js.api<{ message: StoredMessage }>(`STREAM.MSG.GET.${this.#stream}`, request, this.#attempt(signal, true)),
      );
      return decodeStored(reply.message);
    } catch (error) {
      if (error instanceof MeshError && isJsError(error.cause, JsCode.messageNotFound)) return nothing;
      throw error;
    }
  }

  /** One guarded or plain write; resolves with its revision. */
  async #write(write: TableWrite, signal: AbortSignal | undefined): Promise<number> {
    const encoded = encodeKey(write.key);
    if (write.expect === undefined) {
      const headers = writeHeaders(write, encoded, undefined, undefined);
      const ack = await this.#storage(() =>
        this.#js.publish(this.#subject(encoded), valueOf(write), headers, this.#attempt(signal, true)),
      );
      return this.#remember(encoded, ack.seq);
    }
    const op = randomUUID();
    let expected = write.expect === "absent" ? 0 : write.expect;
    for (let tries = 1; ; tries++) {
      const headers = writeHeaders(write, encoded, expected, op);
      try {
        const ack = await this.#js.publish(this.#subject(encoded), valueOf(write), headers, this.#attempt(signal, false));
        return this.#remember(encoded, ack.seq);
      } catch (error) {
        const settled = await this.#afterGuarded(error, write, encoded, expected, op, signal);
        if ("done" in settled) return this.#remember(encoded, settled.done);
        if (tries >= maxConflictTries) throw conflict(write.key, error);
        expected = settled.retryWith;
      }
    }
  }

  /** A guarded write failed: was it ours after all, is it worth another try, or a true conflict? */
  async #afterGuarded(
    error: unknown,
    write: TableWrite,
    encoded: string,
    expected: number,
    op: string,
    signal: AbortSignal | undefined,
  ): Promise<{ done: number } | { retryWith: number }> {
    const conflicted = isJsError(error, JsCode.wrongLastSequence, JsCode.wrongLastSequenceInFlight);
    if (!conflicted && !isMeshError(error, "timeout", "interrupted")) throw storageError(error);
    const current = await this.#readLeader(encoded, signal);
    if (current.op === op) return { done: current.revision };
    if (current.revision === expected) return { retryWith: expected };
    if (write.expect === "absent" && current.entry === undefined) return { retryWith: current.revision };
    throw conflict(write.key, error);
  }

  async #writeBatch(writes: readonly TableWrite[], signal: AbortSignal | undefined): Promise<void> {
    const encoded = writes.map((write) => encodeKey(write.key));
    if (new Set(encoded).size !== encoded.length) throw new MeshError("storage", "a batch may write each key once only");
    const expected = writes.map((write) => (write.expect === "absent" ? 0 : write.expect));
    const batchId = randomUUID();
    for (let tries = 1; ; tries++) {
      try {
        const ack = await this.#commit(writes, encoded, expected, `${batchId}-${tries}`, batchId, signal);
        const first = ack.seq - writes.length + 1;
        for (const [i, key] of encoded.entries()) this.#remember(key, first + i);
        return;
      } catch (error) {
        // The op id of the first message is known: an earlier try with an unknown outcome was committed.
        if (isJsError(error, JsCode.duplicateInBatch)) return;
        const retry = isMeshError(error, "timeout", "interrupted") || isJsError(error, JsCode.batchIncomplete);
        const conflicted = isJsError(error, JsCode.wrongLastSequence, JsCode.wrongLastSequenceInFlight);
        if (!retry && !conflicted) throw storageError(error);
        if (tries >= maxConflictTries) throw conflicted ? conflict(writes[0]!.key, error) : storageError(error);
        if (conflicted) await this.#recheck(writes, encoded, expected, signal);
        else await this.#js.connection.settings.clock.sleep(20 * tries, signal);
      }
    }
  }

  /** After a conflict: finds the failing write, or adjusts guards of "absent" keys to their tombstones. */
  async #recheck(
    writes: readonly TableWrite[],
    encoded: readonly string[],
    expected: (number | undefined)[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    for (const [i, write] of writes.entries()) {
      if (write.expect === undefined) continue;
      const current = await this.#readLeader(encoded[i]!, signal);
      if (write.expect === "absent" && current.entry === undefined) expected[i] = current.revision;
      else if (current.revision !== expected[i]) throw conflict(write.key, undefined, i);
    }
  }

  #commit(
    writes: readonly TableWrite[],
    encoded: readonly string[],
    expected: readonly (number | undefined)[],
    batchId: string,
    opId: string,
    signal: AbortSignal | undefined,
  ) {
    const last = writes.length - 1;
    const messages = writes.map((write, i) => {
      const headers = writeHeaders(write, encoded[i]!, expected[i], undefined) ?? natsHeaders([]);
      headers.set("Nats-Batch-Id", batchId);
      headers.set("Nats-Batch-Sequence", String(i + 1));
      if (i === 0) headers.set("Nats-Msg-Id", opId);
      if (i === last) headers.set("Nats-Batch-Commit", "1");
      return { subject: this.#subject(encoded[i]!), data: valueOf(write), headers };
    });
    for (const { subject, data, headers } of messages.slice(0, last)) this.#js.publishWithoutAck(subject, data, headers);
    const { subject, data, headers } = messages[last]!;
    return this.#js.publish(subject, data, headers, { ...this.#attempt(signal, false), timeoutMs: operationMs });
  }

  #remember(encoded: string, revision: number): number {
    if ((this.#replicas ?? 1) === 1) return revision;
    if (this.#ownWrites.size >= maxRemembered) this.#ownWrites.delete(this.#ownWrites.keys().next().value!);
    this.#ownWrites.delete(encoded);
    this.#ownWrites.set(encoded, revision);
    return revision;
  }

  async #storage<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw storageError(error);
    }
  }
}

const nothing: Current = Object.freeze({ entry: undefined, revision: 0, op: undefined });

function valueOf(write: TableWrite): Uint8Array {
  return write.kind === "put" ? write.value : empty;
}

/** Headers of one write; undefined when it needs none (the common, cheapest form). */
function writeHeaders(write: TableWrite, encoded: string, expected: number | undefined, op: string | undefined): MsgHdrs | undefined {
  const pairs: string[] = [];
  if (write.kind === "delete") pairs.push("KV-Operation", "DEL", "Nats-TTL", tombstoneTtl);
  else if (write.ttlSeconds !== undefined) pairs.push("Nats-TTL", `${write.ttlSeconds}s`);
  if (expected !== undefined) pairs.push("Nats-Expected-Last-Subject-Sequence", String(expected));
  if (op !== undefined) pairs.push("Weft-Op", op);
  if (isHashedKey(encoded)) pairs.push("Weft-Key", fullKey(write.key));
  return pairs.length === 0 ? undefined : natsHeaders(pairs);
}

function decode(message: Msg): Current {
  const headers = message.headers;
  return current(
    Number(headers?.get("Nats-Sequence") ?? 0),
    message.data,
    (name) => headers?.get(name) ?? "",
    headers?.get("Nats-Time-Stamp") ?? "",
  );
}

type StoredMessage = { readonly seq: number; readonly data?: string; readonly hdrs?: string; readonly time: string };

/** Form of the leader's JSON answer: body and headers in base64. */
function decodeStored(message: StoredMessage): Current {
  const lines = Buffer.from(message.hdrs ?? "", "base64").toString("utf8").split("\r\n");
  const header = (name: string): string => {
    const line = lines.find((candidate) => candidate.startsWith(`${name}:`));
    return line === undefined ? "" : line.slice(name.length + 1).trim();
  };
  return current(message.seq, Buffer.from(message.data ?? "", "base64"), header, message.time);
}

function current(revision: number, value: Uint8Array, header: (name: string) => string, time: string): Current {
  const op = header("Weft-Op") || undefined;
  const removed = header("KV-Operation") !== "" || header("Nats-Marker-Reason") !== "";
  if (removed) return { entry: undefined, revision, op };
  const ttl = header("Nats-TTL");
  if (ttl === "" || ttl === "never") return { entry: { value, revision }, revision, op };
  const expiresAtMs = Date.parse(time) + Number.parseInt(ttl, 10) * 1000;
  return { entry: { value, revision, expiresAtMs }, revision, op };
}

function conflict(key: TableKey, cause?: unknown, index = 0): MeshError {
  return new MeshError("conflict", `another write came first on ${fullKey(key).slice(0, 200)}`, { cause, index });
}

function storageError(error: unknown): unknown {
  if (!(error instanceof JetStreamError)) return error;
  return new MeshError("storage", error.message, { cause: error });
}

async function inChunks<I, O>(items: readonly I[], size: number, run: (item: I) => Promise<O>): Promise<O[]> {
  const results: O[] = [];
  for (let i = 0; i < items.length; i += size) results.push(...(await Promise.all(items.slice(i, i + size).map(run))));
  return results;
}
