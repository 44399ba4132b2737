/**
 * What sets one state store apart from another, in one table: the contract suite takes it as parameters, and
 * `npm run gen` writes docs/components/state-stores.md from it.
 */
import { randomUUID } from "node:crypto";

export type StateTraits = {
  /** Well-formed ETag that is not current for any key; undefined for a store without ETags. */
  readonly foreignEtag: string | undefined;
  /** Text that no ETag of the store can be, when the store tells such text apart. */
  readonly malformedEtag?: string;
  /** A delete with malformed text: as a save (default), or a mismatch. */
  readonly malformedDelete?: "invalid" | "mismatch";
  /** Shown in the table. */
  readonly etagForm: string;
  /** first-write without ETag on a key that exists: 409 (default), or an error without a status of its own. */
  readonly createConflict?: "mismatch" | "error";
  /** Such a write is refused only where an earlier one was first-write; from then on every write needs an ETag. */
  readonly createMark?: boolean;
  /** A delete with first-write and without ETag is done although the key exists. */
  readonly createOnlyDeletes?: boolean;
  /** A save with an ETag creates a key that is absent. */
  readonly etagCreates?: boolean;
  /** A delete with an ETag of an absent key succeeds. */
  readonly deletesAbsentWithEtag?: boolean;
  /** Reads do not tell when a record ends. */
  readonly hidesExpiry?: boolean;
  /** A save without time to live leaves the one that the record has. */
  readonly keepsTtl?: boolean;
  /** What a time to live of 0 and -1 means: no end (default), or an end at once. */
  readonly endsAtZero?: boolean;
  /** Longest stored key, characters. */
  readonly maxKeyChars?: number;
  /** Keys that hold what the server does not take are refused. */
  readonly refusesOddKeys?: boolean;
  /** Reading an absent key fails. */
  readonly absentFails?: boolean;
  /** What `{"b":"<é>","a":[1,2.5,null]}` of an HTTP save reads as; as it was written when not given. */
  readonly jsonReadsAs?: string;
  /** Times to live are ignored. */
  readonly noTtl?: boolean;
  /** `real` when not given. */
  readonly transactions?: "real" | "none" | "refused";
  readonly queries?: boolean;
  readonly lists?: boolean;
  readonly watches?: boolean;
  /** A watch tells of an expired record as of a deleted one. */
  readonly expiresAsDelete?: boolean;
  /** Against what the suite runs. */
  readonly testedWith: string;
};

const escaped = String.raw`{"a":[1,2.5,null],"b":"\u003cé\u003e"}`;
const unescaped = `{"a":[1,2.5,null],"b":"<é>"}`;

/** By component type and version. */
export const stateTraits = {
  "state.in-memory": {
    foreignEtag: randomUUID(),
    etagForm: "UUID",
    lists: true,
    watches: true,
    testedWith: "itself",
  },
  "state.nats": {
    foreignEtag: "987654321",
    malformedEtag: "not-a-number",
    etagForm: "revision",
    lists: true,
    watches: true,
    testedWith: "nats-server",
  },
  "state.sqlite": {
    foreignEtag: randomUUID(),
    etagForm: "UUID",
    createOnlyDeletes: true,
    lists: true,
    testedWith: "SQLite of Node",
  },
  "state.redis": {
    foreignEtag: "987654321",
    malformedEtag: "not-a-number",
    malformedDelete: "mismatch",
    etagForm: "version from 1",
    createConflict: "error",
    createMark: true,
    etagCreates: true,
    createOnlyDeletes: true,
    deletesAbsentWithEtag: true,
    hidesExpiry: true,
    keepsTtl: true,
    jsonReadsAs: unescaped,
    lists: true,
    testedWith: "redis-server 7",
  },
  "state.postgresql v1": {
    foreignEtag: "987654321",
    malformedEtag: "not-a-number",
    etagForm: "xmin",
    createConflict: "error",
    createOnlyDeletes: true,
    jsonReadsAs: `{"a": [1, 2.5, null], "b": "<é>"}`,
    queries: true,
    lists: true,
    testedWith: "PostgreSQL 15",
  },
  "state.postgresql v2": {
    foreignEtag: randomUUID(),
    etagForm: "UUID",
    createConflict: "error",
    createOnlyDeletes: true,
    lists: true,
    testedWith: "PostgreSQL 15",
  },
  "state.mysql": {
    foreignEtag: randomUUID(),
    etagForm: "UUID",
    createOnlyDeletes: true,
    maxKeyChars: 255,
    lists: true,
    testedWith: "MariaDB 10.11",
  },
  "state.jetstream": {
    foreignEtag: undefined,
    etagForm: "",
    absentFails: true,
    refusesOddKeys: true,
    maxKeyChars: 3_000,
    noTtl: true,
    transactions: "none",
    jsonReadsAs: unescaped,
    testedWith: "nats-server",
  },
  "state.mongodb": {
    foreignEtag: randomUUID(),
    etagForm: "UUID",
    etagCreates: true,
    createOnlyDeletes: true,
    endsAtZero: true,
    transactions: "refused",
    queries: true,
    lists: true,
    testedWith: "mongo-java-server, not MongoDB itself; it has no replica set, so transactions did not run",
  },
  "state.etcd v1": {
    foreignEtag: "987654321",
    malformedEtag: "not-a-number",
    etagForm: "revision",
    hidesExpiry: true,
    endsAtZero: true,
    lists: true,
    watches: true,
    expiresAsDelete: true,
    testedWith: "etcd 3.4",
  },
  "state.etcd v2": {
    foreignEtag: "987654321",
    malformedEtag: "not-a-number",
    etagForm: "revision",
    endsAtZero: true,
    jsonReadsAs: unescaped,
    lists: true,
    watches: true,
    expiresAsDelete: true,
    testedWith: "etcd 3.4",
  },
} as const satisfies Record<string, StateTraits>;

/** How all stores get `{"b":"<é>","a":[1,2.5,null]}` from an HTTP save. */
export const savedJson = escaped;
