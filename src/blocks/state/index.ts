/** The state block: key/value state over HTTP and gRPC, kept in the state components. */
import type { Block, BlockHost } from "../block.ts";
import { stateHttpRoutes } from "./http.ts";
import { openStateStores } from "./stores.ts";

/** Throws a plain Error when the metadata of a state component cannot be served. */
export function stateBlock(host: BlockHost): Block {
  const stores = openStateStores(host);
  return {
    name: "state",
    http: stateHttpRoutes(stores),
    grpc: async () => (await import("./grpc.ts")).stateGrpcMethods(stores),
  };
}
