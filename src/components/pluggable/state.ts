/** State that a plug-in stores. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type DeleteRequestSchema,
  StateOptions_StateConcurrency as Concurrency,
  StateOptions_StateConsistency as Consistency,
  QueriableStateStore,
  type QueryResponse,
  type QuerySchema,
  type SetRequestSchema,
  Sorting_Order,
  StateStore,
  TransactionalStateStore,
  TransactionalStoreMultiMaxSize,
} from "../../../proto/gen/dapr/proto/components/v1/state_pb.ts";
import type {
  StateDelete,
  StateReadOptions,
  StateRecord,
  StateSet,
  StateStore as Port,
  StateWrite,
  WrittenQueryAnswer,
  WrittenStateQuery,
} from "../../blocks/state/port.ts";
import { GrpcCode } from "../../api/errors.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import { eachAtMost } from "../../lib/each-at-most.ts";
import { goJson } from "../../lib/go-json.ts";
import { asError } from "../../lib/thrown.ts";
import type { OpenPlugin } from "./find.ts";
import { initTimeoutMs, type Plugin, within } from "./plugin.ts";
import { stateError } from "./state-error.ts";

const { method } = StateStore;

/** Reads of one call that run at once when the plug-in has none for many keys. */
const maxReads = 32;

export async function openStateStore({ plugin, services, context }: OpenPlugin): Promise<Port> {
  const metadata = { properties: context.properties };
  await plugin.initialise(
    async (signal) => void (await plugin.bare(method.init, { metadata }, signal)),
    context.signal,
  );
  const { features } = await plugin.call(method.features, {}, context.signal);
  const transactional = services.has("TransactionalStateStore") && features.includes("TRANSACTIONAL");
  const max = services.has("TransactionalStoreMultiMaxSize") ? await maxSizeOf(plugin) : -1;
  const many = new ManyAtOnce();
  return {
    capabilities: features,
    rules: { ignoresTtl: true, takesAnyOption: "writes" },
    ...(transactional && max > 0 && { maxTransactionWrites: max }),
    get: (key, options) => read(plugin, key, options),
    getMany: (keys, options) => readMany(plugin, many, keys, options),
    set: async (write, signal) => {
      await told(() => plugin.call(method.set, setRequest(write), signal));
    },
    setMany: (writes, signal) =>
      many.write("set", () => plugin.call(method.bulkSet, { items: writes.map(setRequest) }, signal)),
    delete: async (write, signal) => {
      await told(() => plugin.call(method.delete, deleteRequest(write), signal));
    },
    deleteMany: (writes, signal) =>
      many.write("delete", () =>
        plugin.call(method.bulkDelete, { items: writes.map(deleteRequest) }, signal),
      ),
    ...(transactional && {
      async transact(writes, asked, signal) {
        const { transact } = TransactionalStateStore.method;
        const request = () => ({ operations: writes.map(operationOf), metadata: asked });
        await told(async () => plugin.call(transact, request(), signal));
      },
    }),
    async queryAsWritten(query, asked, signal) {
      if (!services.has("QueriableStateStore"))
        throw new Error("the plug-in has no service QueriableStateStore");
      const request = { query: queryRequest(query), metadata: asked };
      return answerOf(await told(() => plugin.call(QueriableStateStore.method.query, request, signal)));
    },
    async close() {
      plugin.close();
    },
  };
}

/** Calls for many keys, which old plug-ins do not have: one that turns out to be missing is not tried again. */
class ManyAtOnce {
  readonly #missing = new Set<"get" | "set" | "delete">();

  /** Undefined when the plug-in has no such call. */
  async try<T>(kind: "get" | "set" | "delete", call: () => Promise<T>): Promise<T | undefined> {
    if (this.#missing.has(kind)) return undefined;
    try {
      return await told(call);
    } catch (error) {
      if (!(error instanceof GrpcStatusError) || error.code !== GrpcCode.Unimplemented) throw error;
      this.#missing.add(kind);
      return undefined;
    }
  }

  async write(kind: "set" | "delete", call: () => Promise<object>): Promise<boolean> {
    return (await this.try(kind, call)) !== undefined;
  }
}

/** -1: no limit of its own, or none that it tells. */
async function maxSizeOf(plugin: Plugin): Promise<number> {
  try {
    const { multiMaxSize } = TransactionalStoreMultiMaxSize.method;
    const late = "the plug-in did not tell the size of its transactions in time";
    const answer = await within(plugin.clock, initTimeoutMs, late, (signal) =>
      plugin.call(multiMaxSize, {}, signal),
    );
    return Number(answer.maxSize);
  } catch {
    return -1;
  }
}

async function read(
  plugin: Plugin,
  key: string,
  { metadata, signal, consistency }: StateReadOptions,
): Promise<StateRecord | undefined> {
  const request = { key, metadata, consistency: consistencyOf(consistency) };
  return recordOf(await told(() => plugin.call(method.get, request, signal)));
}

async function readMany(
  plugin: Plugin,
  many: ManyAtOnce,
  keys: readonly string[],
  options: StateReadOptions,
): Promise<(StateRecord | undefined | Error)[]> {
  const { metadata, signal, parallelism = 0 } = options;
  const consistency = consistencyOf(options.consistency);
  const request = {
    items: keys.map((key) => ({ key, metadata, consistency })),
    options: { parallelism: BigInt(parallelism) },
  };
  const answer = await many.try("get", () => plugin.call(method.bulkGet, request, signal));
  if (answer === undefined) return readSingly(plugin, keys, options);
  const byKey = new Map(answer.items.map((item) => [item.key, item]));
  return keys.map((key) => {
    const item = byKey.get(key);
    if (item === undefined) return undefined;
    return item.error === "" ? recordOf(item) : new Error(item.error);
  });
}

async function readSingly(
  plugin: Plugin,
  keys: readonly string[],
  options: StateReadOptions,
): Promise<(StateRecord | undefined | Error)[]> {
  const { parallelism = 0 } = options;
  const limit = parallelism > 0 ? Math.min(parallelism, maxReads) : maxReads;
  const found = new Array<StateRecord | undefined | Error>(keys.length);
  await eachAtMost(keys, limit, async (key, index) => {
    found[index] = await read(plugin, key, options).catch(asError);
  });
  return found;
}

/** Neither data nor ETag: there is no such record. */
function recordOf(answer: {
  readonly data: Uint8Array;
  readonly etag?: { readonly value: string } | undefined;
  readonly metadata: Readonly<Record<string, string>>;
}): StateRecord | undefined {
  const { data, etag, metadata } = answer;
  if (data.length === 0 && etag === undefined) return undefined;
  const rest = Object.keys(metadata).length === 0 ? {} : { metadata };
  return { value: data, etag: etag?.value ?? "", ...rest };
}

/** The filter goes operator by operator, each operand as JSON. */
function queryRequest(query: WrittenStateQuery): MessageInitShape<typeof QuerySchema> {
  const filter = Object.entries(query.filter).map(([operator, operand]) => [
    operator,
    { value: Buffer.from(goJson(operand)) },
  ]);
  return {
    filter: Object.fromEntries(filter) as Record<string, { value: Buffer }>,
    sort: query.sort.map(({ key, descending }) => ({
      key,
      order: descending ? Sorting_Order.DESC : Sorting_Order.ASC,
    })),
    pagination: { limit: BigInt(query.limit), token: query.token },
  };
}

function answerOf({ items, token, metadata }: QueryResponse): WrittenQueryAnswer {
  const rows = items.map(({ key, data, etag, error }) => ({
    key,
    value: data,
    etag: etag?.value ?? "",
    error,
  }));
  return { rows, token, metadata };
}

/** The call with its failure in the words of the port. */
async function told<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw stateError(error);
  }
}

function operationOf(write: StateWrite) {
  return write.kind === "set"
    ? { request: { case: "set" as const, value: setRequest(write) } }
    : { request: { case: "delete" as const, value: deleteRequest(write) } };
}

function setRequest(write: StateSet): MessageInitShape<typeof SetRequestSchema> {
  if (write.json && isNull(write.value)) {
    throw new Error("an attempt to set a nil value was received, try to use Delete instead");
  }
  const { value, asked } = write;
  return { value, contentType: asked?.contentType ?? "", ...deleteRequest(write) };
}

function deleteRequest({ key, metadata, etag, asked }: StateSet | StateDelete) {
  return {
    key,
    metadata,
    options: {
      concurrency: concurrencyOf(asked?.concurrency),
      consistency: consistencyOf(asked?.consistency),
    },
    ...(etag !== undefined && { etag: { value: etag } }),
  } satisfies MessageInitShape<typeof DeleteRequestSchema>;
}

function isNull(json: Uint8Array): boolean {
  return json.length === 4 && Buffer.from(json).toString("latin1") === "null";
}

function concurrencyOf(asked: string | undefined): Concurrency {
  if (asked === "first-write") return Concurrency.CONCURRENCY_FIRST_WRITE;
  return asked === "last-write" ? Concurrency.CONCURRENCY_LAST_WRITE : Concurrency.CONCURRENCY_UNSPECIFIED;
}

function consistencyOf(asked: string | undefined): Consistency {
  if (asked === "strong") return Consistency.CONSISTENCY_STRONG;
  return asked === "eventual" ? Consistency.CONSISTENCY_EVENTUAL : Consistency.CONSISTENCY_UNSPECIFIED;
}
