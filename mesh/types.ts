/**
 * The mesh as its users see it: one object per sidecar, made by `joinMesh` (mesh.ts).
 * Implementations stand in the file named beside each part.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import type { Clock } from "./clock.ts";
import type { MeshError } from "./errors.ts";

/** Who this participant is. `instance` is unique per process start. */
export type MeshIdentity = {
  readonly root: string;
  readonly namespace: string;
  readonly app: string;
  readonly instance: string;
};

/** One line of diagnostics. Called often only at `debug`. Must not throw. */
export type MeshLog = (level: "debug" | "info" | "warn" | "error", text: string) => void;

/**
 * A body in pieces, for one reader. Reading it is what lets more of it come, so a slow reader slows its writer. An
 * error while reading means that the body is incomplete.
 */
export type BodyStream = AsyncIterable<Uint8Array> & {
  /** Bytes in all, when known beforehand. */
  readonly length: number | undefined;
  /** Flat pairs that came behind the body; complete once it has been read to its end. */
  readonly trailers: readonly string[];
  /** Ends the source of the body; a reader that waits gets the reason. Does nothing after the end. */
  cancel(reason: Error): void;
  /** Calls back once when the source is done: all has come, or the body failed or was cancelled. */
  onEnd(listener: () => void): void;
  /** What is there without waiting, if it is at most so many bytes; else empty. */
  takeReady(maxBytes: number): Uint8Array;
  /** Undoes what was taken, before anything else is read. */
  putBack(bytes: Uint8Array): void;
};

/** A call to an app. `headers` is a flat list: name, value, name, value. */
export type MeshRequest = {
  readonly verb: string;
  /** Path without leading slash rules applied: exactly what the app shall see after its base, percent-encoded. */
  readonly path: string;
  /** Raw query without `?`; empty when there is none. */
  readonly query: string;
  readonly headers: readonly string[];
  /** Whole, or in pieces when it is large or still being written. The mesh reads it or cancels it. */
  readonly body: Uint8Array | BodyStream;
};

/** gRPC outcome of a call that a gRPC app answered. `details` is the binary google.rpc.Status, when there was one. */
export type GrpcOutcome = {
  readonly code: number;
  readonly message: string;
  readonly details?: Uint8Array;
  /** Trailers, flat pairs. */
  readonly trailers?: readonly string[];
  readonly contentType?: string;
};

export type MeshResponse = {
  /** HTTP status; 200 for a gRPC app that answered OK, else the mapped status. */
  readonly status: number;
  readonly headers: readonly string[];
  /** A stream must be read to its end or cancelled. */
  readonly body: Uint8Array | BodyStream;
  /** Present when the app speaks gRPC. */
  readonly grpc?: GrpcOutcome;
};

export type CallOptions = {
  readonly app: string;
  readonly namespace: string;
  /**
   * Longest time until the answer, or its head when the body follows in pieces, ms. 0 = no limit; a peer that stops
   * showing progress still ends the call, and an app that is a plain NATS program, which has no way to show any, gets
   * 60 s.
   */
  readonly timeoutMs: number;
  /** Ends the call, also while the body of its answer is being read. */
  readonly signal?: AbortSignal;
  /** The plain form is not tried: the call means nothing to a program that is no sidecar, or its body never ends. */
  readonly sidecarsOnly?: boolean;
  /** Called when an instance has a request whose body is a stream; its answer may be long in coming. Must not throw. */
  readonly onAccepted?: () => void;
};

/** The caller as the NATS subject names it. */
export type Caller = { readonly namespace: string; readonly app: string };

/**
 * Answers one call. May take any time; must watch `signal` (caller gave up or is gone, or this mesh closes), which also
 * counts while streams of the call are open. A throw is answered as a `peer` error, a MeshError with its own code.
 */
export type ServeHandler = (
  request: MeshRequest,
  caller: Caller,
  signal: AbortSignal,
) => Promise<MeshResponse>;

export type Served = {
  /** Stops intake, waits for calls in flight up to `graceMs`, then aborts the rest. Resolves when all are answered. */
  drain(graceMs: number): Promise<void>;
};

/** A stored value. `revision` grows with every write of the bucket and is never reused. */
export type TableEntry = {
  readonly value: Uint8Array;
  readonly revision: number;
  /** Unix ms at which the entry expires, when it has a time to live. */
  readonly expiresAtMs?: number;
  /** The value lies in parts; `LargeTable` reads them. Header `Weft-Parts`. */
  readonly parts?: string;
};

/** A key is a list of parts, most significant first; each part may be any string (see subjects.ts). */
export type TableKey = readonly string[];

/** Guard of a write: the revision that must be current, or "absent". Without it the last write wins. */
export type Expect = number | "absent";

export type TableWrite =
  | {
      readonly kind: "put";
      readonly key: TableKey;
      readonly value: Uint8Array;
      readonly expect?: Expect;
      readonly ttlSeconds?: number;
      /** As in TableEntry. */
      readonly parts?: string;
    }
  | { readonly kind: "delete"; readonly key: TableKey; readonly expect?: Expect };

/** A place in the changes of a table: all before it are known. `timeMs`: Unix time at which that was so. */
export type TableCursor = { readonly revision: number; readonly timeMs: number };

/** What a watch tells; `cursor` is the place behind it. */
export type TableChange =
  | {
      readonly kind: "put";
      readonly key: TableKey;
      readonly entry: TableEntry;
      readonly cursor: TableCursor;
      /** The value could not be read. */
      readonly error?: MeshError;
    }
  /** `expire`: the time to live ended. */
  | { readonly kind: "delete" | "expire"; readonly key: TableKey; readonly cursor: TableCursor }
  /**
   * `ready`: comes first; whatever is written from then on is told. `reset`: instead of it, or later, when changes
   * before it may be missing. `idle`: nothing has changed for some seconds.
   */
  | { readonly kind: "ready" | "reset" | "idle"; readonly cursor: TableCursor };

/** One page of a listing. `next` asks for the rest; absent when there is none. */
export type TablePage = { readonly keys: readonly TableKey[]; readonly next?: number };

export type TableReadOptions = {
  /** Ask the stream leader. Else a replica may answer, yet never older than this participant's own last write. */
  readonly strong?: boolean;
  readonly signal?: AbortSignal;
};

/**
 * A KV bucket (table.ts). Every method rejects with MeshError: conflict, storage, too-large, timeout, interrupted,
 * disconnected (after 10 s; all else within 20 s), cancelled, closed.
 */
export type Table = {
  readonly bucket: string;
  get(key: TableKey, options?: TableReadOptions): Promise<TableEntry | undefined>;
  /**
   * Same order as `keys`; one isolated snapshot when there are at most 1,000 keys with at most 32 MiB of values, and
   * the names of the keys fit in half a message.
   */
  getMany(keys: readonly TableKey[], options?: TableReadOptions): Promise<(TableEntry | undefined)[]>;
  /**
   * Returns the new revision. Durable in the stream when it resolves. `ttlSeconds` >= 1, rounded up. A guarded write is
   * applied at most once; `timeout` and `interrupted` then mean that somebody else wrote since, and it cannot be known
   * who came first. A write without a guard may be applied twice when NATS breaks off in the middle of it.
   */
  put(
    key: TableKey,
    value: Uint8Array,
    options?: { expect?: Expect; ttlSeconds?: number; signal?: AbortSignal },
  ): Promise<number>;
  /** Deleting an absent key is fine without `expect`. With a revision: conflict when it is not current. */
  delete(key: TableKey, options?: { expect?: Expect; signal?: AbortSignal }): Promise<void>;
  /** All or nothing, at most 1,000 writes, a key at most once. A conflict names the failing write by `index`. */
  batch(writes: readonly TableWrite[], options?: { signal?: AbortSignal }): Promise<void>;
  /** Keys below a prefix (whole parts), in no particular order, at most `limit`. */
  list(prefix: TableKey, limit: number): Promise<TableKey[]>;
  /**
   * The same page by page; `wants` chooses among the keys. A page may hold fewer than `limit` keys, even none, though
   * more follow. A key that is written while pages are read may come twice, and none is left out.
   */
  page(
    prefix: TableKey,
    options: { after?: number; limit: number; wants: (key: TableKey) => boolean; signal?: AbortSignal },
  ): Promise<TablePage>;
  /**
   * Changes of one key, or of the keys below a prefix, in the order of the table, until the signal ends it. Of changes
   * of one key that follow each other quickly, or while NATS is away, or while nobody reads, only the last may be told.
   * Goes on by itself when NATS was away. Resolves when the watch stands.
   */
  watch(
    target: { readonly key: TableKey } | { readonly prefix: TableKey },
    options: { after?: TableCursor | undefined; signal: AbortSignal },
  ): Promise<AsyncIterableIterator<TableChange>>;
};

/**
 * A table whose values may be larger than what NATS takes in one message. A large value is written guarded, and costs
 * some requests more; small ones are as in any table.
 */
export type LargeTable = Table & {
  /**
   * Removes parts that no value needs: of replaced, deleted and expired values, and of writers that died. One of
   * several participants does it, every ten minutes at most. Resolves with the number of values.
   */
  sweep(signal: AbortSignal): Promise<number>;
};

export type TableOptions = {
  /** Kind of data, e.g. "state"; becomes a part of the bucket's name. */
  readonly kind: string;
  /** Further name parts, e.g. [namespace, component]. */
  readonly name: readonly string[];
  readonly storage?: "file" | "memory";
  /** Watches see that a value expired: it leaves a mark for an hour. */
  readonly expiryMarks?: boolean;
};

/** One event as it stands in the stream. */
export type TopicMessage = {
  readonly topic: string;
  readonly data: Uint8Array;
  /** Header by exact name; undefined when absent. */
  header(name: string): string | undefined;
  /** All header names and values (values of a repeated name joined with ","). */
  headers(): readonly (readonly [string, string])[];
  readonly sequence: number;
  /** 1 for the first delivery. */
  readonly deliveries: number;
  readonly timestampMs: number;
};

/** With the oldest event kept, the next one, the last one; from a number in the stream, from a Unix time on. */
export type TopicStart = "all" | "new" | "last" | { readonly sequence: number } | { readonly timeMs: number };

export type TopicSubscribeOptions = {
  /** Topic; a trailing or inner "*" or ">" part is a NATS wildcard. */
  readonly topic: string;
  /** Consumer group: subscriptions with the same group and topic share the events. */
  readonly group: string;
  /** Where a group that is created now starts. */
  readonly deliver: TopicStart;
  /**
   * Every participant gets each event. Its place is kept for some minutes while it is away; a `deliver` that is no word
   * counts for each subscription anew. Not for ordered groups.
   */
  readonly broadcast?: boolean;
  /**
   * Events with one key come one after the other, in the order of the stream, across all members of the group; those of
   * different keys, and those without, side by side.
   */
  readonly ordered?: boolean;
  /**
   * `join`: by the consumer that the topics of the group share, where that can be. `keep`: only when it has the topic
   * already. Absent: a consumer of its own. Not for broadcasts and ordered groups, and with words for `deliver` only.
   */
  readonly shared?: "join" | "keep";
  readonly ackWaitMs: number;
  /** Handlers running at once in this participant. */
  readonly concurrency: number;
  /** Waits before redelivery, by number of failures; the last one repeats. */
  readonly backoffMs: readonly number[];
  /** Deliveries before the event is given up (logged). -1 = no limit. */
  readonly maxDeliver: number;
};

/** Resolve = acknowledge; throw = redeliver after the backoff. The ack deadline is extended while it runs. */
export type TopicHandler = (message: TopicMessage, signal: AbortSignal) => Promise<void>;

export type TopicSubscription = {
  /** Stops intake and waits for running handlers up to `graceMs`. The group keeps its place in the stream. */
  stop(graceMs: number): Promise<void>;
};

export type TopicStreamOptions = {
  /** Name parts of the stream, e.g. [namespace, component]. */
  readonly name: readonly string[];
  /** Oldest event kept, ms. 0 = no limit. */
  readonly maxAgeMs: number;
  /** Bytes kept before the oldest go. -1 = no limit. */
  readonly maxBytes: number;
  /** Into how many parts events with a key are divided, when the stream is created; 16. */
  readonly partitions?: number;
  /** For how long ids of publishes are remembered, when the stream is created, ms; 120,000. */
  readonly duplicateWindowMs?: number;
  /** Of shared consumers, for tests. */
  readonly sharedTimes?: Partial<SharedTimes>;
};

/** How members of a group look after its shared consumer, ms. */
export type SharedTimes = {
  /** Between two looks whether all topics are in its filters. */
  readonly lookMs: number;
  /** Between two questions who handles a topic, for how long answers are awaited, and when nobody wants it any more. */
  readonly askMs: number;
  readonly answerMs: number;
  readonly unwantedMs: number;
};

export type TopicPublishOptions = {
  readonly id?: string | undefined;
  /** Events with the same key keep their order in ordered subscriptions. */
  readonly key?: string | undefined;
  /** Delivered then, by the clock of NATS. A waiting event of the same topic and `id` is replaced. */
  readonly schedule?: { readonly id: string; readonly atMs: number };
  /** The only group that gets it. */
  readonly onlyFor?: string | undefined;
  readonly headers?: readonly string[];
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
};

/** The stream behind the topics of one pub/sub component (topics.ts). Errors as in Table. */
export type TopicStream = {
  readonly stream: string;
  /**
   * Durable in the stream when it resolves. A repeated `id` within the stream's window is stored once. Retried until
   * `timeoutMs`; without an `id` only what was certainly not stored, else it rejects with `timeout` or `interrupted`.
   */
  publish(
    topic: string,
    data: Uint8Array,
    options: TopicPublishOptions,
  ): Promise<{ sequence: number; duplicate: boolean }>;
  /** What waits under this id is never delivered. Resolves also when nothing waits. */
  cancelScheduled(
    topic: string,
    id: string,
    options: Pick<TopicPublishOptions, "timeoutMs" | "signal">,
  ): Promise<void>;
  /** Creates the durable group when it is not there, before it resolves. */
  subscribe(options: TopicSubscribeOptions, handler: TopicHandler): Promise<TopicSubscription>;
};

/** An event as tools see it. Headers of NATS itself are left out. */
export type StoredEvent = {
  readonly topic: string;
  readonly sequence: number;
  /** RFC 3339: when it was stored. */
  readonly time: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly data: Uint8Array;
};

/** Where a consumer of a group stands. */
export type GroupPosition = {
  readonly consumer: string;
  /** As subscribed to; none for a consumer of another program that takes all. */
  readonly topics: readonly string[];
  /** All up to this one are done. */
  readonly doneSequence: number;
  /** Delivered and not acknowledged; not delivered yet. */
  readonly underWay: number;
  readonly waiting: number;
};

/** The stored events of one pub/sub component, for tools (topic-records.ts). Errors as in Table. */
export type TopicRecords = {
  readonly stream: string;
  /** Undefined when there is no such stream; it is not created. */
  state(): Promise<{ lastSequence: number } | undefined>;
  /** Events of a topic (wildcards as in subscriptions) behind a sequence, oldest first; none = there are no more. */
  read(topic: string, options: { after: number; limit: number }): Promise<StoredEvent[]>;
  /** False when it is not there (any more). */
  remove(sequence: number): Promise<boolean>;
  hasGroup(group: string, topic: string): Promise<boolean>;
  /** All consumers of the stream, sorted by name. */
  groups(): Promise<GroupPosition[]>;
  /**
   * Sets a group to another place, while its members go on; what they have in hand may come again. Resolves with the
   * sequence of the place, undefined when there is no such group. A topic that shares a consumer gets one of its own.
   */
  moveGroup(group: string, topic: string, to: TopicStart): Promise<number | undefined>;
};

/** A live sidecar as its presence entry shows it. */
/** Why an instance takes no calls for now: its app has not come up yet, or fails its health checks. */
export type Unready = {
  readonly state: "starting" | "ill";
  /** Where the app is expected, for messages: `http://127.0.0.1:3000`. */
  readonly at: string;
};

export type PresenceEntry = {
  readonly namespace: string;
  readonly app: string;
  readonly instance: string;
  readonly host: string;
  readonly pid: number;
  readonly startedAtMs: number;
  readonly version: string;
  /** Absent while it takes calls. */
  readonly unready?: Unready;
};

export type MeshStatus = {
  readonly connected: boolean;
  /** When `connected` became so, Unix ms. */
  readonly sinceMs: number;
  /** Server and way in words, for logs and `weft status`. */
  readonly server: string;
  readonly way: string;
};

export type Mesh = {
  readonly identity: MeshIdentity;
  readonly clock: Clock;
  /** Largest payload the connected server takes, bytes. */
  maxPayloadBytes(): number;
  status(): MeshStatus;
  /** Called at every change of `status().connected`. Returns the way to stop it. */
  onStatus(listener: (status: MeshStatus) => void): () => void;
  /** Resolves once connected. */
  ready(signal?: AbortSignal): Promise<void>;
  /** The NATS client itself once it is connected, for subjects that are none of the mesh's. Never close it. */
  client(signal?: AbortSignal): Promise<NatsConnection>;
  call(request: MeshRequest, options: CallOptions): Promise<MeshResponse>;
  /** Joins the app's queue group; again after `drain` was called on the one before. */
  serve(handler: ServeHandler): Promise<Served>;
  /** Announces this instance until close; renewed by itself. Called again when `unready` has changed. */
  announce(unready?: Unready): Promise<void>;
  /** Live instances, all or of one app. */
  presence(filter?: { namespace: string; app: string }): Promise<PresenceEntry[]>;
  table(options: TableOptions): Promise<Table>;
  /** The parts lie in the bucket of the kind `<kind>-parts`. A value above `maxValueBytes` is `too-large`. */
  largeTable(options: TableOptions & { readonly maxValueBytes: number }): LargeTable;
  topics(options: TopicStreamOptions): Promise<TopicStream>;
  /** `name` as in TopicStreamOptions. */
  topicRecords(name: readonly string[]): TopicRecords;
  /** Withdraws presence and closes. Drain served calls and subscriptions first. */
  close(): Promise<void>;
};
