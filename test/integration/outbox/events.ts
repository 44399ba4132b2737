/** What the outbox tests share: component files, transactions, and an app that takes the events. */
import { type App, type HttpReply, type Sidecar, startApp } from "../../kit/index.ts";
import { stateComponent } from "../state/resources.ts";

export type Published = Readonly<Record<string, unknown>> & { readonly id: string; readonly data: unknown };

export type Fields = Readonly<Record<string, string>>;

/** A state component with an outbox to topic `orders` of `pubsub`. */
export function outboxStore(type: string, fields: Fields = {}, outbox: Fields = {}, name = "store"): string {
  return stateComponent(name, type, {
    outboxPublishPubsub: "pubsub",
    outboxPublishTopic: "orders",
    ...outbox,
    ...fields,
  });
}

/** An app that is subscribed to `orders` of `pubsub`. */
export function startTaker(): Promise<App> {
  return startApp({
    subscriptions: [{ pubsubname: "pubsub", topic: "orders", route: "/orders" }],
    routes: { "/orders": () => ({}) },
  });
}

/** Events that the app has got, told apart by id, in order of their first arrival. */
export function eventsOf(app: App): Published[] {
  const byId = new Map<string, Published>();
  for (const request of app.requestsTo("/orders")) {
    const event = request.json<Published>();
    if (!byId.has(event.id)) byId.set(event.id, event);
  }
  return [...byId.values()];
}

export type Upsert = {
  readonly key: string;
  readonly value?: unknown;
  readonly etag?: string;
  readonly contentType?: string;
  readonly metadata?: Fields;
};

/** A transaction over HTTP; a text stands for a delete of that key. */
export function transact(
  sidecar: Sidecar,
  operations: readonly (Upsert | string)[],
  query = "",
  store = "store",
): Promise<HttpReply> {
  const body = operations.map((it) =>
    typeof it === "string"
      ? { operation: "delete", request: { key: it } }
      : { operation: "upsert", request: it },
  );
  return sidecar.http(`/v1.0/state/${store}/transaction${query}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ operations: body }),
  });
}

/** Waits until the sidecar reads the topic on which its events wait. */
export async function relays(sidecar: Sidecar): Promise<void> {
  await sidecar.logged(/outbox is subscribed to topic/);
}
