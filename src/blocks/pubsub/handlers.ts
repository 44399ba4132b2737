/** How the messages of a subscription are handled: one by one, or gathered, as it asks and its app can. */
import type { Deliver } from "./answer.ts";
import { createBatchHandler, createBulkHandler, limitsAt } from "./bulk-delivery.ts";
import type { DeliverBulk } from "./bulk-delivery.ts";
import { createSingleHandlers } from "./delivery.ts";
import type { DeliveryParts, Line } from "./delivery.ts";
import { readRawPayload } from "./raw-payload.ts";
import type { OpenSubscription } from "./subscriber.ts";

/** How the app gets its events; a stream has no way for many at once. */
export type Delivering = { readonly one: Deliver; readonly many?: DeliverBulk };

/** Subscribes at the component, with what makes of its messages what the subscription says. */
export function createSubscribe(parts: DeliveryParts): OpenSubscription {
  const single = createSingleHandlers(parts);
  return (broker, subscription, { one, many }) => {
    const { metadata, bulk } = subscription;
    const raw = readRawPayload(metadata);
    const line: Line = { broker, subscription, raw };
    const { port } = broker;
    const request = { topic: broker.stored(subscription.topic), metadata, rawPayload: raw === true };
    if (bulk === undefined || many === undefined)
      return port.subscribe({ ...request, batch: 1 }, single(line, one));
    const limits = limitsAt(broker, bulk);
    const inBatches = { ...request, batch: limits.maxMessages };
    return port.subscribeBatches === undefined
      ? port.subscribe(inBatches, createBulkHandler(parts, line, limits, many))
      : port.subscribeBatches(inBatches, limits, createBatchHandler(parts, line, limits, many));
  };
}
