/** What a plug-in's failure of a state call means: ETag errors and errors with a status of their own. */
import { type DescMessage, fromBinary, toJson } from "@bufbuild/protobuf";
import { type Any, anyUnpack } from "@bufbuild/protobuf/wkt";
import { ApiError, type ErrorDetail, GrpcCode } from "../../api/errors.ts";
import { GrpcStatusError } from "../../api/grpc-status-error.ts";
import { EtagInvalid, EtagMismatch, StoreError } from "../../blocks/state/port.ts";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "../../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../../proto/gen/google/rpc/status_pb.ts";

/** The failure in the words of the port; anything else as it was. */
export function stateError(error: unknown): unknown {
  if (!(error instanceof GrpcStatusError) || error.details === undefined) return error;
  const { message, details } = fromBinary(StatusSchema, error.details);
  for (const detail of details) {
    const violations = anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? [];
    if (violations.length === 1 && violations[0]!.field === "etag") {
      const text = violations[0]!.description;
      if (error.code === GrpcCode.FailedPrecondition) return new EtagMismatch(text);
      if (error.code === GrpcCode.InvalidArgument) return new EtagInvalid(text);
    }
    const info = anyUnpack(detail, ErrorInfoSchema);
    const status = Number(info?.metadata["http_code"]);
    if (info?.metadata["kit_error"] !== "true" || !(status >= 400 && status <= 599)) continue;
    const api = new ApiError({
      code: info.metadata["tag"] ?? "ERROR",
      httpStatus: status,
      grpcCode: error.code as GrpcCode,
      message,
      details: details.map(detailOf).filter((one) => one !== undefined),
      grpcStatus: error.details,
      cause: error,
    });
    return new StoreError(api);
  }
  return error;
}

const knownDetails = {
  ErrorInfo: ErrorInfoSchema,
  ResourceInfo: ResourceInfoSchema,
  BadRequest: BadRequestSchema,
  Help: HelpSchema,
  RetryInfo: RetryInfoSchema,
} satisfies Record<ErrorDetail["type"], DescMessage>;

/** As errors over HTTP show it; undefined for a kind that they never have. */
function detailOf(any: Any): ErrorDetail | undefined {
  for (const [type, schema] of Object.entries(knownDetails)) {
    const message = anyUnpack(any, schema as DescMessage);
    if (message === undefined) continue;
    const fields = toJson(schema as DescMessage, message, {
      useProtoFieldName: true,
      alwaysEmitImplicit: true,
    });
    return { type: type as ErrorDetail["type"], fields: fields as Record<string, unknown> };
  }
  return undefined;
}
