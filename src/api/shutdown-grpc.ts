/** `Shutdown` over gRPC. */
import { Dapr } from "../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { type GrpcMethod, unary } from "./grpc.ts";
import type { ShutdownRequest } from "./shutdown.ts";

export function shutdownGrpcMethods(onRequest: ShutdownRequest): GrpcMethod[] {
  return [
    unary(Dapr.method.shutdown, async (_request, call) => {
      onRequest(call.metadata.get("dapr-force-shutdown")?.[0] === "true");
      return {};
    }),
  ];
}
