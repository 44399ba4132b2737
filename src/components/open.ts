/**
 * Opens the components of the resource files and holds them by category and name: secret stores first, the rest in
 * file order. `apply` makes the set follow changed files while calls run. Which file serves a type comes from the
 * generated list, so nobody pays for a client that is not used.
 */
import { textOf } from "../lib/thrown.ts";
import type { Timer } from "../../mesh/index.ts";
import type { SecretStore } from "../blocks/secrets/port.ts";
import {
  componentLabel,
  isDenied,
  type ComponentResource,
  type SecretSource,
} from "../config/kinds/component.ts";
import type { CountFamily, Metrics } from "../telemetry/metrics.ts";
import { countCalls } from "./calls.ts";
import { categoryOf } from "./categories.ts";
import { definitionOf, secretsOf } from "./compare.ts";
import { ComponentFailure, placeOf } from "./failure.ts";
import {
  awaySince,
  defaultSecretStore,
  loadComponent,
  type Closable,
  type LoadInit,
  type OpenComponent,
  withBuiltIn,
} from "./load.ts";

export type { OpenComponent } from "./load.ts";

export type OpenComponents = {
  /** Component of a category (`state`, `pubsub`, …) by its name. */
  get<P>(category: string, name: string): OpenComponent<P> | undefined;
  /** All of a category, in load order. */
  all<P>(category: string): readonly OpenComponent<P>[];
};

/** What is to be there. */
export type WantedComponents = {
  readonly resources: readonly ComponentResource[];
  /** `spec.components.deny` of the Configuration: `<type>` or `<type>/<version>`. */
  readonly deny: readonly string[];
  /** `spec.wasm.strictSandbox` of the Configuration. */
  readonly strictWasm: boolean;
};

export type ComponentsInit = Omit<LoadInit, "secretStore" | "strictWasm"> & {
  readonly wanted: WantedComponents;
  readonly metrics: Metrics;
  /** Throws a readable Error when a component that did open cannot be served. */
  readonly check?: (category: string, component: OpenComponent) => void;
  /** `apply` will be used; else calls need not be counted. */
  readonly reloadable?: boolean;
};

/** What changed at one name: calls find `now` already; `before` is closed when nobody uses it any more. */
export type ComponentChange = {
  /** `state`, `pubsub`, … of both. */
  readonly category: string;
  readonly name: string;
  readonly before: OpenComponent | undefined;
  readonly now: OpenComponent | undefined;
};

/** Those who use components, told at each change of `apply`. */
export type ComponentUsers = {
  /** Resolves when `before` is used for no delivery any more. Never rejects. */
  changed(change: ComponentChange): Promise<void>;
};

/** A component that does not work now: it was not opened yet, or cannot reach its server. */
export type AwayComponent = { readonly name: string; readonly opened: boolean; readonly sinceMs: number };

export type RunningComponents = OpenComponents & {
  list(): readonly OpenComponent[];
  /** In no particular order. */
  away(): readonly AwayComponent[];
  /** From now on components that did not open and may do so later are tried again, and these users told. */
  follow(users: ComponentUsers): void;
  /** For references of resources that are no components. */
  readonly secrets: SecretSource;
  /**
   * Makes the set what is wanted: removes, replaces and adds, one at a time. Failures are logged, leave what works
   * as it is, and are tried again, by and by and with the next call. Not to be called while it runs.
   */
  apply(wanted: WantedComponents): Promise<void>;
  close(): Promise<void>;
};

/** Rejects with Dapr's text when a component fails without `ignoreErrors`; those opened before it are closed again. */
export async function openComponents(init: ComponentsInit): Promise<RunningComponents> {
  const components = new Components(init);
  try {
    for (const resource of inLoadOrder(init.wanted.resources, init)) await components.start(resource);
  } catch (error) {
    await components.close();
    throw error;
  }
  return components;
}

/** Secret stores before what may need them, the built-in one first. */
function inLoadOrder(
  resources: readonly ComponentResource[],
  init: ComponentsInit,
): readonly ComponentResource[] {
  const all = withBuiltIn(resources, init);
  return [...all.filter(isSecretStore), ...all.filter((resource) => !isSecretStore(resource))];
}

function isSecretStore({ type }: ComponentResource): boolean {
  return categoryOf(type) === secretStores;
}

const secretStores = "secretstores";
/** Longest wait for a secret that is no part of a component's opening, ms. */
const secretTimeoutMs = 10_000;
/** Longest wait for the calls on a component that is no longer there, ms; then it is closed under them. */
const drainMs = 60_000;

/** Waits before a component that did not open is tried again, ms: the first, doubled each time, and the longest. */
const firstRetryMs = 1_000;
const maxRetryMs = 15_000;

/** A component that did not open and is tried again. */
type Missing = {
  readonly resource: ComponentResource;
  readonly sinceMs: number;
  waitMs: number;
  /** What was told last, so that it is told once. */
  said: string;
  timer: Timer | undefined;
};

/** A component and what it was opened from. */
type Held = {
  readonly component: OpenComponent;
  readonly definition: string;
  readonly secrets: string | undefined;
  idle(): Promise<void>;
  /** Who still holds its port, as a policy between two tries does, comes to the one that took its place. */
  redirect(next: unknown): void;
};

class Components implements RunningComponents {
  readonly secrets: SecretSource;
  readonly #init: ComponentsInit;
  #wanted: WantedComponents;
  readonly #counts: {
    readonly loaded: CountFamily;
    readonly init: CountFamily;
    readonly failed: CountFamily;
  };
  /** In load order. */
  #held: readonly Held[] = [];
  #byCategory: ReadonlyMap<string, ReadonlyMap<string, OpenComponent>> = new Map();
  readonly #toldDenied = new WeakSet<ComponentResource>();
  /** Waiting for a secret store, by the name of the store. */
  readonly #parked = new Map<ComponentResource, string>();
  /** Being closed while the set lives on. */
  readonly #leaving = new Set<Promise<void>>();
  readonly #missing = new Map<string, Missing>();
  #users: ComponentUsers | undefined;
  /** One change of the set at a time. */
  #turn: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(init: ComponentsInit) {
    const { metrics } = init;
    this.#init = init;
    this.#wanted = init.wanted;
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
    return this.#held.map(({ component }) => component);
  }

  away(): readonly AwayComponent[] {
    const missing = [...this.#missing.values()].map(({ resource, sinceMs }) => ({
      name: resource.name,
      opened: false,
      sinceMs,
    }));
    const lost = this.list().flatMap((component) => {
      const sinceMs = awaySince(component);
      return sinceMs === undefined ? [] : [{ name: component.resource.name, opened: true, sinceMs }];
    });
    return [...missing, ...lost];
  }

  follow(users: ComponentUsers): void {
    this.#users = users;
    for (const missing of this.#missing.values()) this.#tryLater(missing);
  }

  /** Opens a component of the start, and those that waited for it. Rejects when one fails without `ignoreErrors`. */
  async start(resource: ComponentResource): Promise<void> {
    if (this.#isDenied(resource)) return;
    this.#counts.loaded();
    const ending = "Error processing component, daprd will exit gracefully";
    try {
      const held = await this.#open(resource);
      if (held === undefined) return;
      this.#hold([...this.#held, held]);
      this.#init.log.info(`Component loaded: ${componentLabel(resource)}`);
    } catch (thrown) {
      const failure = this.#tell(resource, thrown, resource.ignoreErrors ? undefined : ending);
      if (resource.ignoreErrors) return this.#miss(resource, failure);
      throw new Error(failure.message, { cause: thrown });
    }
    for (const parked of this.#takeParked(resource)) await this.start(parked);
  }

  apply(next: WantedComponents): Promise<void> {
    const applied = this.#turn.then(() => this.#apply(next));
    this.#turn = applied.catch(() => {});
    return applied;
  }

  async #apply(next: WantedComponents): Promise<void> {
    this.#wanted = next;
    this.#parked.clear();
    this.#missNone();
    const users = this.#users!;
    const wanted = new Map(
      inLoadOrder(next.resources, this.#init).map((resource) => [resource.name, resource]),
    );
    for (const held of this.#held)
      if (!wanted.has(held.component.resource.name)) await this.#swap(held, undefined, users);
    for (const stores of [true, false]) {
      const group = [...wanted.values()].filter((resource) => isSecretStore(resource) === stores);
      for (const resource of group)
        if (this.#find(resource) !== undefined) await this.#follow(resource, users);
      for (const resource of group)
        if (this.#find(resource) === undefined) await this.#follow(resource, users);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#missNone();
    const held = this.#held;
    this.#hold([]);
    await Promise.allSettled([...held.map(({ component }) => closePort(component)), ...this.#leaving]);
  }

  /** Opens, replaces or leaves the component of a resource; one that fails leaves everything as it is. */
  async #follow(resource: ComponentResource, users: ComponentUsers): Promise<void> {
    if (this.#closed) return;
    const before = this.#find(resource);
    if (this.#isDenied(resource)) {
      if (before !== undefined) await this.#swap(before, undefined, users);
      return;
    }
    if (before !== undefined && !(await this.#hasChanged(before, resource))) return;
    if (before === undefined) this.#counts.loaded();
    let now: Held | undefined;
    try {
      now = await this.#open(resource);
      if (now === undefined) return;
    } catch (thrown) {
      const state = before === undefined ? "it is not there" : "the one that was there goes on";
      const failure = ComponentFailure.init(resource, thrown);
      const until = failure.mayPass ? "it opens; it is tried again" : "its file is changed";
      const isIgnored = resource.ignoreErrors && before === undefined;
      const unless = isIgnored ? undefined : `Error processing component, ${state} until ${until}`;
      if (this.#missing.get(resource.name)?.said !== failure.message) this.#tell(resource, failure, unless);
      return this.#miss(resource, failure);
    }
    this.#missing.delete(resource.name);
    const done = before === undefined ? "loaded" : "updated";
    this.#init.log.info(`Component ${done}: ${componentLabel(resource)}`);
    await this.#swap(before, now, users);
    for (const parked of this.#takeParked(resource)) await this.#follow(parked, users);
  }

  async #hasChanged(held: Held, resource: ComponentResource): Promise<boolean> {
    if (held.definition !== this.#definitionOf(resource)) return true;
    const secrets = await secretsOf(resource, this.#init.options.namespace, this.secrets);
    return secrets !== undefined && secrets !== held.secrets;
  }

  /** Closes it again and rejects when a block cannot serve it, or when the set was closed meanwhile. */
  async #check(component: OpenComponent): Promise<void> {
    try {
      if (this.#closed) throw new Error("the sidecar stops");
      this.#init.check?.(categoryOf(component.resource.type), component);
    } catch (error) {
      await closePort(component).catch(() => {});
      throw error;
    }
  }

  /** Puts `now` in the place of `before`, either of which may be absent, and lets `before` end behind its users. */
  async #swap(before: Held | undefined, now: Held | undefined, users: ComponentUsers): Promise<void> {
    const rest = this.#held.filter((held) => held !== before);
    this.#hold(now === undefined ? rest : [...rest, now]);
    for (const change of changesOf(before?.component, now?.component)) await users.changed(change);
    if (before === undefined) return;
    if (now === undefined)
      this.#init.log.info(`Component removed: ${componentLabel(before.component.resource)}`);
    const leaving = this.#leave(before, now).finally(() => this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
  }

  async #leave({ component, idle, redirect }: Held, now: Held | undefined): Promise<void> {
    const { clock, log } = this.#init;
    const label = componentLabel(component.resource);
    const limit = Promise.withResolvers<"overrun">();
    const timer = clock.setTimeout(() => limit.resolve("overrun"), drainMs);
    const how = await Promise.race([idle(), limit.promise]);
    timer.cancel();
    if (now !== undefined && sameCategory(component, now.component)) redirect(now.component.port);
    if (how === "overrun")
      log.warn(`${label}: calls still run ${drainMs} ms after it was removed; it is closed`);
    try {
      await closePort(component);
    } catch (error) {
      log.warn(`${label}, which was removed, cannot be closed: ${textOf(error)}`);
    }
  }

  /** Tries it again later, where that can be of any use. */
  #miss(resource: ComponentResource, failure: ComponentFailure): void {
    if (!failure.mayPass || this.#closed) return;
    const { name } = resource;
    const before = this.#missing.get(name);
    const waitMs = Math.min((before?.waitMs ?? firstRetryMs / 2) * 2, maxRetryMs);
    const sinceMs = before?.sinceMs ?? this.#init.clock.nowMs();
    const missing = { resource, sinceMs, waitMs, said: failure.message, timer: undefined };
    this.#missing.set(name, missing);
    if (this.#users !== undefined) this.#tryLater(missing);
  }

  #tryLater(missing: Missing): void {
    const attempt = async (): Promise<void> => {
      // Changed files may have made it another one, or none.
      if (this.#missing.get(missing.resource.name) !== missing) return;
      await this.#follow(missing.resource, this.#users!);
    };
    missing.timer = this.#init.clock.setTimeout(() => {
      this.#turn = this.#turn
        .then(attempt)
        .catch((error: unknown) =>
          this.#init.log.error(`component ${missing.resource.name}: ${textOf(error)}`),
        );
    }, missing.waitMs);
  }

  #missNone(): void {
    for (const { timer } of this.#missing.values()) timer?.cancel();
    this.#missing.clear();
  }

  #find({ name }: ComponentResource): Held | undefined {
    return this.#held.find((held) => held.component.resource.name === name);
  }

  /** Those that waited for the component of this resource. */
  #takeParked(resource: ComponentResource): ComponentResource[] {
    if (!isSecretStore(resource)) return [];
    const waiting = [...this.#parked]
      .filter(([, store]) => store === resource.name)
      .map(([parked]) => parked);
    for (const parked of waiting) this.#parked.delete(parked);
    return waiting;
  }

  /** Of the Configuration's part, too. */
  #definitionOf(resource: ComponentResource): string {
    const strict = resource.type.endsWith(".wasm") && this.#wanted.strictWasm;
    return `${definitionOf(resource)} ${strict}`;
  }

  #secretStore(name: string): SecretStore | undefined {
    return this.get<SecretStore>(secretStores, name)?.port;
  }

  #isDenied(resource: ComponentResource): boolean {
    if (!isDenied(resource, this.#wanted.deny)) return false;
    if (this.#toldDenied.has(resource)) return true;
    this.#toldDenied.add(resource);
    this.#init.log.warn(
      `${placeOf(resource)}: component ${componentLabel(resource)} is not loaded: components.deny of the ` +
        `Configuration forbids ${resource.version === "" ? "components without a version" : "it"}`,
    );
    return true;
  }

  /** Undefined when it waits for a secret store. Rejects when it cannot be opened. */
  async #open(resource: ComponentResource): Promise<Held | undefined> {
    const { log, options, reloadable = false } = this.#init;
    const definition = this.#definitionOf(resource);
    const { component, waitingFor } = await loadComponent(resource, {
      ...this.#init,
      strictWasm: this.#wanted.strictWasm,
      secretStore: (name) => this.#secretStore(name),
    });
    if (component === undefined) {
      this.#parked.set(resource, waitingFor);
      log.warn(
        `${placeOf(resource)}: component ${componentLabel(resource)} waits for secret store ${waitingFor}, ` +
          "which is not loaded; add that component or correct auth.secretStore",
      );
      return undefined;
    }
    await this.#check(component);
    this.#counts.init(resource.type);
    if (!reloadable) return { component, definition, secrets: "", ...uncounted };
    const secrets = await secretsOf(resource, options.namespace, this.secrets);
    const { port, idle, redirect } = countCalls(component.port);
    return { component: { ...component, port }, definition, secrets, idle, redirect };
  }

  /** Logs and counts a failure that is ignored, or else told with the words of `unless`. */
  #tell(resource: ComponentResource, thrown: unknown, unless: string | undefined): ComponentFailure {
    const { log } = this.#init;
    const failure = ComponentFailure.init(resource, thrown);
    for (const reason of failure.reasons) this.#counts.failed(resource.type, resource.name, reason);
    if (failure.detail !== undefined)
      log.error(`Failed to init component ${componentLabel(resource)}: ${failure.detail}`);
    log.error(`${unless ?? "Ignoring error processing component"}: ${failure.message}`);
    return failure;
  }

  readonly #readSecret: SecretSource["readSecret"] = async (store, secret, metadata) => {
    const port = this.#secretStore(store);
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

  #hold(held: readonly Held[]): void {
    const byCategory = new Map<string, Map<string, OpenComponent>>();
    for (const { component } of held) {
      const category = categoryOf(component.resource.type);
      const named = byCategory.get(category) ?? new Map<string, OpenComponent>();
      byCategory.set(category, named.set(component.resource.name, component));
    }
    this.#held = held;
    this.#byCategory = byCategory;
  }
}

/** One change, or two when the category is another now. */
function changesOf(before: OpenComponent | undefined, now: OpenComponent | undefined): ComponentChange[] {
  const categories = [before, now].map((it) => (it === undefined ? undefined : categoryOf(it.resource.type)));
  const name = (now ?? before)?.resource.name ?? "";
  return [...new Set(categories)]
    .filter((category) => category !== undefined)
    .map((category) => ({
      category,
      name,
      before: categories[0] === category ? before : undefined,
      now: categories[1] === category ? now : undefined,
    }));
}

function sameCategory(one: OpenComponent, other: OpenComponent): boolean {
  return categoryOf(one.resource.type) === categoryOf(other.resource.type);
}

const uncounted = { idle: () => Promise.resolve(), redirect: () => {} };

/** Rejects as the port does. */
async function closePort(component: OpenComponent): Promise<void> {
  await (component.port as Closable).close();
}
