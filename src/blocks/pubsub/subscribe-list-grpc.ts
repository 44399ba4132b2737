/**
 * Reads the list of topics that a gRPC app wants. Imported only for such apps: generated messages cost start time.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { ListTopicSubscriptionsResponseSchema } from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
import type { RouteRule } from "./routes.ts";
import type { SubscriptionSpec } from "./subscription.ts";

/** Items of a gRPC app's list. Throws Error when the message cannot be decoded. */
export function readGrpcList(message: Uint8Array): SubscriptionSpec[] {
  return fromBinary(ListTopicSubscriptionsResponseSchema, message).subscriptions.map((item) => {
    const rules: RouteRule[] = (item.routes?.rules ?? []).map(({ match, path }) => ({ match, path }));
    if (item.routes?.default) rules.push({ match: "", path: item.routes.default });
    if (rules.length === 0) rules.push({ match: "", path: "" });
    const { enabled = false, maxMessagesCount = 0, maxAwaitDurationMs = 0 } = item.bulkSubscribe ?? {};
    return {
      source: "PROGRAMMATIC",
      pubsub: item.pubsubName,
      topic: item.topic,
      metadata: { ...item.metadata },
      rules,
      deadLetterTopic: item.deadLetterTopic,
      bulk: enabled ? { maxMessages: maxMessagesCount, maxAwaitMs: maxAwaitDurationMs } : undefined,
    };
  });
}
