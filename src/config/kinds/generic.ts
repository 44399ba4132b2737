/**
 * A resource of a kind that is recognised but not used yet (MCPServer, ...): its header is checked, its spec is
 * kept as JSON data.
 */
import type { Origin } from "../problem.ts";

export interface GenericResource {
  readonly kind: string;
  readonly apiVersion: string;
  readonly name: string;
  readonly namespace: string | undefined;
  readonly scopes: readonly string[];
  readonly spec: unknown;
  readonly origin: Origin;
}
