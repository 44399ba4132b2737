/** Methods of the state API over gRPC: decode, call state.ts, encode. */
import { create } from "@bufbuild/protobuf";
import {
  type Etag,
  type StateItem,
  StateItemSchema,
  type StateOptions,
} from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { type GrpcMethod, unary } from "../../api/grpc.ts";
import { goJson, unmarshalJson } from "../../lib/go-json.ts";
import { valueNoJson } from "./errors.ts";
import { readMetadata } from "./read-metadata.ts";
import type { BulkEntry } from "./state.ts";
import type { Operation, SaveItem, WriteItem } from "./writes.ts";
import { stateExtensionMethods } from "./grpc-extensions.ts";
import type { StateStores } from "./stores.ts";
import type { Watches } from "./watches.ts";

/** Texts of the enum numbers; 0 and unknown numbers are the store's default. */
const concurrencies: readonly string[] = ["", "first-write", "last-write"];
const consistencies: readonly string[] = ["", "eventual", "strong"];

/** All gRPC methods of the block. */
export function stateGrpcMethods(stores: StateStores, watches: Watches): GrpcMethod[] {
  return [
    ...stateExtensionMethods(stores, watches),
    unary(Dapr.method.getState, async (request, call) => {
      const store = stores.store(request.storeName);
      const consistency = consistencies[request.consistency] ?? "";
      const record = await store.get(request.key, consistency, request.metadata, call.signal);
      if (record === undefined) return {};
      return { data: record.value, etag: record.etag, metadata: readMetadata(record) };
    }),
    unary(Dapr.method.getBulkState, async (request, call) => {
      const store = stores.store(request.storeName);
      const entries = await store.getMany(request.keys, request.parallelism, request.metadata, call.signal);
      return { items: entries.map(encodeEntry) };
    }),
    unary(Dapr.method.saveState, async (request, call) => {
      await stores.store(request.storeName).save(request.states.map(saveItem), call.signal);
      return {};
    }),
    unary(Dapr.method.deleteState, async (request, call) => {
      await stores.store(request.storeName).delete(writeItem(request), call.signal);
      return {};
    }),
    unary(Dapr.method.deleteBulkState, async (request, call) => {
      await stores.store(request.storeName).deleteMany(request.states.map(writeItem), call.signal);
      return {};
    }),
    unary(Dapr.method.executeStateTransaction, async (request, call) => {
      const store = stores.store(request.storeName);
      store.requireTransactions();
      const operations = request.operations.map(
        ({ operationType, request: item = create(StateItemSchema) }): Operation => {
          return { operation: operationType, item: bytesItem(item) };
        },
      );
      await store.transact(operations, request.metadata, call.signal, call.span);
      return {};
    }),
    unary(Dapr.method.queryStateAlpha1, async (request, call) => {
      const store = stores.store(request.storeName);
      const { rows, token, metadata } = await store.query(request.query, request.metadata, call.signal);
      const results = rows.map(({ key, value, etag, error = "" }) => ({ key, data: value, etag, error }));
      return { results, token, metadata };
    }),
  ];
}

type WireWrite = {
  readonly key: string;
  readonly etag?: Etag | undefined;
  readonly options?: StateOptions | undefined;
  readonly metadata: Record<string, string>;
};

function writeItem({ key, etag, options, metadata }: WireWrite): WriteItem {
  return {
    key,
    etag: etag?.value ?? "",
    concurrency: concurrencies[options?.concurrency ?? 0] ?? "",
    consistency: consistencies[options?.consistency ?? 0] ?? "",
    metadata,
  };
}

/** Bytes are stored untouched, unless a save declares them to be JSON; then they are stored as we write JSON. */
function saveItem(item: StateItem): SaveItem {
  if (item.metadata["contentType"] !== "application/json") return bytesItem(item);
  return { ...writeItem(item), value: Buffer.from(rewritten(item.value)), json: true, contentType: "" };
}

function rewritten(value: Uint8Array): string {
  try {
    return goJson(unmarshalJson(Buffer.from(value).toString()));
  } catch (cause) {
    throw valueNoJson(cause);
  }
}

function bytesItem(item: StateItem): SaveItem {
  return { ...writeItem(item), value: item.value, json: false, contentType: "" };
}

function encodeEntry({ key, record, error }: BulkEntry): {
  key: string;
  data?: Uint8Array;
  etag?: string;
  metadata?: Record<string, string>;
  error?: string;
} {
  if (error !== undefined) return { key, error };
  if (record === undefined) return { key };
  return { key, data: record.value, etag: record.etag, metadata: readMetadata(record) };
}
