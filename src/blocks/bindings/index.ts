/** The bindings block: events of the outside world for the app, and the app's calls to it. */
import type { Block, BlockHost } from "../block.ts";
import { openOutputs } from "./bindings.ts";
import { bindingRoutes } from "./http.ts";
import { createInputs } from "./input.ts";

export function bindingsBlock(host: BlockHost): Block {
  const outputs = openOutputs(host);
  const inputs = createInputs(host, outputs);
  return {
    name: "bindings",
    http: bindingRoutes(outputs),
    grpc: async () => (await import("./grpc.ts")).bindingMethods(outputs),
    appReady: () => inputs.start(),
    appUnready: (graceMs) => inputs.end(graceMs),
    componentChanged: (change, graceMs) => inputs.changed(change, graceMs),
    stop: (graceMs) => inputs.end(graceMs),
  };
}
