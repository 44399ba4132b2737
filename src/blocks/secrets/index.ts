/** The secrets block: the app reads secrets over HTTP and gRPC from the secret store components. */
import type { Block, BlockHost } from "../block.ts";
import { secretHttpRoutes } from "./http.ts";
import { Secrets } from "./secrets.ts";

export function secretsBlock(host: BlockHost): Block {
  const { components, clock, policies, metrics, log } = host;
  const scopes = host.configuration.secretScopes;
  const secrets = new Secrets({
    components,
    scopes,
    namespace: host.options.namespace,
    clock,
    policies,
    metrics,
    log,
  });
  return {
    name: "secrets",
    http: secretHttpRoutes(secrets),
    grpc: async () => (await import("./grpc.ts")).secretGrpcMethods(secrets),
  };
}
