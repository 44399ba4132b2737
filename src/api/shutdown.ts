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
        onRequest(isForce(call.headers["dapr-force-shutdown"]));
        return noContent;
      },
    },
  ];
}

/** What the header or metadata says, in any letter case. */
export function isForce(value: string | string[] | undefined): boolean {
  return typeof value === "string" && value.toLowerCase() === "true";
}

/** Loaded with the first gRPC connection. */
export async function shutdownMethods(onRequest: ShutdownRequest): Promise<GrpcMethod[]> {
  const { shutdownGrpcMethods } = await import("./shutdown-grpc.ts");
  return shutdownGrpcMethods(onRequest);
}
