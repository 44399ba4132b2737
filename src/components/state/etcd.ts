/**
 * State in etcd under keys of Dapr's component. Version v1 keeps plain values, v2 keeps value, time of the write and
 * time to live in one message. The ETag is the revision of the last change.
 */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { Clock } from "../../../mesh/index.ts";
import {
  EtagMismatch,
  type StateChange,
  type StateDelete,
  type StateKeyPage,
  type StateReadOptions,
  type StateRecord,
  type StateSet,
  type StateStore,
  type StateTarget,
  type StateWrite,
} from "../../blocks/state/port.ts";
import { withoutMarkupEscapes } from "../../lib/go-json.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { type Etcd, openEtcd } from "../connect/etcd.ts";
import {
  type EtcdCompare,
  type EtcdOperation,
  type EtcdRecord,
  decodeKeys,
  decodeLeaseGrant,
  decodeRange,
  decodeTxn,
  eachField,
  encodeKeyRange,
  encodeLeaseGrant,
  encodeLeaseRevoke,
  encodeRange,
  encodeTxn,
} from "../connect/etcd-wire.ts";
import { revisionOf, watchEtcd } from "./etcd/changes.ts";
import { changedMeanwhile, existsAlready, noNumber } from "./sql/mismatch.ts";
import { oncePerKey } from "./sql/once-per-key.ts";
import { type ListOptions, keyRange, pageOf } from "./sql/page-of.ts";
import { checkedTtl } from "./sql/ttl.ts";

export const type = "state.etcd";
export const versions = ["v1", "v2"];
export const capabilities = ["ETAG", "TRANSACTIONAL", "TTL", "KEYS_LIKE"];

export const metadataSchema = {
  endpoints: { kind: "string", description: "host:port of the members, by comma.", required: true },
  keyPrefixPath: { kind: "string", description: "Text before every key, followed by a slash.", default: "" },
  tlsEnable: { kind: "boolean", description: "Connect by TLS.", default: "false" },
  ca: { kind: "string", description: "Certificates to trust, PEM." },
  cert: { kind: "string", description: "Client certificate, PEM.", secret: true },
  key: { kind: "string", description: "Its private key, PEM.", secret: true },
  maxTxnOps: {
    kind: "integer",
    description: "Operations of one transaction, as the servers allow.",
    default: "128",
    min: 1,
  },
} as const satisfies MetadataSchema;

const timeoutMs = 10_000;
const noLease = "0";

/** Does not contact the servers. Throws when no endpoint is given or certificates are incomplete. */
export function open(context: ComponentContext<typeof metadataSchema>): Promise<StateStore> {
  const { metadata, clock, log, version } = context;
  const { ca, cert, key } = metadata;
  const endpoints = metadata.endpoints.split(",").map((part) => part.trim());
  if ((cert === undefined) !== (key === undefined))
    throw new Error('metadata fields "cert" and "key" belong together; give both or none');
  const given = Object.fromEntries(
    Object.entries({ ca, cert, key }).filter(([, text]) => text !== undefined),
  );
  const etcd = openEtcd({
    endpoints: endpoints.filter((endpoint) => endpoint !== ""),
    tls: metadata.tlsEnable ? given : undefined,
    timeoutMs,
    clock,
    log,
  });
  return Promise.resolve(
    new EtcdStore(
      etcd,
      version === "v2" ? v2(clock) : v1,
      `${metadata.keyPrefixPath}/`,
      metadata.maxTxnOps,
      clock,
    ),
  );
}

/** How a version keeps a record. */
type Form = {
  encode(write: StateSet, ttlSeconds: number | undefined): Uint8Array;
  decode(record: EtcdRecord): StateRecord;
};

const v1: Form = {
  encode: ({ value }) => value,
  decode: ({ value, modRevision }) => ({ value, etag: modRevision }),
};

function v2(clock: Clock): Form {
  return {
    encode(write, ttlSeconds = 0) {
      const { buffer, byteOffset, byteLength } = write.value;
      const bytes = Buffer.from(buffer, byteOffset, byteLength);
      const nowMs = clock.nowMs();
      const writer = new BinaryWriter();
      writer.tag(1, WireType.LengthDelimited).bytes(write.json ? withoutMarkupEscapes(bytes) : bytes);
      writer.tag(2, WireType.LengthDelimited).fork();
      writer.tag(1, WireType.Varint).int64(Math.floor(nowMs / 1000));
      if (nowMs % 1000 !== 0) writer.tag(2, WireType.Varint).int32(Math.trunc((nowMs % 1000) * 1e6));
      writer.join();
      writer.tag(3, WireType.LengthDelimited).fork();
      if (ttlSeconds !== 0) writer.tag(1, WireType.Varint).int64(ttlSeconds);
      return writer.join().finish();
    },
    decode: decodeV2,
  };
}

function decodeV2({ value: bytes, modRevision }: EtcdRecord): StateRecord {
  let value: Uint8Array = new Uint8Array(0);
  let writtenMs = 0;
  let ttlMs = 0;
  eachField(bytes, (field, reader) => {
    if (field === 1) value = reader.bytes();
    else if (field === 2) writtenMs = readTime(reader.bytes());
    else if (field === 3) ttlMs = readTime(reader.bytes());
    else return false;
    return true;
  });
  const record = { value, etag: modRevision };
  return ttlMs > 0 ? { ...record, expiresAtMs: writtenMs + ttlMs } : record;
}

/** Seconds and nanoseconds of a Timestamp or Duration, in ms. */
function readTime(bytes: Uint8Array): number {
  let ms = 0;
  eachField(bytes, (field, reader) => {
    if (field === 1) ms += Number(reader.int64()) * 1000;
    else if (field === 2) ms += Math.trunc(reader.int32() / 1e6);
    else return false;
    return true;
  });
  return ms;
}

class EtcdStore implements StateStore {
  readonly hidesEmpty = true;
  readonly maxTransactionWrites: number;
  readonly #etcd: Etcd;
  readonly #form: Form;
  readonly #prefix: string;
  readonly #clock: Clock;

  constructor(etcd: Etcd, form: Form, prefix: string, maxTxnOps: number, clock: Clock) {
    this.#clock = clock;
    this.#etcd = etcd;
    this.#form = form;
    this.#prefix = prefix;
    this.maxTransactionWrites = maxTxnOps;
  }

  async get(key: string, { consistency, signal }: StateReadOptions): Promise<StateRecord | undefined> {
    const request = encodeRange(this.#prefix + key, consistency === "eventual");
    const record = decodeRange(await this.#etcd.call("KV/Range", "read", request, signal));
    return record === undefined ? undefined : this.#form.decode(record);
  }

  async getMany(
    keys: readonly string[],
    { consistency, signal }: StateReadOptions,
  ): Promise<(StateRecord | undefined)[]> {
    const found: (StateRecord | undefined)[] = [];
    for (let at = 0; at < keys.length; at += this.maxTransactionWrites) {
      const some = keys.slice(at, at + this.maxTransactionWrites);
      const ranges = some.map((key): EtcdOperation => {
        return { kind: "range", key: this.#prefix + key, serializable: consistency === "eventual" };
      });
      const answer = decodeTxn(await this.#etcd.call("KV/Txn", "read", encodeTxn([], ranges, []), signal));
      for (const record of answer.records)
        found.push(record === undefined ? undefined : this.#form.decode(record));
    }
    return found;
  }

  set(write: StateSet, signal: AbortSignal): Promise<void> {
    return this.#write([write], signal);
  }

  delete(write: StateDelete, signal: AbortSignal): Promise<void> {
    return this.#write([write], signal);
  }

  async transact(
    writes: readonly StateWrite[],
    _metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#write(oncePerKey(writes), signal);
  }

  async list(prefix: string, { limit, after, signal }: ListOptions): Promise<StateKeyPage> {
    const range = keyRange(prefix, after);
    // The next key after a key is the key and a zero byte.
    const from = this.#prefix + (range.after === undefined ? range.from : `${range.after}\0`);
    const request = encodeKeyRange(from, this.#prefix + range.to, limit + 1);
    const keys = decodeKeys(await this.#etcd.call("KV/Range", "read", request, signal));
    return pageOf(
      keys.map((key) => key.slice(this.#prefix.length)),
      limit,
    );
  }

  watch(
    target: StateTarget,
    { after, signal }: { after: string | undefined; signal: AbortSignal },
  ): Promise<AsyncIterableIterator<StateChange>> {
    const keyOf = (key: string): string => key.slice(this.#prefix.length);
    const single = "key" in target;
    const from = this.#prefix + (single ? target.key : target.prefix);
    const range = { from, to: single ? undefined : this.#prefix + keyRange(target.prefix).to, keyOf };
    return watchEtcd(this.#etcd, range, revisionOf(after), this.#form.decode, this.#clock, signal);
  }

  awaySinceMs(): number | undefined {
    return this.#etcd.awaySinceMs();
  }

  async close(): Promise<void> {
    this.#etcd.close();
  }

  async #write(writes: readonly StateWrite[], signal: AbortSignal): Promise<void> {
    const guarded = writes.filter(({ etag, createOnly }) => etag !== undefined || createOnly);
    const compare = guarded.map((write) => this.#compare(write));
    const leases = new Map<number, string>();
    try {
      const operations: EtcdOperation[] = [];
      for (const write of writes) operations.push(await this.#operation(write, leases, signal));
      // Read when the check fails, to name the key that did.
      const looks = guarded.map((write): EtcdOperation => {
        return { kind: "range", key: this.#prefix + write.key, keysOnly: true };
      });
      const request = encodeTxn(compare, operations, looks);
      const answer = decodeTxn(await this.#etcd.call("KV/Txn", "write", request, signal));
      if (!answer.succeeded) throw refused(guarded, answer.records);
    } catch (error) {
      // Only after a refusal: a write whose answer was lost may stand.
      if (error instanceof EtagMismatch) for (const lease of leases.values()) void this.#revoke(lease);
      throw error;
    }
  }

  #compare({ key, etag, createOnly }: StateWrite): EtcdCompare {
    if (createOnly || etag === undefined) return { key: this.#prefix + key, target: "version", equals: "0" };
    if (!/^[+-]?\d{1,19}$/.test(etag) || BigInt(etag) >= 2n ** 63n) throw noNumber(key, etag);
    // An absent key has revision 0, which is no ETag.
    if (BigInt(etag) <= 0n) throw changedMeanwhile(key);
    return { key: this.#prefix + key, target: "mod", equals: String(BigInt(etag)) };
  }

  async #operation(
    write: StateWrite,
    leases: Map<number, string>,
    signal: AbortSignal,
  ): Promise<EtcdOperation> {
    const key = this.#prefix + write.key;
    if (write.kind === "delete") return { kind: "delete", key };
    const ttlSeconds = checkedTtl(write);
    let lease = noLease;
    if (ttlSeconds !== undefined) {
      lease = leases.get(ttlSeconds) ?? (await this.#grant(ttlSeconds, signal));
      leases.set(ttlSeconds, lease);
    }
    return { kind: "put", key, value: this.#form.encode(write, ttlSeconds), lease };
  }

  async #grant(ttlSeconds: number, signal: AbortSignal): Promise<string> {
    return decodeLeaseGrant(
      await this.#etcd.call("Lease/LeaseGrant", "write", encodeLeaseGrant(ttlSeconds), signal),
    );
  }

  async #revoke(lease: string): Promise<void> {
    const signal = new AbortController().signal;
    await this.#etcd.call("Lease/LeaseRevoke", "write", encodeLeaseRevoke(lease), signal).catch(() => {
      // It ends by itself.
    });
  }
}

/** The error for the first of `guarded` whose check does not hold for what was found. */
function refused(guarded: readonly StateWrite[], found: readonly (EtcdRecord | undefined)[]): Error {
  const index = guarded.findIndex(({ etag, createOnly }, at) =>
    createOnly ? found[at] !== undefined : found[at]?.modRevision !== String(BigInt(etag!)),
  );
  const { key, createOnly } = guarded[Math.max(0, index)]!;
  return createOnly ? existsAlready(key) : changedMeanwhile(key);
}
