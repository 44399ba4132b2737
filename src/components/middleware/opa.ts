/** Rego policies need an evaluator that is not part of Weft (docs/decisions/0020): refused with what to do instead. */
import type { Middleware } from "../../middleware/port.ts";
import type { MetadataSchema } from "../component.ts";

export const type = "middleware.http.opa";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  rego: { kind: "string", description: "The policy" },
  defaultStatus: { kind: "integer", description: "Status of refusals" },
  includedHeaders: { kind: "string", description: "Request headers that the policy may see" },
  readBody: { kind: "boolean", description: "Whether the policy may see the body" },
} as const satisfies MetadataSchema;

export function open(): Promise<Middleware> {
  const instead =
    "ask an OPA server from the app, or use access control, API lists, middleware.http.bearer or middleware.http.wasm";
  throw new Error(
    `this version of Weft cannot evaluate Rego; ${instead}; then take the handler out of the pipeline`,
  );
}
