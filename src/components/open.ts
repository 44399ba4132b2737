/**
 * Opens the components of the resource files and holds them by category and name: secret stores first, the rest in
 * file order. Which file serves a type comes from the generated list, so nobody pays for a client that is not used.
 */
import type { SecretStore } from "../blocks/secrets/port.ts";
import {
  componentLabel,
  isDenied,
  type ComponentResource,
  type SecretSource,
} from "../config/kinds/component.ts";
import type { CountFamily, Metrics } from "../telemetry/metrics.ts";
import { categoryOf } from "./categories.ts";
import { ComponentFailure, placeOf } from "./failure.ts";
import {
  defaultSecretStore,
  loadComponent,
  type Closable,
  type LoadInit,
  type OpenComponent,
} from "./load.ts";

export type { OpenComponent } from "./load.ts";

export type OpenComponents = {
  /** Component of a category (`state`, `pubsub`, …) by its name. */
  get<P>(category: string, name: string): OpenComponent<P> | undefined;
  /** All of a category, in load order. */
  all<P>(category: string): readonly OpenComponent<P>[];
};

export type ComponentsInit = Omit<LoadInit, "secretStore"> & {
  readonly resources: readonly ComponentResource[];
  readonly metrics: Metrics;
  /** `spec.components.deny` of the Configuration: `<type>` or `<type>/<version>`; none when not given. */
  readonly deny?: readonly string[];
};

export type RunningComponents = OpenComponents & {
  list(): readonly OpenComponent[];
  /** For references of resources that are no components. */
  readonly secrets: SecretSource;
  close(): Promise<void>;
};

/** Rejects with Dapr's text when a component fails without `ignoreErrors`; those opened before it are closed again. */
export async function openComponents(init: ComponentsInit): Promise<RunningComponents> {
  const components = new Components(init);
  try {
    for (const resource of inLoadOrder(init.resources)) await components.add(resource);
  } catch (error) {
    await components.close();
    throw error;
  }
  return components;
}

/** Secret stores before what may need them. */
function inLoadOrder(resources: readonly ComponentResource[]): readonly ComponentResource[] {
  const isStore = (resource: ComponentResource): boolean => categoryOf(resource.type) === secretStores;
  return [...resources.filter(isStore), ...resources.filter((resource) => !isStore(resource))];
}

const secretStores = "secretstores";
/** Longest wait for a secret that is no part of a component, ms. */
const secretTimeoutMs = 10_000;

class Components implements RunningComponents {
  readonly secrets: SecretSource;
  readonly #init: ComponentsInit;
  readonly #load: LoadInit;
  readonly #counts: {
    readonly loaded: CountFamily;
    readonly init: CountFamily;
    readonly failed: CountFamily;
  };
  /** In load order. */
  #opened: readonly OpenComponent[] = [];
  #byCategory: ReadonlyMap<string, ReadonlyMap<string, OpenComponent>> = new Map();
  /** Waiting for a secret store, by the name of the store. */
  readonly #parked = new Map<ComponentResource, string>();

  constructor(init: ComponentsInit) {
    const { metrics } = init;
    this.#init = init;
    this.#load = { ...init, secretStore: (name) => this.get<SecretStore>(secretStores, name)?.port };
    this.secrets = { defaultSecretStore: defaultSecretStore(init.options), readSecret: this.#readSecret };
    this.#counts = {
      loaded: metrics.count("runtime_component_loaded", "Components loaded.", []),
      init: metrics.count("runtime_component_init_total", "Component inits.", ["component"]),
      failed: metrics.count("runtime_component_init_fail_total", "Failed component inits.", [
        "component",
        "componentName",
        "reason",
      ]),
    };
  }

  get<P>(category: string, name: string): OpenComponent<P> | undefined {
    return this.#byCategory.get(category)?.get(name) as OpenComponent<P> | undefined;
  }

  all<P>(category: string): readonly OpenComponent<P>[] {
    return [...(this.#byCategory.get(category)?.values() ?? [])] as OpenComponent<P>[];
  }

  list(): readonly OpenComponent[] {
    return this.#opened;
  }

  readonly #readSecret: SecretSource["readSecret"] = async (store, secret, metadata) => {
    const port = this.#load.secretStore(store);
    if (port === undefined) return undefined;
    const limit = new AbortController();
    const text = `secret store ${store} did not answer within ${secretTimeoutMs} ms`;
    const timer = this.#init.clock.setTimeout(() => limit.abort(new Error(text)), secretTimeoutMs);
    try {
      return (await port.get(secret, metadata, limit.signal)) ?? {};
    } finally {
      timer.cancel();
    }
  };

  async close(): Promise<void> {
    const opened = this.#opened;
    this.#hold([]);
    await Promise.allSettled(opened.map((component) => (component.port as Closable).close()));
  }

  /** Opens a component, and those that waited for it. Rejects when one fails without `ignoreErrors`. */
  async add(resource: ComponentResource): Promise<void> {
    if (this.#isDenied(resource)) return;
    this.#counts.loaded();
    const opened = await this.#open(resource);
    if (!opened || categoryOf(resource.type) !== secretStores) return;
    for (const [parked, store] of this.#parked) {
      if (store === resource.name && this.#parked.delete(parked)) await this.add(parked);
    }
  }

  #isDenied(resource: ComponentResource): boolean {
    if (!isDenied(resource, this.#init.deny ?? [])) return false;
    this.#init.log.warn(
      `${placeOf(resource)}: component ${componentLabel(resource)} is not loaded: components.deny of the ` +
        `Configuration forbids ${resource.version === "" ? "components without a version" : "it"}`,
    );
    return true;
  }

  /** False when it waits or failed and its failure is ignored. */
  async #open(resource: ComponentResource): Promise<boolean> {
    const { log } = this.#init;
    try {
      const { component, waitingFor } = await loadComponent(resource, this.#load);
      if (component === undefined) {
        this.#parked.set(resource, waitingFor);
        log.warn(
          `${placeOf(resource)}: component ${componentLabel(resource)} waits for secret store ${waitingFor}, ` +
            "which is not loaded; add that component or correct auth.secretStore",
        );
        return false;
      }
      this.#hold([...this.#opened, component]);
      this.#counts.init(resource.type);
      log.info(`Component loaded: ${componentLabel(resource)}`);
      return true;
    } catch (thrown) {
      const failure = ComponentFailure.init(resource, thrown);
      this.#tell(resource, failure);
      if (resource.ignoreErrors) return false;
      throw new Error(failure.message, { cause: thrown });
    }
  }

  #tell(resource: ComponentResource, failure: ComponentFailure): void {
    const { log } = this.#init;
    for (const reason of failure.reasons) this.#counts.failed(resource.type, resource.name, reason);
    if (failure.detail !== undefined)
      log.error(`Failed to init component ${componentLabel(resource)}: ${failure.detail}`);
    const what = resource.ignoreErrors
      ? "Ignoring error processing component"
      : "Error processing component, daprd will exit gracefully";
    log.error(`${what}: ${failure.message}`);
  }

  #hold(opened: readonly OpenComponent[]): void {
    const byCategory = new Map<string, Map<string, OpenComponent>>();
    for (const component of opened) {
      const category = categoryOf(component.resource.type);
      const named = byCategory.get(category) ?? new Map<string, OpenComponent>();
      byCategory.set(category, named.set(component.resource.name, component));
    }
    this.#opened = opened;
    this.#byCategory = byCategory;
  }
}
