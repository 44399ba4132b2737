/**
 * Publishing many events in one request. Each gets its own envelope; components that have no call for many take them
 * one by one, many at once.
 */
import { asError } from "../../lib/thrown.ts";
import { eachAtMost } from "../../lib/each-at-most.ts";
import { callUnder } from "../../resiliency/policy.ts";
import { PolicyStop } from "../../resiliency/stop.ts";
import type { Broker } from "./broker.ts";
import { bulkRefused } from "./errors.ts";
import type { PublishBatch, PubSub } from "./port.ts";
import { judgePublish, type Via } from "./policy.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { Span } from "../../telemetry/tracing/span.ts";
import type { BlockHost } from "../block.ts";
import type { Tracer } from "../../telemetry/tracing/tracer.ts";
import type { PublishTarget, Publisher } from "./publish.ts";
import type { TraceContext } from "../../telemetry/tracing/trace-context.ts";

type Metadata = Readonly<Record<string, string>>;

export type BulkEntry = {
  readonly entryId: string;
  readonly data: Buffer;
  readonly contentType: string;
  /** Undefined when the entry has none of its own; then it gets none of the request either. */
  readonly metadata: Metadata | undefined;
};

export type BulkRequest = {
  readonly entries: readonly BulkEntry[];
  readonly metadata: Metadata;
  readonly trace: TraceContext;
  /** Of the request; its entries have spans below it. Undefined when tracing is off. */
  readonly span: Span | undefined;
};

export type FailedEntry = { readonly entryId: string; readonly error: string };

export type BulkPublisher = {
  /** Stands in the details of refusals. */
  readonly appId: string;
  /** Throws ApiError for a missing or repeated entry id. */
  checkIds(target: PublishTarget, entries: readonly BulkEntry[]): void;
  /** Entries that the broker did not take; undefined when it took all. Rejects with ApiError when none was tried. */
  publish(
    target: PublishTarget,
    request: BulkRequest,
    signal: AbortSignal,
    via: Via,
  ): Promise<FailedEntry[] | undefined>;
};

/** Entries on their way to the broker at once. */
const maxParallel = 100;

export function createBulkPublisher(
  publisher: Publisher,
  appId: string,
  host: Pick<BlockHost, "tracing" | "metrics" | "clock">,
  namespace: string,
): BulkPublisher {
  const { tracing, clock } = host;
  const record = createRecord(host.metrics, namespace);
  return {
    appId,
    checkIds(target, entries) {
      const ids = new Set(entries.map((entry) => entry.entryId));
      if (ids.size === entries.length && !ids.has("")) return;
      const cause = "entryId is duplicated or not present for entry";
      const message = `error marshaling events to bytes for ${placeOf(target)}. error: ${cause}`;
      throw bulkRefused(target.broker.name, appId, {
        reason: "MARSHAL_EVENTS",
        message,
        cause: `error: ${cause}`,
      });
    },
    async publish(target, request, signal, via) {
      const spans = request.entries.map(() => entrySpan(tracing.tracer, request.span));
      const entries = request.entries.map((entry, i) =>
        wrapEntry(publisher, target, entry, { ...request, span: spans[i] }),
      );
      publisher.allow(target);
      const startMs = clock.monotonicMs();
      const accepted = (index: number): void => spans[index]?.end();
      const batch = { topic: target.broker.stored(target.topic), entries, metadata: request.metadata };
      const errors = await sendAll(target.broker, batch, signal, via, accepted);
      const failed = [...errors].map(([index, error]): FailedEntry => {
        spans[index]?.fail(error.message);
        spans[index]?.end();
        return { entryId: request.entries[index]!.entryId, error: error.message };
      });
      record(target, failed.length === 0, clock.monotonicMs() - startMs);
      return failed.length === 0 ? undefined : failed;
    },
  };
}

/**
 * Errors of the messages that the broker did not take, by their place. Under a policy of the component only those are
 * sent again; when it ends the call, all that are left have failed.
 */
async function sendAll(
  broker: Broker,
  batch: PublishBatch,
  signal: AbortSignal,
  via: Via,
  accepted: (index: number) => void,
): Promise<ReadonlyMap<number, Error>> {
  const send = broker.port.publishMany === undefined ? sendSingly : sendTogether;
  let left: readonly number[] = batch.entries.map((_, index) => index);
  let failed: ReadonlyMap<number, Error> = new Map();
  const attempt = async (now: AbortSignal): Promise<void> => {
    const isLate = (): boolean => now.aborted && !signal.aborted;
    const found = await send(broker.port, batch, left, now, (index) => {
      if (!isLate()) accepted(index);
    });
    // What comes after the time of this attempt is of no use: the messages are on their way again.
    if (isLate()) return;
    failed = found;
    left = [...found.keys()];
    for (const error of found.values()) throw error;
  };
  try {
    await callUnder(broker.outbound, signal, attempt, judgePublish[via]);
  } catch (error) {
    if (error instanceof PolicyStop) return new Map(left.map((index) => [index, error]));
  }
  return failed;
}

type Send = (
  port: PubSub,
  batch: PublishBatch,
  left: readonly number[],
  signal: AbortSignal,
  accepted: (index: number) => void,
) => Promise<ReadonlyMap<number, Error>>;

const sendSingly: Send = async (port, { entries }, left, signal, accepted) => {
  const found = new Map<number, Error>();
  await eachAtMost(left, maxParallel, async (index) => {
    try {
      await port.publish(entries[index]!.message, signal);
      accepted(index);
    } catch (error) {
      found.set(index, asError(error));
    }
  });
  return found;
};

const sendTogether: Send = async (port, batch, left, signal, accepted) => {
  const entries = left.map((index) => batch.entries[index]!);
  const found = new Map<number, Error>();
  try {
    const errors = await port.publishMany!({ ...batch, entries }, signal);
    for (const index of left) {
      const error = errors.get(batch.entries[index]!.entryId);
      if (error === undefined) accepted(index);
      else found.set(index, error);
    }
  } catch (error) {
    for (const index of left) found.set(index, asError(error));
  }
  return found;
};

function wrapEntry(
  publisher: Publisher,
  target: PublishTarget,
  entry: BulkEntry,
  request: BulkRequest,
): PublishBatch["entries"][number] {
  const { entryId, data, contentType } = entry;
  const metadata = entry.metadata === undefined ? {} : { ...request.metadata, ...entry.metadata };
  const { span } = request;
  const trace =
    span?.valid === true
      ? { traceparent: span.traceparent, tracestate: request.trace.tracestate }
      : request.trace;
  return { entryId, contentType, message: publisher.wrap(target, { data, contentType, metadata, trace }) };
}

function createRecord(
  metrics: Metrics,
  namespace: string,
): (target: PublishTarget, success: boolean, latencyMs: number) => void {
  const labels = ["component", "namespace", "success", "topic"];
  const name = "component_pubsub_egress_bulk";
  const count = metrics.count(`${name}_count`, "Bulk publishes.", labels);
  const latency = metrics.latency(
    `${name}_latencies`,
    "Time the broker took for a bulk publish, ms.",
    labels,
  );
  return ({ broker, topic }, success, latencyMs) => {
    count(broker.name, namespace, String(success), topic);
    latency(latencyMs, broker.name, namespace, String(success), topic);
  };
}

function entrySpan(tracer: Tracer | undefined, request: Span | undefined): Span | undefined {
  return tracer === undefined || request === undefined
    ? undefined
    : tracer.child(request.name, "producer", request);
}

/** Where a bulk publish goes, as its refusals say it. */
export function placeOf(target: PublishTarget): string {
  return `topic ${target.topic} pubsub ${target.broker.name}`;
}
