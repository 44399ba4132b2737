/**
 * Publishing many events in one request. Each gets its own envelope; components take them one by one, many at once.
 */
import type { HttpReply } from "../../api/http.ts";
import { decodeJson, goJson } from "../../lib/go-json.ts";
import { cloudEventsType } from "./envelope.ts";
import { bulkRefused, publishFailedMessage } from "./errors.ts";
import { mediaType } from "./payload.ts";
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
  /** Entries of an HTTP body. Throws ApiError when one of them cannot be used. */
  readEntries(target: PublishTarget, body: Buffer): BulkEntry[];
  /** Throws ApiError for a missing or repeated entry id. */
  checkIds(target: PublishTarget, entries: readonly BulkEntry[]): void;
  /** Entries that the broker did not take; undefined when it took all. Rejects with ApiError when none was tried. */
  publish(
    target: PublishTarget,
    request: BulkRequest,
    signal: AbortSignal,
  ): Promise<FailedEntry[] | undefined>;
  /** The HTTP answer that lists what failed. */
  failedReply(target: PublishTarget, failed: readonly FailedEntry[]): HttpReply;
};

/** Entries on their way to the broker at once. */
const maxParallel = 100;

export function createBulkPublisher(publisher: Publisher, appId: string): BulkPublisher {
  const checkIds: BulkPublisher["checkIds"] = (target, entries) => {
    const ids = new Set(entries.map((entry) => entry.entryId));
    if (ids.size === entries.length && !ids.has("")) return;
    const cause = "entryId is duplicated or not present for entry";
    const message = `error marshaling events to bytes for ${place(target)}. error: ${cause}`;
    throw bulkRefused(target.broker.name, appId, {
      reason: "MARSHAL_EVENTS",
      message,
      cause: `error: ${cause}`,
    });
  };
  return {
    checkIds,
    readEntries(target, body) {
      const entries = readBody(target, body, appId);
      checkIds(target, entries);
      return entries;
    },
    async publish(target, request, signal) {
      const messages = request.entries.map((entry) => wrapEntry(publisher, target, entry, request));
      publisher.allow(target);
      const failed: FailedEntry[] = [];
      let next = 0;
      const work = async (): Promise<void> => {
        while (next < messages.length) {
          const at = next++;
          try {
            await publisher.send(target.broker, messages[at]!, signal);
          } catch (error) {
            failed.push({ entryId: request.entries[at]!.entryId, error: asError(error).message });
          }
        }
      };
      await Promise.all(Array.from({ length: Math.min(maxParallel, messages.length) }, work));
      return failed.length === 0 ? undefined : failed;
    },
    failedReply(target, failed) {
      const body = goJson({ failedEntries: failed, errorCode: "ERR_PUBSUB_PUBLISH_MESSAGE" });
      const why = publishFailedMessage(target.broker.name, target.topic, new Error(failed[0]!.error));
      const headers = {
        "Content-Type": "application/json",
        "Metadata.responsedata": headerText(body),
        "Metadata.error": headerText(`api error: code = Internal desc = ${why}`),
      };
      return { status: 500, headers, body };
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

function place(target: PublishTarget): string {
  return `topic ${target.topic} pubsub ${target.broker.name}`;
}

/** What makes one entry's event unusable, in the words of the API. */
class EntryProblem extends Error {}

function readBody(target: PublishTarget, body: Buffer, appId: string): BulkEntry[] {
  let items: unknown[];
  try {
    const value = decodeJson(body.toString());
    if (value !== null && !Array.isArray(value)) throw new Error("the body must be a JSON array of entries");
    items = (value as unknown[] | null) ?? [];
  } catch (error) {
    const message = `error when unmarshaling the request for ${place(target)}: ${asError(error).message}`;
    throw bulkRefused(target.broker.name, appId, { reason: "UNMARSHAL_EVENTS", message });
  }
  try {
    return items.map(readEntry);
  } catch (error) {
    const cause = asError(error).message;
    const message = `error when marshalling cloud event envelope for ${place(target)}: ${cause}`;
    throw bulkRefused(target.broker.name, appId, { reason: "MARSHAL_ENVELOPE", message, cause });
  }
}

function readEntry(item: unknown): BulkEntry {
  if (typeof item !== "object" || item === null || Array.isArray(item))
    throw new EntryProblem("an entry must be an object");
  const members = new Map(
    Object.entries(item).map(([name, value]) => [name.toLowerCase(), value as unknown]),
  );
  const contentType = textMember(members, "contenttype");
  const given = members.get("metadata");
  const metadata = given === undefined || given === null ? undefined : stringMembers(given);
  return {
    entryId: textMember(members, "entryid"),
    contentType,
    data: eventBytes(members.get("event") ?? null, contentType),
    metadata,
  };
}

function textMember(members: ReadonlyMap<string, unknown>, name: string): string {
  const value = members.get(name) ?? "";
  if (typeof value !== "string") throw new EntryProblem(`${name} must be a string`);
  return value;
}

function stringMembers(value: unknown): Metadata {
  const entries = Object.entries(value as object);
  if (typeof value !== "object" || entries.some(([, text]) => typeof text !== "string")) {
    throw new EntryProblem("metadata must be an object of strings");
  }
  return Object.fromEntries(entries as [string, string][]);
}

/** Bytes of an event that stands inside a JSON body: how depends on what it says it is. */
function eventBytes(event: unknown, contentType: string): Buffer {
  const type = mediaType(contentType);
  if (type === "application/json" || type === cloudEventsType) return Buffer.from(goJson(event));
  if (typeof event === "string") {
    if (type.startsWith("text/") || type === "application/xml") return Buffer.from(event);
    if (type === "application/octet-stream") return fromBase64(event);
  }
  throw new EntryProblem("error: mismatch between contentType and event");
}

function fromBase64(text: string): Buffer {
  const bytes = Buffer.from(text, "base64");
  if (bytes.toString("base64") === text) return bytes;
  throw new EntryProblem(
    "error: unable to decode base64 application/octect-stream data: illegal base64 data",
  );
}

/** Header values hold neither line breaks nor characters beyond latin1; UTF-8 bytes do. */
function headerText(text: string): string {
  return Buffer.from(text.replace(/[\r\n]/g, " ")).toString("latin1");
}
