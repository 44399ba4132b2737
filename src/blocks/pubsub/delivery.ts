/**
 * One message from the broker to its subscriber: read, expiry, route, hand over, and what follows from the answer
 * (acknowledge, dead-letter, or fail so that the broker delivers again).
 */
import { asError } from "../../lib/thrown.ts";
import type { Clock } from "../../../mesh/index.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { Tracing } from "../../telemetry/tracing/tracer.ts";
import { dropExpired, dropUnrouted, retry } from "./answer.ts";
import type { Answer, Deliver } from "./answer.ts";
import type { Broker } from "./broker.ts";
import { hasExpired, readEvent } from "./event.ts";
import type { AppEvent } from "./event.ts";
import type { BrokerMessage, MessageHandler, PublishMessage } from "./port.ts";
import { deliverUnder } from "./policy.ts";
import type { Publisher } from "./publish.ts";
import type { TopicSubscription } from "./subscription.ts";
import { deliverySpan, endDelivery } from "./trace.ts";

export type DeliveryParts = {
  readonly namespace: string;
  readonly publisher: Publisher;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
};

/** Longest time that a copy to a dead-letter topic may take, ms. */
const deadLetterTimeoutMs = 30_000;

/** Makes handlers that take messages one by one. */
export function createSingleHandlers(parts: DeliveryParts): (line: Line, deliver: Deliver) => MessageHandler {
  const record = createRecord(parts);
  return (line, deliver) => async (message, signal) => {
    const topic = line.broker.shown(message.topic);
    const startMs = parts.clock.monotonicMs();
    const ready = prepare(parts, line, message);
    const answer =
      "kind" in ready
        ? ready
        : await deliverUnder(line.broker.inbound.policy, signal, (now) => traced(parts, deliver, ready, now));
    record(answer, line.broker.name, topic, parts.clock.monotonicMs() - startMs);
    if (answer.kind !== "success") await handleLoss(parts, line, message, answer, signal);
  };
}

/** One delivery with its span around it. */
async function traced(
  { tracing }: DeliveryParts,
  deliver: Deliver,
  { event, path }: { readonly event: AppEvent; readonly path: string },
  signal: AbortSignal,
): Promise<Answer> {
  const span = deliverySpan(tracing.tracer, event);
  if (span === undefined) return deliver(event, path, signal);
  const answer = await deliver({ ...event, span }, path, signal);
  endDelivery(span, answer);
  return answer;
}

/** A subscription with all that its messages need on their way. */
export type Line = {
  readonly broker: Broker;
  readonly subscription: TopicSubscription;
  readonly raw: boolean | undefined;
};

/** The event of a message and where it goes, or the answer of a message that reaches nobody. */
export function prepare(
  parts: DeliveryParts,
  line: Line,
  message: BrokerMessage,
): { readonly event: AppEvent; readonly path: string } | Answer {
  const { broker, subscription, raw } = line;
  try {
    const topic = broker.shown(message.topic);
    const event = readEvent(message, { pubsub: broker.name, topic, raw });
    if (hasExpired(event.attributes, parts.clock.nowMs())) return dropExpired;
    const path = subscription.route(event.attributes);
    return path === undefined ? dropUnrouted : { event, path };
  } catch (error) {
    return retry(asError(error));
  }
}

/** Dead-letters what was not handled, where that is wanted; else a retry is a throw, which the broker answers. */
export async function handleLoss(
  parts: DeliveryParts,
  line: Line,
  message: BrokerMessage,
  answer: Exclude<Answer, { kind: "success" }>,
  signal: AbortSignal,
): Promise<void> {
  const { broker, subscription } = line;
  const { deadLetterTopic } = subscription;
  const name = `event of topic ${broker.shown(message.topic)} of ${broker.name}`;
  const keep = deadLetterTopic !== "" && !(answer.kind === "drop" ? answer.lost : answer.unserved);
  const why = answer.kind === "drop" ? answer.reason : answer.error.message;
  if (keep && !signal.aborted) {
    parts.log.warn(`${name} goes to the dead-letter topic ${deadLetterTopic}: ${why}`);
    return deadLetter(parts, line, message, why);
  }
  if (answer.kind === "drop") return parts.log.warn(`${name} is dropped: ${why}`);
  parts.log.warn(`${name} was not handled and goes back to the broker: ${why}`);
  throw answer.error;
}

/** The same bytes under the dead-letter topic of the same component. Rejects when they could not be kept there. */
async function deadLetter(
  parts: DeliveryParts,
  { broker, subscription }: Line,
  message: BrokerMessage,
  reason: string,
): Promise<void> {
  const { publisher, clock } = parts;
  const topic = subscription.deadLetterTopic;
  const limit = new AbortController();
  const timer = clock.setTimeout(
    () => limit.abort(new Error("the broker did not take it in time")),
    deadLetterTimeoutMs,
  );
  const known = message.contentType === undefined ? {} : { "content-type": message.contentType };
  const copy: PublishMessage = {
    topic: broker.stored(topic),
    data: message.data,
    metadata: { ...message.metadata, pubsubName: broker.name, ...known },
    contentType: message.contentType,
    // Without an id: the broker may still remember the event's own id and take the copy for a duplicate.
    id: undefined,
    deadLetter: { of: message, reason },
  };
  try {
    publisher.allow({ broker, topic, raw: true });
    await publisher.send(broker, copy, limit.signal, "grpc");
  } catch (error) {
    throw new Error(`cannot dead-letter to topic ${topic}: ${asError(error).message}`, { cause: error });
  } finally {
    timer.cancel();
  }
}

function createRecord(
  parts: DeliveryParts,
): (answer: Answer, component: string, topic: string, latencyMs: number) => void {
  const { metrics, namespace } = parts;
  const labels = ["component", "namespace", "process_status", "status", "topic"];
  const count = metrics.count("component_pubsub_ingress_count", "Messages taken from a broker.", labels);
  const latency = metrics.latency("component_pubsub_ingress_latencies", "Time the app took, ms.", labels);
  return (answer, component, topic, latencyMs) => {
    // A drop that the app asked for is a successful call.
    const status = answer.kind === "drop" && answer.asked ? "success" : answer.kind;
    count(component, namespace, answer.kind, status, topic);
    latency(latencyMs, component, namespace, answer.kind, status, topic);
  };
}
