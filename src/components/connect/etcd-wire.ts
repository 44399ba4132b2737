/** The few messages of etcd's API that components need, as bytes. Names and numbers are etcd's. */
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/** A condition of a transaction: what must be equal. */
export type EtcdCompare = {
  readonly key: string;
  /** `version` 0 = the key is absent. */
  readonly target: "version" | "mod";
  readonly equals: string;
};

export type EtcdOperation =
  | {
      readonly kind: "range";
      readonly key: string;
      readonly serializable?: boolean;
      readonly keysOnly?: boolean;
    }
  | { readonly kind: "put"; readonly key: string; readonly value: Uint8Array; readonly lease: string }
  | { readonly kind: "delete"; readonly key: string };

export type EtcdRecord = { readonly value: Uint8Array; readonly modRevision: string };

/** `records`: answers of the ranges in their order, undefined for other operations and absent keys. */
export type EtcdTxnAnswer = {
  readonly succeeded: boolean;
  readonly records: readonly (EtcdRecord | undefined)[];
};

const compareTargets = { version: 0, mod: 2 } as const;
/** Field of the value to compare with, by target. */
const compareFields = { version: 4, mod: 6 } as const;
const operationFields = { range: 1, put: 2, delete: 3 } as const;
const rangeResponse = 1;

/** RangeRequest for one key. */
export function encodeRange(key: string, serializable: boolean, keysOnly = false): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.LengthDelimited).bytes(Buffer.from(key));
  if (serializable) writer.tag(7, WireType.Varint).bool(true);
  if (keysOnly) writer.tag(8, WireType.Varint).bool(true);
  return writer.finish();
}

/** RangeRequest for the names of keys, from one to before another. */
export function encodeKeyRange(from: string, to: string, limit: number): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.LengthDelimited).bytes(Buffer.from(from));
  writer.tag(2, WireType.LengthDelimited).bytes(Buffer.from(to));
  writer.tag(3, WireType.Varint).int64(limit);
  return writer.tag(8, WireType.Varint).bool(true).finish();
}

/** Names of the keys of a RangeResponse. */
export function decodeKeys(bytes: Uint8Array): string[] {
  const keys: string[] = [];
  eachField(bytes, (field, reader) => {
    if (field !== 2) return false;
    keys.push(decodeKey(reader.bytes()));
    return true;
  });
  return keys;
}

/** WatchRequest from a revision on (0 = from now), for one key, or from it to before another. */
export function encodeWatch(from: string, to: string | undefined, startRevision: bigint): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.LengthDelimited).fork();
  writer.tag(1, WireType.LengthDelimited).bytes(Buffer.from(from));
  if (to !== undefined) writer.tag(2, WireType.LengthDelimited).bytes(Buffer.from(to));
  if (startRevision > 0n) writer.tag(3, WireType.Varint).int64(startRevision);
  writer.tag(4, WireType.Varint).bool(true);
  return writer.join().finish();
}

export type EtcdEvent = { readonly deleted: boolean; readonly key: string; readonly record: EtcdRecord };

/** A WatchResponse. `revision` is that of the server. */
export type EtcdWatchAnswer = {
  revision: bigint;
  canceled: boolean;
  /** The revisions up to here are gone. */
  compacted: boolean;
  reason: string;
  readonly events: EtcdEvent[];
};

export function decodeWatch(bytes: Uint8Array): EtcdWatchAnswer {
  const answer: EtcdWatchAnswer = { revision: 0n, canceled: false, compacted: false, reason: "", events: [] };
  eachField(bytes, (field, reader) => {
    if (field === 1) answer.revision = decodeRevision(reader.bytes());
    else if (field === 4) answer.canceled = reader.bool();
    else if (field === 5) answer.compacted = BigInt(reader.int64()) > 0n;
    else if (field === 6) answer.reason = Buffer.from(reader.bytes()).toString();
    else if (field === 11) answer.events.push(decodeEvent(reader.bytes()));
    else return false;
    return true;
  });
  return answer;
}

function decodeRevision(bytes: Uint8Array): bigint {
  let revision = 0n;
  eachField(bytes, (field, reader) => {
    if (field !== 3) return false;
    revision = BigInt(reader.int64());
    return true;
  });
  return revision;
}

function decodeEvent(bytes: Uint8Array): EtcdEvent {
  let deleted = false;
  let key = "";
  let record: EtcdRecord = { value: new Uint8Array(0), modRevision: "0" };
  eachField(bytes, (field, reader) => {
    if (field === 1) deleted = reader.int32() === 1;
    else if (field === 2) {
      const pair = reader.bytes();
      record = decodeKeyValue(pair);
      key = decodeKey(pair);
    } else return false;
    return true;
  });
  return { deleted, key, record };
}

function decodeKey(pair: Uint8Array): string {
  let key = "";
  eachField(pair, (field, reader) => {
    if (field !== 1) return false;
    key = Buffer.from(reader.bytes()).toString();
    return true;
  });
  return key;
}

/** The record of a RangeResponse of one key. */
export function decodeRange(bytes: Uint8Array): EtcdRecord | undefined {
  let record: EtcdRecord | undefined;
  eachField(bytes, (field, reader) => {
    if (field !== 2) return false;
    record = decodeKeyValue(reader.bytes());
    return true;
  });
  return record;
}

function decodeKeyValue(bytes: Uint8Array): EtcdRecord {
  let value: Uint8Array = new Uint8Array(0);
  let modRevision = "0";
  eachField(bytes, (field, reader) => {
    if (field === 3) modRevision = String(reader.int64());
    else if (field === 5) value = reader.bytes();
    else return false;
    return true;
  });
  return { value, modRevision };
}

/** TxnRequest: `success` when all of `compare` hold, else `failure`. */
export function encodeTxn(
  compare: readonly EtcdCompare[],
  success: readonly EtcdOperation[],
  failure: readonly EtcdOperation[],
): Uint8Array {
  const writer = new BinaryWriter();
  for (const one of compare) writer.tag(1, WireType.LengthDelimited).bytes(encodeCompare(one));
  for (const one of success) writer.tag(2, WireType.LengthDelimited).bytes(encodeOperation(one));
  for (const one of failure) writer.tag(3, WireType.LengthDelimited).bytes(encodeOperation(one));
  return writer.finish();
}

function encodeCompare({ key, target, equals }: EtcdCompare): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(2, WireType.Varint).int32(compareTargets[target]);
  writer.tag(3, WireType.LengthDelimited).bytes(Buffer.from(key));
  writer.tag(compareFields[target], WireType.Varint).int64(equals);
  return writer.finish();
}

function encodeOperation(operation: EtcdOperation): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(operationFields[operation.kind], WireType.LengthDelimited).bytes(encodeInner(operation));
  return writer.finish();
}

function encodeInner(operation: EtcdOperation): Uint8Array {
  if (operation.kind === "range")
    return encodeRange(operation.key, operation.serializable === true, operation.keysOnly === true);
  const writer = new BinaryWriter();
  writer.tag(1, WireType.LengthDelimited).bytes(Buffer.from(operation.key));
  if (operation.kind === "put") {
    writer.tag(2, WireType.LengthDelimited).bytes(operation.value);
    if (operation.lease !== "0") writer.tag(3, WireType.Varint).int64(operation.lease);
  }
  return writer.finish();
}

/** A TxnResponse. */
export function decodeTxn(bytes: Uint8Array): EtcdTxnAnswer {
  let succeeded = false;
  const records: (EtcdRecord | undefined)[] = [];
  eachField(bytes, (field, reader) => {
    if (field === 2) succeeded = reader.bool();
    else if (field === 3) records.push(decodeOperationAnswer(reader.bytes()));
    else return false;
    return true;
  });
  return { succeeded, records };
}

function decodeOperationAnswer(bytes: Uint8Array): EtcdRecord | undefined {
  let record: EtcdRecord | undefined;
  eachField(bytes, (field, reader) => {
    if (field !== rangeResponse) return false;
    record = decodeRange(reader.bytes());
    return true;
  });
  return record;
}

/** LeaseGrantRequest; the server chooses the id. */
export function encodeLeaseGrant(ttlSeconds: number): Uint8Array {
  return new BinaryWriter().tag(1, WireType.Varint).int64(ttlSeconds).finish();
}

/** Id of a LeaseGrantResponse. */
export function decodeLeaseGrant(bytes: Uint8Array): string {
  let id = "0";
  eachField(bytes, (field, reader) => {
    if (field !== 2) return false;
    id = String(reader.int64());
    return true;
  });
  return id;
}

/** LeaseRevokeRequest. */
export function encodeLeaseRevoke(id: string): Uint8Array {
  return new BinaryWriter().tag(1, WireType.Varint).int64(id).finish();
}

/** Calls `take` for every field; false = not read, which skips it. */
export function eachField(bytes: Uint8Array, take: (field: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (!take(field, reader)) reader.skip(wireType);
  }
}
