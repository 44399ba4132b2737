/**
 * How an InvokeService call travels in a MeshRequest: the caller does not know whether the app speaks HTTP or gRPC, so
 * its metadata goes unfiltered, with what HTTP has no place for under names that never reach an app.
 * The headers of such a request are: all metadata (wire form, `:authority` included), `content-type` = the message's
 * content type, `weft-grpc-method` = the method as the gRPC app shall see it, `weft-data-type` = the type URL.
 */
import { encodeValue, type Metadata } from "../lib/grpc-wire.ts";
import { upgradeName } from "./upgrade.ts";

const methodName = "weft-grpc-method";
const dataTypeName = "weft-data-type";

export type GrpcCaller = {
  /** With leading slash, not percent-encoded. */
  readonly method: string;
  readonly contentType: string;
  /** `type_url` of the data; empty when there is none. */
  readonly dataType: string;
};

/** Header pairs of a gRPC caller's MeshRequest. The transport's own `content-type` and `te` are left out. */
export function grpcCallerHeaders(metadata: Metadata, caller: GrpcCaller): string[] {
  const pairs: string[] = [methodName, encodeURIComponent(caller.method.toWellFormed())];
  if (caller.dataType !== "") pairs.push(dataTypeName, caller.dataType);
  if (caller.contentType !== "") pairs.push("content-type", caller.contentType);
  for (const [name, values] of metadata) {
    if (name === "content-type" || name === "te" || isMeshOnly(name)) continue;
    for (const value of values) {
      const text = encodeValue(name, value);
      if (text !== undefined) pairs.push(name, text);
    }
  }
  return pairs;
}

/** The gRPC fields of a MeshRequest's headers; undefined when the caller spoke HTTP. */
export function readGrpcCaller(headers: readonly string[]): GrpcCaller | undefined {
  const method = valueOf(headers, methodName);
  if (method === undefined) return undefined;
  return {
    method: decoded(method),
    contentType: valueOf(headers, "content-type") ?? "",
    dataType: valueOf(headers, dataTypeName) ?? "",
  };
}

/** Header pairs without those that only sidecars understand. */
export function withoutMeshOnly(headers: readonly string[]): readonly string[] {
  let found = false;
  for (let i = 0; i < headers.length; i += 2) found ||= isMeshOnly(headers[i]!);
  if (!found) return headers;
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (!isMeshOnly(headers[i]!)) kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

/** The pair that tells a gRPC caller the type URL of a gRPC app's answer. */
export function dataTypePair(dataType: string): string[] {
  return dataType === "" ? [] : [dataTypeName, dataType];
}

/** Type URL of the data of a gRPC app's answer; empty when there is none. */
export function readDataType(headers: readonly string[]): string {
  return valueOf(headers, dataTypeName) ?? "";
}

function isMeshOnly(name: string): boolean {
  const lower = name.toLowerCase();
  return lower === methodName || lower === dataTypeName || lower === upgradeName;
}

function valueOf(headers: readonly string[], name: string): string | undefined {
  for (let i = 0; i + 1 < headers.length; i += 2)
    if (headers[i]!.toLowerCase() === name) return headers[i + 1];
  return undefined;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
