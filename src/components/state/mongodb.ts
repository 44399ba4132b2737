/**
 * State in MongoDB, a document per key as Dapr's component writes it, so data can change hands in both directions.
 * Values saved over HTTP are native documents, so they can be queried. Tested against a Java server of MongoDB's
 * protocol, not against MongoDB itself; transactions need a replica set and have not run.
 */
import { randomUUID } from "node:crypto";
import { isUtf8 } from "node:buffer";
import type * as mongodb from "mongodb";
import type { Collection, Document, Filter, MongoClient, MongoClientOptions } from "mongodb";
import type { Clock } from "../../../mesh/index.ts";
import type {
  StateDelete,
  StateFilter,
  StateKeyPage,
  StateQuery,
  StateQueryRow,
  StateReadOptions,
  StateRecord,
  StateSet,
  StateStore,
  StateWrite,
} from "../../blocks/state/port.ts";
import { goJson } from "../../lib/go-json.ts";
import type { ComponentContext, MetadataSchema, MetadataValues } from "../component.ts";
import { withDeadline } from "../connect/deadline.ts";
import { createReach, type Reach } from "../connect/reach.ts";
import { changedMeanwhile, existsAlready } from "./sql/mismatch.ts";
import { oncePerKey } from "./sql/once-per-key.ts";
import { type ListOptions, keyRange, pageOf } from "./sql/page-of.ts";
import { checkedTtl, ttlErrorPrefix } from "./sql/ttl.ts";

export const type = "state.mongodb";
export const versions = ["v1"];
export const capabilities = ["ETAG", "TRANSACTIONAL", "QUERY_API", "TTL", "KEYS_LIKE"];

export const metadataSchema = {
  connectionString: {
    kind: "string",
    description: "mongodb:// URI; instead of host or server.",
    secret: true,
  },
  host: { kind: "string", description: "host:port, several by comma." },
  server: { kind: "string", description: "Name of an SRV record; instead of host." },
  username: { kind: "string", description: "User.", secret: true },
  password: { kind: "string", description: "Password.", secret: true },
  params: { kind: "string", description: "Options of the URI, beginning with `?`." },
  databaseName: { kind: "string", description: "Database.", default: "daprStore" },
  collectionName: { kind: "string", description: "Collection.", default: "daprCollection" },
  writeConcern: { kind: "string", description: "A number or `majority`." },
  readConcern: {
    kind: "string",
    description: "Read concern.",
    oneOf: ["local", "available", "majority", "linearizable", "snapshot"],
  },
  operationTimeout: { kind: "duration", description: "Longest time of one operation.", default: "5s" },
} as const satisfies MetadataSchema;

type StoredDocument = {
  _id: string;
  value?: unknown;
  _etag?: string;
  _ttl?: Date | null;
};
/** What is needed of the package at run time. */
type Library = Pick<typeof mongodb, "Binary" | "BSON" | "Double">;

const maxKeysAtOnce = 1_000;
/** Two writes that create the same key at once may both be told of a duplicate. */
const upsertAttempts = 5;
const duplicateKey = 11_000;

/** Connects and makes the index that ends records. Rejects when the server cannot be reached. */
export async function open(context: ComponentContext<typeof metadataSchema>): Promise<StateStore> {
  const { metadata, clock } = context;
  const uri = uriOf(metadata);
  const library = await import("mongodb");
  const client = new library.MongoClient(uri, optionsOf(metadata));
  try {
    await withDeadline(client.connect(), "mongodb", metadata.operationTimeout * 2, clock, context.signal);
    const collection = client.db(metadata.databaseName).collection<StoredDocument>(metadata.collectionName);
    await collection.createIndex({ _ttl: 1 }, { expireAfterSeconds: 0 });
    const hasTransactions = /[?&]replicaSet=/i.test(uri) || uri.startsWith("mongodb+srv:");
    const reach = createReach("mongodb", context);
    client.on("topologyDescriptionChanged", ({ newDescription }) =>
      newDescription.hasKnownServers ? reach.found() : reach.lost("no server of it answers"),
    );
    const { operationTimeout } = metadata;
    return new MongoStore(client, collection, new DocumentValues(library), clock, operationTimeout, {
      hasTransactions,
      reach,
    });
  } catch (error) {
    await client.close().catch(() => {});
    throw error;
  }
}

type Metadata = MetadataValues<typeof metadataSchema>;

function uriOf({ connectionString, host, server, username, password, params }: Metadata): string {
  if (connectionString !== undefined) return connectionString;
  if ((host === undefined) === (server === undefined))
    throw new Error('give exactly one of the metadata fields "host", "server" and "connectionString"');
  const login =
    username === undefined ? "" : `${encodeURIComponent(username)}:${encodeURIComponent(password ?? "")}@`;
  const start = server === undefined ? "mongodb" : "mongodb+srv";
  const options = params === undefined ? "" : params.startsWith("?") ? params : `?${params}`;
  return `${start}://${login}${server ?? host}/${options}`;
}

function optionsOf({ operationTimeout, writeConcern, readConcern }: Metadata): MongoClientOptions {
  const w = writeConcern !== undefined && /^\d+$/.test(writeConcern) ? Number(writeConcern) : writeConcern;
  return {
    serverSelectionTimeoutMS: operationTimeout,
    connectTimeoutMS: operationTimeout,
    socketTimeoutMS: operationTimeout * 2,
    waitQueueTimeoutMS: operationTimeout,
    maxPoolSize: 20,
    ...(w === undefined ? {} : { writeConcern: { w: w as number | "majority" } }),
    ...(readConcern === undefined
      ? {}
      : { readConcernLevel: readConcern as NonNullable<MongoClientOptions["readConcernLevel"]> }),
  };
}

/** Values as they lie in documents: bytes as text, JSON texts with their quotes, all other JSON natively. */
class DocumentValues {
  readonly #library: Library;

  constructor(library: Library) {
    this.#library = library;
  }

  encode({ value, json }: StateSet): unknown {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    // A document's text is UTF-8; what is not would come back damaged.
    if (!isUtf8(bytes)) return new this.#library.Binary(bytes);
    const text = bytes.toString();
    if (!json || text.startsWith('"')) return text;
    return this.#native(JSON.parse(text));
  }

  decode(value: unknown): Buffer {
    if (typeof value === "string") return Buffer.from(value);
    if (value instanceof this.#library.Binary) return Buffer.from(value.buffer);
    return Buffer.from(goJson(this.#plain(value)));
  }

  /** Numbers of JSON are doubles, also whole ones. */
  #native(value: unknown): unknown {
    if (typeof value === "number") return new this.#library.Double(value);
    if (Array.isArray(value)) return value.map((item) => this.#native(item));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, this.#native(item)]));
  }

  /** What other programs may have stored, as JSON. */
  #plain(value: unknown): unknown {
    if (value === undefined) return null;
    if (typeof value === "bigint") return Number(value);
    if (value instanceof Date) return value.toISOString();
    if (Array.isArray(value)) return value.map((item) => this.#plain(item));
    if (typeof value !== "object" || value === null) return value;
    if ("_bsontype" in value) return this.#library.BSON.EJSON.serialize(value);
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, this.#plain(item)]));
  }
}

class MongoStore implements StateStore {
  readonly rules = { ttlErrorPrefix, takesAnyOption: "writes" } as const;
  readonly #client: MongoClient;
  readonly #collection: Collection<StoredDocument>;
  readonly #values: DocumentValues;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #hasTransactions: boolean;
  readonly #reach: Reach;

  constructor(
    client: MongoClient,
    collection: Collection<StoredDocument>,
    values: DocumentValues,
    clock: Clock,
    timeoutMs: number,
    { hasTransactions, reach }: { hasTransactions: boolean; reach: Reach },
  ) {
    this.#client = client;
    this.#collection = collection;
    this.#values = values;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#hasTransactions = hasTransactions;
    this.#reach = reach;
  }

  async get(key: string, { signal }: StateReadOptions): Promise<StateRecord | undefined> {
    const found = await this.#bounded(this.#collection.findOne({ _id: key }), signal);
    return found === null ? undefined : this.#record(found);
  }

  async getMany(keys: readonly string[], { signal }: StateReadOptions): Promise<(StateRecord | undefined)[]> {
    const found = new Map<string, StateRecord | undefined>();
    for (let at = 0; at < keys.length; at += maxKeysAtOnce) {
      const some = this.#collection.find({ _id: { $in: keys.slice(at, at + maxKeysAtOnce) } }).toArray();
      for (const document of await this.#bounded(some, signal))
        found.set(document._id, this.#record(document));
    }
    return keys.map((key) => found.get(key));
  }

  set(write: StateSet, signal: AbortSignal): Promise<void> {
    return this.#bounded(this.#set(write, this.#values.encode(write)), signal);
  }

  delete(write: StateDelete, signal: AbortSignal): Promise<void> {
    return this.#bounded(this.#delete(write), signal);
  }

  async transact(
    writes: readonly StateWrite[],
    _metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    if (!this.#hasTransactions)
      throw new Error("transactions need a replica set: give replicaSet in the URI (metadata params)");
    const once = oncePerKey(writes).sort((a, b) => (a.key < b.key ? -1 : 1));
    const session = this.#client.startSession();
    const work = session.withTransaction(async () => {
      for (const write of once) {
        if (write.kind === "delete") await this.#delete(write, session);
        else await this.#set(write, this.#values.encode(parsedHere(write)), session);
      }
    });
    try {
      await this.#bounded(work, signal, 2);
    } finally {
      await session.endSession().catch(() => {});
    }
  }

  async query(
    { filter, sort, limit, offset }: StateQuery,
    _metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<StateQueryRow[]> {
    const alive = this.#alive();
    const conditions = filter === undefined ? [alive] : [alive, condition(filter)];
    const cursor = this.#collection
      .find({ $and: conditions } as Filter<StoredDocument>)

      .sort(sort.map(({ path, descending }): [string, 1 | -1] => [memberName(path), descending ? -1 : 1]))
      .skip(offset)
      .limit(limit);
    const found = await this.#bounded(cursor.toArray(), signal);
    return found.map(({ _id, value, _etag }) => {
      return { key: _id, value: this.#values.decode(value), etag: _etag ?? "" };
    });
  }

  async list(prefix: string, { limit, after, signal }: ListOptions): Promise<StateKeyPage> {
    const range = keyRange(prefix, after);
    const ids = {
      $gte: range.from,
      $lt: range.to,
      ...(range.after === undefined ? {} : { $gt: range.after }),
    };
    const filter = { _id: ids, ...this.#alive() } as Filter<StoredDocument>;
    const cursor = this.#collection.find(filter, { projection: { _id: 1 } }).sort({ _id: 1 });
    const found = await this.#bounded(cursor.limit(limit + 1).toArray(), signal);
    return pageOf(
      found.map(({ _id }) => _id),
      limit,
    );
  }

  awaySinceMs(): number | undefined {
    return this.#reach.awaySinceMs();
  }

  close(): Promise<void> {
    this.#reach.close();
    return this.#client.close();
  }

  #alive(): Document {
    return { $or: [{ _ttl: null }, { _ttl: { $gt: new Date(this.#clock.nowMs()) } }] };
  }

  #bounded<T>(work: Promise<T>, signal: AbortSignal, times = 1): Promise<T> {
    return withDeadline(work, "mongodb", this.#timeoutMs * times, this.#clock, signal);
  }

  #record({ value, _etag, _ttl }: StoredDocument): StateRecord | undefined {
    const expiresAtMs = _ttl?.getTime();
    // The server deletes about once a minute.
    if (expiresAtMs !== undefined && expiresAtMs <= this.#clock.nowMs()) return undefined;
    const record = { value: this.#values.decode(value), etag: _etag ?? "" };
    return expiresAtMs === undefined ? record : { ...record, expiresAtMs };
  }

  async #set(
    write: StateSet,
    value: unknown,
    session?: ReturnType<MongoClient["startSession"]>,
  ): Promise<void> {
    const { key, etag, createOnly } = write;
    const inSession = session === undefined ? {} : { session };
    const ttlSeconds = checkedTtl(write, ttlErrorPrefix);
    const nowMs = this.#clock.nowMs();
    const _ttl = ttlSeconds === undefined ? null : new Date(nowMs + ttlSeconds * 1000);
    if (createOnly) {
      const ended = { _id: key, _ttl: { $lte: new Date(nowMs) } } as Filter<StoredDocument>;
      await this.#collection.deleteOne(ended, inSession);
    }
    const change = { $set: { value, _etag: randomUUID(), _ttl } };
    const guarded = etag !== undefined || createOnly;
    // No document has a fresh ETag: such a write inserts, or finds the key taken.
    const filter = guarded ? { _id: key, _etag: etag ?? randomUUID() } : { _id: key };
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#collection.updateOne(filter, change, { upsert: true, ...inSession });
        return;
      } catch (error) {
        if ((error as { code?: unknown }).code !== duplicateKey) throw error;
        if (guarded) throw createOnly ? existsAlready(key) : changedMeanwhile(key);
        if (attempt === upsertAttempts) throw error;
      }
    }
  }

  async #delete(
    { key, etag }: StateDelete,
    session?: ReturnType<MongoClient["startSession"]>,
  ): Promise<void> {
    const filter = etag === undefined ? { _id: key } : { _id: key, _etag: etag };
    const { deletedCount } = await this.#collection.deleteOne(
      filter,
      session === undefined ? {} : { session },
    );
    if (etag !== undefined && deletedCount === 0) throw changedMeanwhile(key);
  }
}

function memberName(path: readonly string[]): string {
  return ["value", ...path].join(".");
}

/** Operands stand below an operator, so that an object among them is data. */
function condition(filter: StateFilter): Document {
  switch (filter.operator) {
    case "AND":
    case "OR":
      return { [filter.operator === "AND" ? "$and" : "$or"]: filter.filters.map(condition) };
    case "IN":
      return { [memberName(filter.path)]: { $in: filter.operands } };
    case "NEQ":
      return { [memberName(filter.path)]: { $ne: filter.operand } };
    default:
      return { [memberName(filter.path)]: { [`$${filter.operator.toLowerCase()}`]: filter.operand } };
  }
}

/** In a transaction, bytes that are said to be JSON are stored natively. */
function parsedHere(write: StateSet): StateSet {
  if (write.json || write.metadata["contentType"] !== "application/json") return write;
  const text = Buffer.from(write.value).toString();
  return { ...write, value: Buffer.from(goJson(JSON.parse(text))), json: true };
}
