/** What a secret store component is opened with, without a sidecar around it. */
import { type Mesh, systemClock } from "../../mesh/index.ts";
import type { ComponentContext, MetadataSchema } from "../../src/components/component.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import { silentLog } from "./silent-log.ts";

export function secretContext<S extends MetadataSchema>(
  schema: S,
  properties: Readonly<Record<string, string>>,
  env: Readonly<Record<string, string>> = {},
): ComponentContext<S> {
  return {
    name: "secrets",
    type: "secretstores.tested",
    version: "v1",
    appId: "contract",
    namespace: "default",
    metadata: readMetadata(schema, "secretstores", properties).values,
    properties,
    env,
    mesh: undefined as unknown as Mesh,
    clock: systemClock,
    log: silentLog,
    signal: new AbortController().signal,
  };
}
