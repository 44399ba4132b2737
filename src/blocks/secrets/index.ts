/** The secrets block: the app reads secrets over HTTP and gRPC from the secret store components. */
import type { Block, BlockHost } from "../block.ts";
import { secretHttpRoutes } from "./http.ts";
import { Secrets } from "./secrets.ts";

export function secretsBlock(host: BlockHost): Block {
  const { components, clock, policies, metrics, log } = host;
  const secrets = new Secrets({
    components,
    namespace: host.options.namespace,
    clock,
    policies,
    metrics,
    log,
  });
  secrets.setScopes(host.configuration.secretScopes);
  return {
    name: "secrets",
    http: secretHttpRoutes(secrets),
    grpc: async () => (await import("./grpc.ts")).secretGrpcMethods(secrets),
    configurationChanged: ({ secretScopes }) => secrets.setScopes(secretScopes),
  };
}
