/**
 * The state stores of a sidecar by component name: checks each component's own metadata once, at start, and
 * binds it to the calls of state.ts.
 */
import { propertyOf } from "../../components/component.ts";
import type { OpenComponent } from "../../components/open.ts";
import { formatPlace } from "../../config/problem.ts";
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
  /** Throws a plain Error when the component's metadata cannot be served. */
  check(component: OpenComponent<StateStore>): void;
};

/** Binds every loaded state component. Throws a plain Error naming the component when its metadata cannot be served. */
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
    check: (component) => void bind(component),
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

function prefixOf(component: OpenComponent<StateStore>, host: BlockHost): string {
  const { name } = component.resource;
  const strategy = propertyOf(component.properties, "keyPrefix");
  if (strategy !== undefined && holdsSeparator(strategy)) {
    const item = component.resource.metadata.find((it) => it.name.toLowerCase() === "keyprefix");
    const place = formatPlace(item?.origin ?? component.resource.origin);
    throw new Error(`state store ${name}: ${errors.illegalKeyText(strategy)} (${place})`);
  }
  return keyPrefix(strategy, {
    appId: host.options.appId,
    store: name,
    namespace: host.options.namespaceEnv,
  });
}
