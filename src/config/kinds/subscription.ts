/**
 * A Subscription resource. Both versions of the file format give the same object.
 */
import type { Origin } from "../problem.ts";

export interface SubscriptionRule {
  /** CEL expression; empty matches every event. */
  readonly match: string;
  /** Path of the app, or method name over gRPC. */
  readonly path: string;
}

export interface SubscriptionResource {
  readonly kind: "Subscription";
  readonly name: string;
  readonly namespace: string | undefined;
  readonly pubsubname: string;
  readonly topic: string;
  /** In the order in which they are tried; the default route is the last one, with an empty match. */
  readonly rules: readonly SubscriptionRule[];
  /** Empty when there is none. */
  readonly deadLetterTopic: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly bulkSubscribe: BulkSubscribe;
  /** Ids of the apps that it is for; empty for all. */
  readonly scopes: readonly string[];
  readonly origin: Origin;
}

/** A count or time of 0 means that none is given. */
export interface BulkSubscribe {
  readonly enabled: boolean;
  readonly maxMessagesCount: number;
  readonly maxAwaitDurationMs: number;
}
