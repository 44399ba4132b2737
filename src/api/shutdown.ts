/** The shutdown API: asks the process to end gracefully, or at once with `dapr-force-shutdown: true`. */
import type { GrpcMethod } from "./grpc.ts";
import { noContent, type HttpRoute } from "./http.ts";

export type ShutdownRequest = (force: boolean) => void;

export function shutdownRoutes(onRequest: ShutdownRequest): HttpRoute[] {
  return [
    {
      verbs: ["POST"],
      path: "/v1.0/shutdown",
      name: "Shutdown",
      group: "shutdown",
      handle: (call) => {
        onRequest(call.headers["dapr-force-shutdown"] === "true");
        return noContent;
      },
    },
  ];
}

/** Loaded with the first gRPC connection. */
export async function shutdownMethods(onRequest: ShutdownRequest): Promise<GrpcMethod[]> {
  const { shutdownGrpcMethods } = await import("./shutdown-grpc.ts");
  return shutdownGrpcMethods(onRequest);
}
