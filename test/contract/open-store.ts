/** Opens a state component from its metadata as texts, without a sidecar around it. */
import { type Clock, type Mesh, systemClock } from "../../mesh/index.ts";
import type { StateStore } from "../../src/blocks/state/port.ts";
import type { ComponentContext, ComponentFile } from "../../src/components/component.ts";
import { readMetadata } from "../../src/components/metadata.ts";
import { silentLog } from "./silent-log.ts";

export type OpenStoreOptions = {
  readonly properties?: Readonly<Record<string, string>>;
  readonly version?: string;
  readonly mesh?: Mesh;
  readonly clock?: Clock;
};

/** Rejects as the component's `open` does. */
export function openStore(
  file: Pick<ComponentFile, "type" | "versions" | "metadataSchema"> & {
    open(context: never): Promise<StateStore>;
  },
  { properties = {}, version, mesh, clock }: OpenStoreOptions = {},
): Promise<StateStore> {
  const context: ComponentContext = {
    name: "store",
    type: file.type,
    version: version ?? file.versions[0]!,
    appId: "contract",
    namespace: "default",
    metadata: readMetadata(file.metadataSchema, "state", properties).values,
    properties,
    mesh: mesh ?? (undefined as unknown as Mesh),
    clock: clock ?? mesh?.clock ?? systemClock,
    log: silentLog,
    env: {},
    signal: new AbortController().signal,
  };
  return file.open(context as never);
}
