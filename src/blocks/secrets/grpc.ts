/** Methods of the secrets API over gRPC: decode, call secrets.ts, encode. */
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { type GrpcMethod, unary } from "../../api/grpc.ts";
import type { Secrets } from "./secrets.ts";

/** All gRPC methods of the block. */
export function secretGrpcMethods(secrets: Secrets): GrpcMethod[] {
  return [
    unary(Dapr.method.getSecret, async ({ storeName, key, metadata }, call) => {
      return { data: (await secrets.get(storeName, key, metadata, call.signal)) ?? {} };
    }),
    unary(Dapr.method.getBulkSecret, async ({ storeName, metadata }, call) => {
      const all = await secrets.getAll(storeName, metadata, call.signal);
      const data = Object.entries(all).map(([name, secret]) => [name, { secrets: secret }] as const);
      return { data: Object.fromEntries(data) };
    }),
  ];
}
