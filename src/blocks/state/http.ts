/** Routes of the state API over HTTP: decode, call state.ts, encode. */
import { ApiError } from "../../api/errors.ts";
import { type HttpCall, type HttpReply, type HttpRoute, jsonReply, noContent } from "../../api/http.ts";
import { metadataHeaders } from "../../lib/metadata-headers.ts";
import { malformedRequest, withoutAppId } from "./errors.ts";
import {
  decodeBulkGet,
  decodeSave,
  decodeTransaction,
  encodeBulkGet,
  encodeQueryAnswer,
  noMetadata,
} from "./http-body.ts";
import { rfc3339Seconds } from "./read-metadata.ts";
import type { NamedStore } from "./state.ts";
import type { Metadata } from "./writes.ts";
import type { StateStores } from "./stores.ts";

/** All HTTP routes of the block. */
export function stateHttpRoutes(stores: StateStores): HttpRoute[] {
  const route = (
    verbs: readonly string[],
    path: string,
    name: string,
    step: (stores: StateStores, call: HttpCall) => Promise<HttpReply>,
  ): HttpRoute => ({ verbs, path, name, group: "state", handle: (call) => step(stores, call) });
  const write = ["POST", "PUT"];
  return [
    route(write, "/v1.0/state/{store}", "SaveState", save),
    route(["GET"], "/v1.0/state/{store}/{key}", "GetState", get),
    route(["DELETE"], "/v1.0/state/{store}/{key}", "DeleteState", remove),
    route(write, "/v1.0/state/{store}/bulk", "GetBulkState", bulkGet),
    route(write, "/v1.0/state/{store}/transaction", "ExecuteStateTransaction", transaction),
    route(write, "/v1.0-alpha1/state/{store}/query", "QueryStateAlpha1", query),
  ];
}

async function save(stores: StateStores, call: HttpCall): Promise<HttpReply> {
  const store = stores.store(call.params[0]!);
  const body = await call.body();
  const items = decoded("", () => decodeSave(body, urlMetadata(call)));
  await store.save(items, call.signal);
  return noContent;
}

async function get(stores: StateStores, call: HttpCall): Promise<HttpReply> {
  const store = stores.store(call.params[0]!);
  const consistency = call.query === "" ? "" : (call.queryValue("consistency") ?? "");
  const record = await store.get(call.params[1]!, consistency, urlMetadata(call), call.signal);
  if (record === undefined || (record.value.length === 0 && store.hidesEmpty)) return noContent;
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (record.etag !== "") headers["Etag"] = record.etag;
  if (record.metadata !== undefined) Object.assign(headers, metadataHeaders(record.metadata));
  if (record.expiresAtMs !== undefined)
    headers["Metadata.ttlexpiretime"] = rfc3339Seconds(record.expiresAtMs);
  return { status: 200, headers, body: record.value };
}

async function remove(stores: StateStores, call: HttpCall): Promise<HttpReply> {
  const store = stores.store(call.params[0]!);
  const ifMatch = call.headers["if-match"];
  const item = {
    key: call.params[1]!,
    etag: (Array.isArray(ifMatch) ? ifMatch[0] : ifMatch) ?? "",
    concurrency: call.queryValue("concurrency") ?? "",
    consistency: call.queryValue("consistency") ?? "",
    metadata: urlMetadata(call),
  };
  await store.delete(item, call.signal);
  return noContent;
}

async function bulkGet(stores: StateStores, call: HttpCall): Promise<HttpReply> {
  const store = stores.store(call.params[0]!);
  const body = await call.body();
  const request = decoded(deserializing, () => decodeBulkGet(body, urlMetadata(call)));
  const entries = await store.getMany(request.keys, request.parallelism, request.metadata, call.signal);
  return jsonReply(encodeBulkGet(entries));
}

async function transaction(stores: StateStores, call: HttpCall): Promise<HttpReply> {
  const store = stores.store(call.params[0]!);
  store.requireTransactions();
  const body = await call.body();
  const request = decoded(deserializing, () => decodeTransaction(body, urlMetadata(call)));
  await store.transact(request.operations, request.metadata, call.signal, call.span);
  return noContent;
}

async function query(stores: StateStores, call: HttpCall): Promise<HttpReply> {
  const store = queriedStore(stores, call.params[0]!);
  const body = await call.body();
  const answer = await store.query(body.toString(), urlMetadata(call), call.signal);
  return answer.rows.length === 0 ? noContent : jsonReply(encodeQueryAnswer(answer));
}

function queriedStore(stores: StateStores, name: string): NamedStore {
  try {
    return stores.store(name);
  } catch (error) {
    throw error instanceof ApiError ? withoutAppId(error) : error;
  }
}

const deserializing = "failed deserializing HTTP body: ";

/** What a decoder cannot read is the client's fault, so every failure of it is a 400. */
function decoded<T>(prefix: string, decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    throw malformedRequest(prefix + (cause instanceof Error ? cause.message : String(cause)), cause);
  }
}

function urlMetadata(call: HttpCall): Metadata {
  if (call.query === "") return noMetadata;
  const metadata = call.metadata();
  for (const _ in metadata) return metadata;
  return noMetadata;
}
