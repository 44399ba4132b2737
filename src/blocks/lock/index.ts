/** The lock block: the app takes and gives back locks over HTTP and gRPC, kept in the lock store components. */
import type { Block, BlockHost } from "../block.ts";
import { lockHttpRoutes } from "./http.ts";
import { Locks } from "./lock.ts";

export function lockBlock({ components, policies, options }: BlockHost): Block {
  const locks = new Locks({ components, policies, appId: options.appId });
  return {
    name: "lock",
    http: lockHttpRoutes(locks),
    grpc: async () => (await import("./grpc.ts")).lockGrpcMethods(locks),
  };
}
