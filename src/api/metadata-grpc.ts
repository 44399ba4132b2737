/** GetMetadata and SetMetadata over gRPC: the HTTP document in its protobuf shape. */
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { Dapr } from "../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { GetMetadataResponseSchema } from "../../proto/gen/dapr/proto/runtime/v1/metadata_pb.ts";
import { type GrpcMethod, unary } from "./grpc.ts";
import type { Metadata } from "./metadata.ts";

export function metadataGrpcMethods(metadata: Metadata): GrpcMethod[] {
  return [
    unary(Dapr.method.getMetadata, async () =>
      fromJson(GetMetadataResponseSchema, protoShape(metadata.document()), { ignoreUnknownFields: true }),
    ),
    unary(Dapr.method.setMetadata, async (request) => {
      metadata.set(request.key, request.value);
      return {};
    }),
  ];
}

type Rule = { readonly rules?: unknown };

/** Where proto-JSON differs from the HTTP document: rules are nested once more, addresses have another case. */
function protoShape(document: Readonly<Record<string, unknown>>): JsonValue {
  const subscriptions = document["subscriptions"] as readonly Rule[] | undefined;
  if (subscriptions === undefined) return document as JsonValue;
  const nested = subscriptions.map((item) =>
    item.rules === undefined ? item : Object.assign({}, item, { rules: { rules: item.rules } }),
  );
  return { ...document, subscriptions: nested } as JsonValue;
}
