/** Methods that Dapr does not have, over gRPC: keys by prefix, and a watch. */
import { StateExtensions, WatchEvent_Kind } from "../../../proto/gen/weft/runtime/v1/state_pb.ts";
import { type GrpcCall, type GrpcMethod, streaming, unary } from "../../api/grpc.ts";
import { malformedRequest, watchesEnd } from "./errors.ts";
import { readMetadata } from "./read-metadata.ts";
import { type Change, defaultListed } from "./listing.ts";
import type { StateStores } from "./stores.ts";
import type { Watches } from "./watches.ts";

export function stateExtensionMethods(stores: StateStores, watches: Watches): GrpcMethod[] {
  return [
    unary(StateExtensions.method.listKeys, async (request, call) => {
      const { storeName, prefix, limit, token } = request;
      const page = await stores.store(storeName).list(prefix, limit || defaultListed, token, call.signal);
      return { keys: [...page.keys], token: page.token };
    }),
    streaming(StateExtensions.method.watch, async function* (requests, call: GrpcCall) {
      const { value: request } = await requests[Symbol.asyncIterator]().next();
      if (request === undefined) throw malformedRequest("a watch needs a request");
      const store = stores.store(request.storeName);
      const { ending, done } = watches.add(store.name);
      const onAbort = (): void => ending.abort(call.signal.reason);
      call.signal.addEventListener("abort", onAbort, { once: true });
      try {
        const { target, lastEventId } = request;
        const wanted = target.case === "key" ? { key: target.value } : { prefix: target.value ?? "" };
        for await (const change of await store.watch(wanted, lastEventId, ending.signal))
          yield encodeEvent(change);
        if (!call.signal.aborted) throw watchesEnd();
      } finally {
        done();
        call.signal.removeEventListener("abort", onAbort);
        ending.abort(new Error("the watch ended"));
      }
    }),
  ];
}

const kinds = {
  ready: WatchEvent_Kind.READY,
  put: WatchEvent_Kind.PUT,
  delete: WatchEvent_Kind.DELETED,
  expire: WatchEvent_Kind.EXPIRED,
  reset: WatchEvent_Kind.RESET,
  idle: WatchEvent_Kind.IDLE,
} as const;

function encodeEvent({ kind, key, id, record, error = "" }: Change) {
  const event = { id, kind: kinds[kind], key, error };
  if (record === undefined) return event;
  return { ...event, data: record.value, etag: record.etag, metadata: readMetadata(record) };
}
