/**
 * How the bytes that an app published stand in an envelope, by their content type.
 */
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { JsonTextError, canonicalJson, jsonString } from "./json-text.ts";

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
  return keptAsBytes(type, bytes) ? `"data_base64":"${bytes.toString("base64")}"` : `"data":${jsonString(bytes.toString())}`;
}

function keptAsBytes(type: string, bytes: Buffer): boolean {
  if (type === "application/octet-stream" || type === "application/cloudevents+protobuf") return true;
  return type === "application/x-protobuf" && isCloudEventMessage(bytes);
}

/** Apps do publish broken JSON under a JSON type; subscribers then get the text. */
function jsonOrText(text: string): string {
  try {
    return canonicalJson(text);
  } catch (error) {
    if (error instanceof JsonTextError) return jsonString(text);
    throw error;
  }
}

/** Fields of io.cloudevents.v1.CloudEvent that hold text. */
const textFields: ReadonlySet<number> = new Set([1, 2, 3, 4, 7]);

/** Whether the bytes read as an io.cloudevents.v1.CloudEvent message: well formed, its texts valid UTF-8. */
function isCloudEventMessage(bytes: Uint8Array): boolean {
  const reader = new BinaryReader(bytes);
  const text = new TextDecoder("utf-8", { fatal: true });
  try {
    while (reader.pos < reader.len) {
      const [field, wireType] = reader.tag();
      if (wireType === WireType.LengthDelimited) {
        const value = reader.bytes();
        if (textFields.has(field)) text.decode(value);
      } else {
        reader.skip(wireType, field);
      }
    }
    return reader.pos === reader.len;
  } catch {
    return false;
  }
}
