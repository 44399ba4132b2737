/** How the messages of a subscription are handled: one by one, or gathered, as it asks and its app can. */
import type { Deliver } from "./answer.ts";
import type { Broker } from "./broker.ts";
import { createBulkHandler } from "./bulk-delivery.ts";
import type { DeliverBulk } from "./bulk-delivery.ts";
import { createSingleHandlers } from "./delivery.ts";
import type { DeliveryParts, Line } from "./delivery.ts";
import type { MessageHandler } from "./port.ts";
import { readRawPayload } from "./raw-payload.ts";
import type { TopicSubscription } from "./subscription.ts";

/** How the app gets its events; a stream has no way for many at once. */
export type Delivering = { readonly one: Deliver; readonly many?: DeliverBulk };

/** Makes the handler of one subscription at its broker. */
export type CreateHandler = (
  broker: Broker,
  subscription: TopicSubscription,
  deliver: Delivering,
) => MessageHandler;

export function createHandlers(parts: DeliveryParts): CreateHandler {
  const single = createSingleHandlers(parts);
  return (broker, subscription, { one, many }) => {
    const line: Line = { broker, subscription, raw: readRawPayload(subscription.metadata) };
    if (subscription.bulk === undefined || many === undefined) return single(line, one);
    return createBulkHandler(parts, line, subscription.bulk, many);
  };
}
