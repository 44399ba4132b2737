/**
 * Routes that Dapr does not have: keys by prefix, and a watch as server-sent events. An event's id is where a later
 * watch goes on; it moves with heartbeats too.
 */
import { BodyQueue, type BodyStream, type Clock } from "../../../mesh/index.ts";
import { type HttpCall, type HttpReply, type HttpRoute, jsonReply } from "../../api/http.ts";
import { goJson } from "../../lib/go-json.ts";
import { asError } from "../../lib/thrown.ts";
import { malformedRequest } from "./errors.ts";
import { encodeEntry } from "./http-body.ts";
import { type Change, defaultListed, maxListed } from "./listing.ts";
import type { StateStores } from "./stores.ts";
import type { Watches } from "./watches.ts";

/** A client hears at least so often, ms. */
const heartbeatMs = 10_000;
/** Events that wait for a slow client, bytes; the store is not asked for more then. */
const highWaterBytes = 256 * 1024;

const eventHeaders = Object.freeze({ "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });

export function stateExtensionRoutes(stores: StateStores, watches: Watches, clock: Clock): HttpRoute[] {
  const verbs = ["GET"];
  const path = "/v1.0-weft1/state/{store}";
  return [
    {
      verbs,
      path: `${path}/keys`,
      name: "ListStateKeys",
      group: "state",
      handle: (call) => list(stores, call),
    },
    {
      verbs,
      path: `${path}/watch`,
      name: "WatchState",
      group: "state",
      handle: (call) => watch(stores, watches, clock, call),
    },
  ];
}

async function list(stores: StateStores, call: HttpCall): Promise<HttpReply> {
  const store = stores.store(call.params[0]!);
  const limit = readLimit(call.queryValue("limit"));
  const prefix = call.queryValue("prefix") ?? "";
  const { keys, token } = await store.list(prefix, limit, call.queryValue("token") ?? "", call.signal);
  return jsonReply(`${goJson(token === "" ? { keys } : { keys, token })}\n`);
}

function readLimit(text: string | undefined): number {
  if (text === undefined || text === "") return defaultListed;
  if (!/^\d{1,6}$/.test(text)) throw malformedRequest(`limit must be 1 to ${maxListed}`);
  return Number(text);
}

async function watch(
  stores: StateStores,
  watches: Watches,
  clock: Clock,
  call: HttpCall,
): Promise<HttpReply> {
  const store = stores.store(call.params[0]!);
  const { ending, done } = watches.add(store.name);
  const { signal } = call;
  const onAbort = (): void => ending.abort(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  ending.signal.addEventListener("abort", done, { once: true });
  try {
    const key = call.queryValue("key");
    const prefix = call.queryValue("prefix");
    if (key !== undefined && prefix !== undefined) throw malformedRequest("give key or prefix, not both");
    const lastId = call.headers["last-event-id"];
    const after = typeof lastId === "string" ? lastId : (call.queryValue("lastEventId") ?? "");
    const target = key === undefined ? { prefix: prefix ?? "" } : { key };
    const changes = await store.watch(target, after, ending.signal);
    return { status: 200, headers: eventHeaders, body: eventStream(changes, ending, clock) };
  } catch (error) {
    ending.abort(error);
    throw error;
  }
}

/** Reads changes as fast as the client does. */
function eventStream(changes: AsyncIterable<Change>, ending: AbortController, clock: Clock): BodyStream {
  let goOn: (() => void) | undefined;
  const queue = new BodyQueue({ onTaken: () => goOn?.(), onCancel: (reason) => ending.abort(reason) });
  ending.signal.addEventListener("abort", () => goOn?.(), { once: true });
  const send = (text: string): void => queue.push(Buffer.from(text));
  let lastId = "";
  const heartbeat = clock.setInterval(() => {
    if (queue.bufferedBytes === 0) send(`: alive\nid: ${lastId}\n\n`);
  }, heartbeatMs);
  const pump = async (): Promise<void> => {
    for await (const change of changes) {
      lastId = change.id;
      if (change.kind !== "idle") send(encodeEvent(change));
      while (queue.bufferedBytes > highWaterBytes && !ending.signal.aborted)
        await new Promise<void>((resolve) => (goOn = resolve));
    }
  };
  pump()
    .then(
      () => queue.end(),
      (error: unknown) => queue.fail(asError(error)),
    )
    .finally(() => {
      heartbeat.cancel();
      ending.abort(new Error("the watch ended"));
    });
  return queue;
}

const eventNames = {
  put: "put",
  delete: "delete",
  expire: "expired",
  ready: "ready",
  reset: "reset",
} as const;

function encodeEvent({ kind, key, id, record, error }: Change): string {
  const name = eventNames[kind as keyof typeof eventNames];
  const data = kind === "ready" || kind === "reset" ? "{}" : encodeEntry({ key, record, error });
  return `id: ${id}\nevent: ${name}\ndata: ${data}\n\n`;
}
