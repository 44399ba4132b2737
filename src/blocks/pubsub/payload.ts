/**
 * How the bytes that an app published stand in an envelope, by their content type.
 */
import { isUtf8 } from "node:buffer";
import { GoJsonError, goJson, parseJsonKeepNumbers } from "../../lib/go-json.ts";

// Printable ASCII without the quote, the backslash and the characters that Go escapes for HTML.
const plainString = /^[ !#-%'-;=?-[\]-~]*$/;

/** A string as JSON text; the common kind without a call of the writer. */
export function jsonString(value: string): string {
  return plainString.test(value) ? `"${value}"` : goJson(value);
}

/** Media type without parameters, in lower case. */
export function mediaType(contentType: string): string {
  const semicolon = contentType.indexOf(";");
  return (semicolon === -1 ? contentType : contentType.slice(0, semicolon)).toLowerCase();
}

/** The `data` or `data_base64` member of an envelope: JSON as it is (compact), bytes as base64, all else as text. */
export function dataMember(contentType: string, bytes: Buffer): string {
  // The common case first: no work on the media type at all.
  const type = contentType === "application/json" ? contentType : mediaType(contentType);
  if (type === "application/json") return `"data":${jsonOrText(bytes.toString())}`;
  return keptAsBytes(type, bytes)
    ? `"data_base64":"${bytes.toString("base64")}"`
    : `"data":${jsonString(bytes.toString())}`;
}

function keptAsBytes(type: string, bytes: Buffer): boolean {
  if (type === "application/octet-stream" || type === "application/cloudevents+protobuf") return true;
  return type === "application/x-protobuf" && isCloudEventMessage(bytes);
}

/** Apps do publish broken JSON under a JSON type; subscribers then get the text. */
function jsonOrText(text: string): string {
  try {
    return goJson(parseJsonKeepNumbers(text));
  } catch (error) {
    if (error instanceof GoJsonError) return jsonString(text);
    throw error;
  }
}

/** Fields of io.cloudevents.v1.CloudEvent that hold text. */
const textFields: ReadonlySet<number> = new Set([1, 2, 3, 4, 7]);

/**
 * Whether the bytes read as an io.cloudevents.v1.CloudEvent message: whole fields, texts in UTF-8. By hand, because
 * this is all that is needed of protobuf here and its library costs start time.
 */
function isCloudEventMessage(bytes: Buffer): boolean {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = bytes[at++];
      if (byte === undefined) return -1;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return -1;
  };
  while (at < bytes.length) {
    const tag = varint();
    const field = Math.floor(tag / 8);
    if (tag < 0 || field < 1 || field > 0x1fffffff) return false;
    const start = at;
    const wireType = tag % 8;
    if (wireType === 0 && varint() < 0) return false;
    if (wireType === 1) at += 8;
    if (wireType === 5) at += 4;
    if (wireType === 2) {
      const length = varint();
      if (length < 0 || at + length > bytes.length) return false;
      if (textFields.has(field) && !isUtf8(bytes.subarray(at, at + length))) return false;
      at += length;
    }
    if (wireType === 3 || wireType === 4 || wireType > 5 || at > bytes.length || at < start) return false;
  }
  return true;
}
