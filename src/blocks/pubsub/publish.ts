/**
 * Publishing: checks in the order clients rely on, the envelope, and the hand-over to the broker.
 * `resolve` comes before the body is read, `publish` after it.
 */
import { asError } from "../../lib/thrown.ts";
import type { Clock } from "../../../mesh/index.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { callUnder } from "../../resiliency/policy.ts";
import type { Broker, Brokers } from "./broker.ts";
import { cloudEventsType } from "./envelope.ts";
import type { Envelope, WrapEvent } from "./envelope.ts";
import {
  badRawPayload,
  cannotCreateCloudEvent,
  publishFailed,
  publishMetadataRefused,
  pubsubNameEmpty,
  pubsubNotFound,
  topicEmpty,
  topicForbidden,
} from "./errors.ts";
import { judgePublish, type Via } from "./policy.ts";
import { readRawPayload } from "./raw-payload.ts";
import { type PublishMessage, RequestRefused } from "./port.ts";
import type { TraceContext } from "../../telemetry/tracing/trace-context.ts";

type Metadata = Readonly<Record<string, string>>;

/** Where a publish goes and whether its bytes go as they are. */
export type PublishTarget = { readonly broker: Broker; readonly topic: string; readonly raw: boolean };

export type PublishedEvent = {
  readonly data: Buffer;
  readonly contentType: string;
  readonly metadata: Metadata;
  readonly trace: TraceContext;
};

export type Publisher = {
  /** Checks name, topic and `rawPayload`. Throws ApiError. */
  resolve(pubsub: string, topic: string, metadata: Metadata): PublishTarget;
  /** Resolves once the broker has the event. Rejects with ApiError. */
  publish(target: PublishTarget, event: PublishedEvent, signal: AbortSignal, via: Via): Promise<void>;
  /** The message that the event becomes. Throws ApiError for a declared CloudEvent that is none. */
  wrap(target: PublishTarget, event: PublishedEvent): PublishMessage;
  /** Throws ApiError when this app may not publish there. */
  allow(target: PublishTarget): void;
  /**
   * Hands a finished message to the broker, under the policy of the component, and records it. Rejects with the
   * component's error, or with PolicyStop.
   */
  send(broker: Broker, message: PublishMessage, signal: AbortSignal, via: Via): Promise<void>;
};

export type PublisherParts = {
  readonly appId: string;
  readonly namespace: string;
  readonly brokers: Brokers;
  readonly wrapEvent: WrapEvent;
  readonly clock: Clock;
  readonly metrics: Metrics;
};

export function createPublisher(parts: PublisherParts): Publisher {
  const { appId, brokers } = parts;
  const recorded = createRecorded(parts);
  const send: Publisher["send"] = (broker, message, signal, via) =>
    recorded(broker, message.topic, () =>
      callUnder(broker.outbound, signal, (now) => broker.port.publish(message, now), judgePublish[via]),
    );

  const wrap = (target: PublishTarget, event: PublishedEvent): PublishMessage => {
    const topic = target.broker.stored(target.topic);
    if (target.raw) {
      return { topic, data: event.data, metadata: event.metadata, contentType: undefined, id: undefined };
    }
    const { data, id } = envelopeOf(parts, target, event);
    return { topic, data, metadata: event.metadata, contentType: cloudEventsType, id };
  };

  const allow = ({ broker, topic }: PublishTarget): void => {
    if (!broker.scopes.mayPublish(topic)) throw topicForbidden(broker.name, topic, appId);
  };

  return {
    wrap,
    allow,
    send,
    resolve(pubsub, topic, metadata) {
      if (pubsub === "") throw pubsubNameEmpty(metadata);
      const broker = brokers.get(pubsub);
      if (broker === undefined) throw pubsubNotFound(pubsub, metadata);
      if (topic === "") throw topicEmpty(pubsub, metadata);
      const raw = readRawPayload(metadata);
      if (raw === undefined) throw badRawPayload(pubsub, metadata["rawPayload"]!, metadata);
      return { broker, topic, raw };
    },
    async publish(target, event, signal, via) {
      const message = wrap(target, event);
      allow(target);
      try {
        await send(target.broker, message, signal, via);
      } catch (error) {
        const failed = error instanceof RequestRefused ? publishMetadataRefused : publishFailed;
        throw failed(target.broker.name, target.topic, asError(error));
      }
    },
  };
}

function envelopeOf(parts: PublisherParts, target: PublishTarget, event: PublishedEvent): Envelope {
  try {
    return parts.wrapEvent({
      pubsub: target.broker.name,
      topic: target.topic,
      expires: !target.broker.keepsTtl,
      contentType: event.contentType,
      data: event.data,
      metadata: event.metadata,
      trace: event.trace,
    });
  } catch (error) {
    throw cannotCreateCloudEvent(target.broker.name, parts.appId, asError(error));
  }
}

/** Counts and times what the broker does. */
function createRecorded(
  parts: PublisherParts,
): (broker: Broker, stored: string, work: () => Promise<void>) => Promise<void> {
  const { clock, metrics, namespace } = parts;
  const labels = ["component", "namespace", "success", "topic"];
  const count = metrics.count("component_pubsub_egress_count", "Messages published to a broker.", labels);
  const latency = metrics.latency(
    "component_pubsub_egress_latencies",
    "Time the broker took to accept, ms.",
    labels,
  );
  return async (broker, stored, work) => {
    const topic = broker.shown(stored);
    const startMs = clock.monotonicMs();
    const record = (success: string): void => {
      count(broker.name, namespace, success, topic);
      latency(clock.monotonicMs() - startMs, broker.name, namespace, success, topic);
    };
    try {
      await work();
    } catch (error) {
      record("false");
      throw error;
    }
    record("true");
  };
}
