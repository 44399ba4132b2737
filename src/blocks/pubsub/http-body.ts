/**
 * Bodies of the publish API over HTTP: the JSON of a bulk publish to its entries, and what failed to the answer.
 */
import { asError } from "../../lib/thrown.ts";
import type { HttpReply } from "../../api/http.ts";
import { decodeGoBase64 } from "../../lib/go-base64.ts";
import { decodeJson, goJson, goJsonInOrder } from "../../lib/go-json.ts";
import { jsonFields } from "../../lib/json-fields.ts";
import { placeOf } from "./bulk-publish.ts";
import type { BulkEntry, FailedEntry } from "./bulk-publish.ts";
import { cloudEventsType } from "./envelope.ts";
import { bulkRefused, publishFailedMessage } from "./errors.ts";
import { mediaType } from "./payload.ts";
import type { PublishTarget } from "./publish.ts";

const json = jsonFields((message) => new Error(message));

/** An entry as it stands in the body. */
type WrittenEntry = Omit<BulkEntry, "data"> & { readonly event: unknown };

/** Entries of a bulk publish. Throws ApiError when one of them cannot be used; ids are not looked at. */
export function decodeBulk(target: PublishTarget, appId: string, body: Buffer): BulkEntry[] {
  let items: WrittenEntry[];
  try {
    items = json.array(decodeJson(body.toString()), "the body").map(readEntry);
  } catch (error) {
    const message = `error when unmarshaling the request for ${placeOf(target)}: ${asError(error).message}`;
    throw bulkRefused(target.broker.name, appId, { reason: "UNMARSHAL_EVENTS", message });
  }
  try {
    return items.map(({ event, entryId, contentType, metadata }) => {
      return { entryId, contentType, metadata, data: eventBytes(event, contentType) };
    });
  } catch (error) {
    const cause = asError(error).message;
    const message = `error when marshalling cloud event envelope for ${placeOf(target)}: ${cause}`;
    throw bulkRefused(target.broker.name, appId, { reason: "MARSHAL_ENVELOPE", message, cause });
  }
}

function readEntry(item: unknown, index: number): WrittenEntry {
  const entry = json.fields(item, `entry ${index}`);
  const metadata = entry["metadata"] ?? undefined;
  return {
    entryId: json.text(entry["entryid"], `"entryId" of entry ${index}`),
    contentType: json.text(entry["contenttype"], `"contentType" of entry ${index}`),
    event: entry["event"] ?? null,
    metadata: metadata === undefined ? undefined : json.texts(metadata, `entry ${index}'s metadata`),
  };
}

/** Bytes of an event that stands inside a JSON body: how depends on what it says it is. */
function eventBytes(event: unknown, contentType: string): Buffer {
  const type = mediaType(contentType);
  if (type === "application/json" || type === cloudEventsType) return Buffer.from(goJson(event));
  if (typeof event === "string") {
    if (type.startsWith("text/") || type === "application/xml") return Buffer.from(event);
    if (type === "application/octet-stream") return fromBase64(event);
  }
  throw new Error("error: mismatch between contentType and event");
}

function fromBase64(text: string): Buffer {
  try {
    return decodeGoBase64(text);
  } catch (error) {
    const why = asError(error).message;
    throw new Error(`error: unable to decode base64 application/octect-stream data: ${why}`, {
      cause: error,
    });
  }
}

/** The answer that lists what failed; at least one entry. */
export function bulkFailedReply(target: PublishTarget, failed: readonly FailedEntry[]): HttpReply {
  const body = goJsonInOrder({ failedEntries: failed, errorCode: "ERR_PUBSUB_PUBLISH_MESSAGE" });
  const why = publishFailedMessage(target.broker.name, target.topic, new Error(failed[0]!.error));
  const headers = {
    "Content-Type": "application/json",
    "Metadata.responsedata": headerText(body),
    "Metadata.error": headerText(`api error: code = Internal desc = ${why}`),
  };
  return { status: 500, headers, body };
}

/** Header values hold neither line breaks nor characters beyond latin1; UTF-8 bytes do. */
function headerText(text: string): string {
  return Buffer.from(text.replace(/[\r\n]/g, " ")).toString("latin1");
}
