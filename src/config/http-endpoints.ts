/** The HTTPEndpoint resources of one sidecar, ready to be called. The TLS checks are loaded only when there is one. */
import type { EndpointSurroundings, HttpEndpoint, HttpEndpointResource } from "./kinds/http-endpoint.ts";
import type { Problem } from "./problem.ts";

export type { HttpEndpoint } from "./kinds/http-endpoint.ts";

/** Endpoints with an error are left out; their problems name file, line and fix. */
export async function resolveHttpEndpoints(
  resources: readonly HttpEndpointResource[],
  surroundings: EndpointSurroundings,
): Promise<{ readonly endpoints: readonly HttpEndpoint[]; readonly problems: readonly Problem[] }> {
  if (resources.length === 0) return { endpoints: [], problems: [] };
  const { resolveHttpEndpoint } = await import("./kinds/http-endpoint.ts");
  const resolved = await Promise.all(
    resources.map((resource) => resolveHttpEndpoint(resource, surroundings)),
  );
  return {
    endpoints: resolved.flatMap(({ endpoint }) => (endpoint === undefined ? [] : [endpoint])),
    problems: resolved.flatMap(({ problems }) => problems),
  };
}
