/**
 * google.rpc.Status in its two written forms: the binary one of `grpc-status-details-bin` and proto-JSON for HTTP
 * callers of gRPC apps. The generated messages are loaded at the first error, not at boot.
 */
import type { ErrorDetail } from "./errors.ts";
import { goJson } from "../lib/go-json.ts";

/**
 * Binary google.rpc.Status with its details packed as Any. Rejects for fields that the detail's message does not
 * have.
 */
export async function encodeStatus(
  code: number,
  message: string,
  details: readonly ErrorDetail[],
): Promise<Uint8Array> {
  const { proto, wkt, types, status } = await messages();
  const schemas = {
    ErrorInfo: types.ErrorInfoSchema,
    ResourceInfo: types.ResourceInfoSchema,
    BadRequest: types.BadRequestSchema,
    Help: types.HelpSchema,
    RetryInfo: types.RetryInfoSchema,
  };
  const packed = details.map(({ type, fields }) => {
    const schema = schemas[type];
    return wkt.anyPack(schema, proto.fromJson(schema, fields as Parameters<typeof proto.fromJson>[1]));
  });
  return proto.toBinary(
    status.StatusSchema,
    proto.create(status.StatusSchema, { code, message, details: packed }),
  );
}

/**
 * `{"code":5,"message":"…","details":[…]}` of a gRPC outcome; empty parts are left out. Details of unknown types are
 * given as `{"@type":…,"value":<base64>}`.
 */
export async function statusJson(
  code: number,
  message: string,
  details: Uint8Array | undefined,
): Promise<string> {
  const plain: Record<string, unknown> = {};
  if (code !== 0) plain["code"] = code;
  if (message !== "") plain["message"] = message;
  const list = details === undefined ? [] : await detailsJson(details);
  if (list.length > 0) plain["details"] = list;
  return `{${Object.entries(plain)
    .map(([name, value]) => `${goJson(name)}:${goJson(value)}`)
    .join(",")}}`;
}

async function detailsJson(details: Uint8Array): Promise<unknown[]> {
  const { proto, wkt, types, status } = await messages();
  const registry = proto.createRegistry(types.file_google_rpc_error_details);
  let parsed;
  try {
    parsed = proto.fromBinary(status.StatusSchema, details);
  } catch {
    return [];
  }
  return parsed.details.map((any) => {
    try {
      return proto.toJson(wkt.AnySchema, any, { registry });
    } catch {
      return { "@type": any.typeUrl, value: Buffer.from(any.value).toString("base64") };
    }
  });
}

async function messages() {
  const [proto, wkt, types, status] = await Promise.all([
    import("@bufbuild/protobuf"),
    import("@bufbuild/protobuf/wkt"),
    import("../../proto/gen/google/rpc/error_details_pb.ts"),
    import("../../proto/gen/google/rpc/status_pb.ts"),
  ]);
  return { proto, wkt, types, status };
}
