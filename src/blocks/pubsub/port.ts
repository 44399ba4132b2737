/**
 * What a pub/sub component must do. Messages are bytes with string metadata; envelopes are the block's business.
 * One contract suite (test/contract/pubsub.ts) runs against every component.
 */

export type PublishMessage = {
  readonly topic: string;
  readonly data: Uint8Array;
  readonly metadata: Readonly<Record<string, string>>;
  /** Media type of `data`: `application/cloudevents+json` for envelopes; undefined for raw payloads. */
  readonly contentType: string | undefined;
  /** CloudEvent id when the block knows it; components may use it to drop duplicates of a retried publish. */
  readonly id: string | undefined;
  /** Set when it goes to a dead-letter topic; components may keep it beside the message. */
  readonly deadLetter?: DeadLetter;
  /** The event goes to another topic later, and there under its id. */
  readonly waiting?: true;
};

/** Which message was given up, and why. */
export type DeadLetter = { readonly of: BrokerMessage; readonly reason: string };

/** Messages of one request for one topic. */
export type PublishBatch = {
  readonly topic: string;
  readonly entries: readonly {
    /** The client's, another one for each. */
    readonly entryId: string;
    readonly message: PublishMessage;
    /** Of what the client sent, which is `data` where the payload is raw. */
    readonly contentType: string;
  }[];
  /** Of the request. */
  readonly metadata: Readonly<Record<string, string>>;
};

export type BrokerMessage = {
  /** Actual topic (differs from the subscribed one with wildcards). */
  readonly topic: string;
  readonly data: Uint8Array;
  readonly metadata: Readonly<Record<string, string>>;
  readonly contentType: string | undefined;
  /** Of its delivery, by components that can tell it with a dead letter. */
  readonly delivery?: DeliveryPlace;
};

export type DeliveryPlace = {
  /** Consumer group, and topic as it is subscribed to. */
  readonly group: string;
  readonly subscription: string;
  /** 1 for the first delivery. */
  readonly tries: number;
  /** Number of the message at the broker. */
  readonly sequence: number;
};

/** A publish or a subscription asks in its metadata for what cannot be; the same again would fail again. */
export class RequestRefused extends Error {
  override readonly name = "RequestRefused";

  /** `field`: the metadata field as its page writes it; `problem` names the fix. */
  constructor(field: string, problem: string) {
    super(`metadata field "${field}": ${problem}`);
  }
}

/** Resolve = handled, forget it. Reject = deliver again by the component's rule. Never called after `stop` resolved. */
export type MessageHandler = (message: BrokerMessage, signal: AbortSignal) => Promise<void>;

/**
 * Hands over a batch and resolves, always, with what became of each message by its place: undefined = handled, forget
 * it; an Error = deliver it again. Never called after `stop` resolved.
 */
export type BatchHandler = (
  messages: readonly BrokerMessage[],
  signal: AbortSignal,
) => Promise<readonly (Error | undefined)[]>;

/** A batch leaves with so many messages, or so long after its first one. */
export type BatchLimits = { readonly maxMessages: number; readonly maxAwaitMs: number };

export type SubscribeRequest = {
  readonly topic: string;
  /** Metadata of the subscription, as the user wrote it. */
  readonly metadata: Readonly<Record<string, string>>;
  /** True when the subscriber wants the stored bytes untouched. */
  readonly rawPayload: boolean;
  /** Messages that the subscriber wants to have in hand at once before it handles any; 1 = it takes them singly. */
  readonly batch: number;
  /** Handlers that may run at once, when the sidecar itself subscribes; else as the component says. */
  readonly atOnce?: number;
  /** True: delivered until it is handled, where the component may give events up. */
  readonly untilHandled?: boolean;
  /** Consumer group in place of the component's own. */
  readonly group?: string;
};

export type Subscription = {
  /** Hands over no new message and waits up to `graceMs` for running handlers; what was not handled stays stored. */
  stop(graceMs: number): Promise<void>;
};

/** All methods may run at once and reject with a readable Error; RequestRefused is the client's own fault. */
export type PubSub = {
  /** Accepted by the broker, durable by its rules, when it resolves. */
  publish(message: PublishMessage, signal: AbortSignal): Promise<void>;
  /**
   * In place of `publish` for each, where there is one call for many. Gives the errors of the entries that the broker
   * did not take, by entry id; rejects when it is unknown which it took. Absent = the block publishes one by one.
   */
  publishMany?(batch: PublishBatch, signal: AbortSignal): Promise<ReadonlyMap<string, Error>>;
  /** As `subscribe`, in batches that the component makes. Absent: the block gathers what comes one by one. */
  subscribeBatches?(
    request: SubscribeRequest,
    limits: BatchLimits,
    handler: BatchHandler,
  ): Promise<Subscription>;
  /** Limits of batches where a subscription gives none; Dapr's common ones when absent. */
  readonly batchLimits?: BatchLimits;
  /** Resolves when the subscription exists at the broker. Survives broker outages by itself. */
  subscribe(request: SubscribeRequest, handler: MessageHandler): Promise<Subscription>;
  /** Unix ms since when it cannot reach its server; undefined while it can. Absent where there is none. */
  awaySinceMs?(): number | undefined;
  close(): Promise<void>;
};
