/** The state block: key/value state over HTTP and gRPC, kept in the state components. */
import type { Block, BlockHost } from "../block.ts";
import type { OpenComponent } from "../../components/open.ts";
import { stateHttpRoutes } from "./http.ts";
import type { OutboxOf } from "./outbox.ts";
import type { StateStore } from "./port.ts";
import { openStateStores } from "./stores.ts";

/** Throws a plain Error when the metadata of a state component cannot be served. */
export function stateBlock(host: BlockHost, outboxOf: OutboxOf = () => undefined): Block {
  const stores = openStateStores(host, outboxOf);
  return {
    name: "state",
    http: stateHttpRoutes(stores),
    checkComponent: (category, component) => {
      if (category === "state") stores.check(component as OpenComponent<StateStore>);
    },
    grpc: async () => (await import("./grpc.ts")).stateGrpcMethods(stores),
  };
}
