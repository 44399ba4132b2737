/**
 * The state stores of a sidecar by component name: checks each component's own metadata once, at start, and
 * binds it to the calls of state.ts.
 */
import { MetadataError, propertyOf } from "../../components/component.ts";
import type { OpenComponent } from "../../components/open.ts";
import type { BlockHost } from "../block.ts";
import { encryptedStore, encryptionKeys } from "./encryption.ts";
import * as errors from "./errors.ts";
import { holdsSeparator, keyPrefix } from "./key-prefix.ts";
import type { OutboxOf } from "./outbox.ts";
import type { StateStore } from "./port.ts";
import { NamedStore, type Recorder } from "./state.ts";

/** The state stores of this sidecar, by name. */
export type StateStores = {
  /** Throws ERR_STATE_STORE_NOT_CONFIGURED or ERR_STATE_STORE_NOT_FOUND. */
  store(name: string): NamedStore;
};

/** Binds every loaded state component. Throws MetadataError when the metadata of one cannot be served. */
export function openStateStores(host: BlockHost, outboxOf: OutboxOf): StateStores {
  const labels = ["component", "namespace", "operation", "success"];
  const recorder: Recorder = {
    clock: host.clock,
    namespace: host.options.namespace,
    count: host.metrics.count("component_state_count", "Calls of state stores.", labels),
    latency: host.metrics.latency("component_state_latencies", "Time of calls of state stores, ms.", labels),
  };
  // Weak, so that a component that is replaced takes its binding along.
  const bound = new WeakMap<OpenComponent<StateStore>, NamedStore>();
  const bind = (component: OpenComponent<StateStore>): NamedStore => {
    const { name } = component.resource;
    const guard = host.policies.component(name, "Statestore", "outbound");
    const parts = { recorder, guard, outbox: outboxOf(component) };
    const store = new NamedStore(name, portOf(component), prefixOf(component, host), parts);
    bound.set(component, store);
    return store;
  };
  for (const component of host.components.all<StateStore>("state")) bind(component);
  return {
    store(name) {
      const component = host.components.get<StateStore>("state", name);
      if (component !== undefined) return bound.get(component) ?? bind(component);
      const { appId } = host.options;
      if (host.components.all("state").length === 0) throw errors.storesNotConfigured(name, appId);
      throw errors.storeNotFound(name, appId);
    },
  };
}

function portOf({ resource, port, properties }: OpenComponent<StateStore>): StateStore {
  const keys = encryptionKeys(resource, properties);
  return keys === undefined ? port : encryptedStore(port, keys, resource.name);
}

/** Throws MetadataError when the component's metadata cannot be served. */
export function checkStateStore({ resource, properties }: OpenComponent): void {
  encryptionKeys(resource, properties);
  strategyOf(properties);
}

function prefixOf({ resource, properties }: OpenComponent, { options }: BlockHost): string {
  return keyPrefix(strategyOf(properties), {
    appId: options.appId,
    store: resource.name,
    namespace: options.namespaceEnv,
  });
}

/** Metadata `keyPrefix`. */
function strategyOf(properties: OpenComponent["properties"]): string | undefined {
  const strategy = propertyOf(properties, "keyPrefix");
  if (strategy !== undefined && holdsSeparator(strategy))
    throw new MetadataError("keyPrefix", errors.illegalKeyText(strategy));
  return strategy;
}
