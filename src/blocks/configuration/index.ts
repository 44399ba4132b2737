/** The configuration block: the app reads settings and hears of their changes, from the configuration stores. */
import type { Block, BlockHost } from "../block.ts";
import { Configurations } from "./configuration.ts";
import { openTellApp } from "./http-app.ts";
import { configurationHttpRoutes } from "./http.ts";

export function configurationBlock(host: BlockHost): Block {
  const { components, clock, policies, metrics, app, options } = host;
  const log = host.log.scope("dapr.runtime.configuration");
  const { namespace } = options;
  const configurations = new Configurations({ components, namespace, clock, policies, metrics, log });
  const ending = new AbortController();
  const tell = app.protocol === "none" ? undefined : openTellApp(app, policies, log, ending.signal);
  return {
    name: "configuration",
    http: configurationHttpRoutes(configurations, tell),
    grpc: async () => (await import("./grpc.ts")).configurationGrpcMethods(configurations),
    async componentChanged(change) {
      if (change.category === "configuration") await configurations.changed(change);
    },
    async stop() {
      ending.abort(new Error("the sidecar stops"));
      await configurations.stop();
    },
  };
}
