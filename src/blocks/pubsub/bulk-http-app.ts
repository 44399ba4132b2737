/** Delivers batches of events to an app that speaks HTTP, and reads what became of each entry. */
import type { AppChannel, AppHttpResponse } from "../../app/channel.ts";
import { goJson } from "../../lib/go-json.ts";
import type { Answer } from "./answer.ts";
import { dropAsked, dropLost, retry, success } from "./answer.ts";
import { bulkEventType } from "./bulk-delivery.ts";
import type { BulkEvents, BulkItem, DeliverBulk } from "./bulk-delivery.ts";
import { cloudEventsType } from "./envelope.ts";
import { member, targetOf } from "./http-app.ts";

/** Bytes of an app's refusal that are told. */
const shownBytes = 300;

export function deliverBulkToHttpApp(app: AppChannel): DeliverBulk {
  return async (events, path, signal) => {
    const request = {
      verb: "POST",
      path: targetOf(path),
      headers: ["Content-Type", "application/json"],
      body: Buffer.from(encode(events)),
    };
    return readResponse(await app.http(request, signal));
  };
}

function encode({ id, pubsub, topic, raw, items }: BulkEvents): string {
  return goJson({
    id,
    topic,
    type: bulkEventType,
    pubsubname: pubsub,
    metadata: { pubsubName: pubsub },
    entries: items.map((item) => encodeEntry(item, raw)),
  });
}

function encodeEntry({ entryId, event, message }: BulkItem, raw: boolean): Record<string, unknown> {
  const metadata = Object.keys(message.metadata).length === 0 ? null : message.metadata;
  if (!raw) {
    const contentType = message.contentType ?? cloudEventsType;
    return { entryId, event: event.attributes, metadata, contentType };
  }
  const { data } = message;
  return {
    entryId,
    event: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64"),
    metadata,
    contentType: message.contentType ?? "application/octet-stream",
  };
}

/** 404 says that nobody wants the events; any other failure, and a body without statuses, that none was handled. */
function readResponse({ status, body }: AppHttpResponse): ReadonlyMap<string, Answer> | Answer {
  if (status === 404) return dropLost;
  if (status < 200 || status > 299) {
    const text = `the app answered status ${status}: ${body.toString("utf8", 0, shownBytes)}`;
    return retry(text, { kind: "http", code: status });
  }
  return readStatuses(body.toString());
}

function readStatuses(text: string): ReadonlyMap<string, Answer> {
  const answers = new Map<string, Answer>();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return answers;
  }
  const statuses = member(value, "statuses");
  for (const entry of Array.isArray(statuses) ? statuses : []) {
    const id = member(entry, "entryid");
    if (typeof id === "string") answers.set(id, answerOf(member(entry, "status")));
  }
  return answers;
}

function answerOf(status: unknown): Answer {
  if (status === "SUCCESS") return success;
  if (status === "DROP") return dropAsked;
  if (status === "RETRY") return retry("the app asked for RETRY");
  return retry(
    `the app gave the entry the unknown status ${JSON.stringify(status)}: use SUCCESS, RETRY or DROP`,
  );
}
