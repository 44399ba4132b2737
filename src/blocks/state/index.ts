/** The state block: key/value state over HTTP and gRPC, kept in the state components. */
import type { Block, BlockHost } from "../block.ts";
import { stateHttpRoutes } from "./http.ts";
import type { OutboxOf } from "./outbox.ts";
import { stateExtensionRoutes } from "./http-extensions.ts";
import { openStateStores } from "./stores.ts";
import { Watches } from "./watches.ts";

/** Throws MetadataError when the metadata of a state component cannot be served. */
export function stateBlock(host: BlockHost, outboxOf: OutboxOf = () => undefined): Block {
  const stores = openStateStores(host, outboxOf);
  const watches = new Watches();
  return {
    name: "state",
    http: [...stateHttpRoutes(stores), ...stateExtensionRoutes(stores, watches, host.clock)],
    componentChanged: async ({ category, before, now }) => {
      if (category !== "state") return;
      if (before !== undefined) watches.endOf(before.resource.name);
      // What is odd about it is told with the change, not with the first call.
      if (now !== undefined) stores.store(now.resource.name);
    },
    stop: async () => watches.stop(),
    grpc: async () => (await import("./grpc.ts")).stateGrpcMethods(stores, watches),
  };
}
