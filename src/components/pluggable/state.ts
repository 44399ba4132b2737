/** State that a plug-in stores. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type DeleteRequestSchema,
  StateOptions_StateConcurrency as Concurrency,
  StateOptions_StateConsistency as Consistency,
  type SetRequestSchema,
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
} from "../../blocks/state/port.ts";
import type { OpenPlugin } from "./find.ts";
import { initTimeoutMs, type Plugin, within } from "./plugin.ts";
import { stateError } from "./state-error.ts";

const { method } = StateStore;

export async function openStateStore({ plugin, services, context }: OpenPlugin): Promise<Port> {
  const metadata = { properties: context.properties };
  await plugin.initialise(
    async (signal) => void (await plugin.bare(method.init, { metadata }, signal)),
    context.signal,
  );
  const { features } = await plugin.call(method.features, {}, context.signal);
  const transactional = services.has("TransactionalStateStore") && features.includes("TRANSACTIONAL");
  const max = services.has("TransactionalStoreMultiMaxSize") ? await maxSizeOf(plugin) : -1;
  return {
    capabilities: features,
    ...(transactional && max > 0 && { maxTransactionWrites: max }),
    get: (key, options) => read(plugin, key, options),
    getMany: (keys, options) => readMany(plugin, keys, options),
    set: (write, signal) => told(() => plugin.call(method.set, setRequest(write), signal)),
    delete: (write, signal) => told(() => plugin.call(method.delete, deleteRequest(write), signal)),
    ...(transactional && {
      transact: (writes, asked, signal) =>
        told(() => {
          const operations = writes.map(operationOf);
          return plugin.call(
            TransactionalStateStore.method.transact,
            { operations, metadata: asked },
            signal,
          );
        }),
    }),
    async close() {
      plugin.close();
    },
  };
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
  options: StateReadOptions,
): Promise<StateRecord | undefined> {
  const { metadata, signal } = options;
  const request = { key, metadata, consistency: consistencyOf(options.consistency) };
  try {
    return recordOf(await plugin.call(method.get, request, signal));
  } catch (error) {
    throw stateError(error);
  }
}

async function readMany(
  plugin: Plugin,
  keys: readonly string[],
  options: StateReadOptions,
): Promise<(StateRecord | undefined | Error)[]> {
  const { metadata, signal } = options;
  const consistency = consistencyOf(options.consistency);
  try {
    const request = { items: keys.map((key) => ({ key, metadata, consistency })) };
    const { items } = await plugin.call(method.bulkGet, request, signal);
    const byKey = new Map(items.map((item) => [item.key, item]));
    return keys.map((key) => {
      const item = byKey.get(key);
      if (item === undefined) return undefined;
      return item.error === "" ? recordOf(item) : new Error(item.error);
    });
  } catch (error) {
    throw stateError(error);
  }
}

/** Neither data nor ETag: there is no such record. */
function recordOf(answer: {
  readonly data: Uint8Array;
  readonly etag?: { readonly value: string } | undefined;
}): StateRecord | undefined {
  if (answer.data.length === 0 && answer.etag === undefined) return undefined;
  return { value: answer.data, etag: answer.etag?.value ?? "" };
}

async function told(call: () => Promise<unknown>): Promise<void> {
  try {
    await call();
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
  return { value: write.value, ...deleteRequest(write) };
}

function deleteRequest(write: StateSet | StateDelete) {
  return {
    key: write.key,
    metadata: write.metadata,
    options: {
      concurrency: write.createOnly
        ? Concurrency.CONCURRENCY_FIRST_WRITE
        : Concurrency.CONCURRENCY_UNSPECIFIED,
      consistency:
        write.strong === true ? Consistency.CONSISTENCY_STRONG : Consistency.CONSISTENCY_UNSPECIFIED,
    },
    ...(write.etag !== undefined && { etag: { value: write.etag } }),
  } satisfies MessageInitShape<typeof DeleteRequestSchema>;
}

function isNull(json: Uint8Array): boolean {
  return json.length === 4 && Buffer.from(json).toString("latin1") === "null";
}

function consistencyOf(asked: StateReadOptions["consistency"]): Consistency {
  if (asked === "") return Consistency.CONSISTENCY_UNSPECIFIED;
  return asked === "strong" ? Consistency.CONSISTENCY_STRONG : Consistency.CONSISTENCY_EVENTUAL;
}
