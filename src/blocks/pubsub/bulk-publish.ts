/**
 * Publishing many events in one request. Each gets its own envelope; components take them one by one, many at once.
 */
import { eachAtMost } from "../../lib/each-at-most.ts";
import { bulkRefused } from "./errors.ts";
import type { PublishMessage } from "./port.ts";
import { asError } from "./publish.ts";
import type { PublishTarget, Publisher } from "./publish.ts";
import type { TraceContext } from "./trace.ts";

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
  ): Promise<FailedEntry[] | undefined>;
};

/** Entries on their way to the broker at once. */
const maxParallel = 100;

export function createBulkPublisher(publisher: Publisher, appId: string): BulkPublisher {
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
    async publish(target, request, signal) {
      const messages = request.entries.map((entry) => wrapEntry(publisher, target, entry, request));
      publisher.allow(target);
      const failed: FailedEntry[] = [];
      await eachAtMost(messages, maxParallel, async (message, index) => {
        try {
          await publisher.send(target.broker, message, signal);
        } catch (error) {
          failed.push({ entryId: request.entries[index]!.entryId, error: asError(error).message });
        }
      });
      return failed.length === 0 ? undefined : failed;
    },
  };
}

function wrapEntry(
  publisher: Publisher,
  target: PublishTarget,
  entry: BulkEntry,
  request: BulkRequest,
): PublishMessage {
  const { data, contentType } = entry;
  const metadata = entry.metadata === undefined ? {} : { ...request.metadata, ...entry.metadata };
  return publisher.wrap(target, { data, contentType, metadata, trace: request.trace });
}

/** Where a bulk publish goes, as its refusals say it. */
export function placeOf(target: PublishTarget): string {
  return `topic ${target.topic} pubsub ${target.broker.name}`;
}
