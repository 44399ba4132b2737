/**
 * Opens the components of the resource files, in file order, and holds them by category and name.
 * Which file serves a type comes from the generated list, so nobody pays for a client that is not used.
 */
import { randomUUID } from "node:crypto";
import type { Clock, Mesh } from "../../mesh/index.ts";
import {
  componentLabel,
  isDenied,
  resolveMetadata,
  type ComponentResource,
} from "../config/kinds/component.ts";
import type { SidecarOptions } from "../config/options.ts";
import { nearest } from "../lib/nearest.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { ComponentFile } from "./component.ts";
import { componentEntries, type ComponentEntry } from "./index.gen.ts";
import { readMetadata } from "./metadata.ts";

/** A component that runs. `P` is the port of its category, e.g. StateStore. */
export type OpenComponent<P = unknown> = {
  readonly resource: ComponentResource;
  readonly file: ComponentFile<P>;
  readonly port: P;
  /** As the metadata API lists them. */
  readonly capabilities: readonly string[];
  /** All metadata after templates and secrets, names as written. */
  readonly properties: Readonly<Record<string, string>>;
};

export type OpenComponents = {
  /** Component of a category (`state`, `pubsub`, …) by its name. */
  get<P>(category: string, name: string): OpenComponent<P> | undefined;
  /** All of a category, in load order. */
  all<P>(category: string): readonly OpenComponent<P>[];
};

export type ComponentsInit = {
  readonly options: SidecarOptions;
  readonly resources: readonly ComponentResource[];
  readonly mesh: Mesh;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly env: NodeJS.ProcessEnv;
  /** `spec.components.deny` of the Configuration: `<type>` or `<type>/<version>`; none when not given. */
  readonly deny?: readonly string[];
};

export type RunningComponents = OpenComponents & { list(): readonly OpenComponent[]; close(): Promise<void> };

/** Every port can be closed; that is nearly all this file knows of one. */
type Closable = { close(): Promise<void> };

/** What only some know when they are open: capabilities that depend on the version or on the server. */
type Knowing = { readonly capabilities?: readonly string[] };

/** Rejects with Dapr's text when a component fails without `ignoreErrors`; those opened before it are closed again. */
export async function openComponents(init: ComponentsInit): Promise<RunningComponents> {
  const loadedCount = init.metrics.count("runtime_component_loaded", "Components loaded.", []);
  const initCount = init.metrics.count("runtime_component_init_total", "Component inits.", ["component"]);
  const failedCount = init.metrics.count("runtime_component_init_fail_total", "Failed component inits.", [
    "component",
    "componentName",
    "reason",
  ]);
  const opened: OpenComponent[] = [];
  for (const resource of init.resources) {
    if (isDenied(resource, init.deny ?? [])) {
      init.log.warn(
        `${placeOf(resource)}: component ${componentLabel(resource)} is not loaded: components.deny of the ` +
          `Configuration forbids ${resource.version === "" ? "components without a version" : "it"}`,
      );
      continue;
    }
    loadedCount();
    try {
      opened.push(await openOne(resource, init));
      initCount(resource.type);
      init.log.info(`Component loaded: ${componentLabel(resource)}`);
    } catch (error) {
      const failure = asFailure(error, resource);
      failedCount(resource.type, resource.name, failure.reason);
      init.log.error(`Failed to init component ${componentLabel(resource)}: ${failure.message}`);
      const processed = `process component ${resource.name} error: ${failure.message}`;
      if (resource.ignoreErrors) {
        init.log.error(`Ignoring error processing component: ${processed}`);
        continue;
      }
      init.log.error(`Error processing component, daprd will exit gracefully: ${processed}`);
      await closeAll(opened);
      throw new Error(processed, { cause: error });
    }
  }
  return byCategory(opened);
}

/** A component that could not be made (`creation`) or started (`init`). */
class ComponentFailure extends Error {
  readonly reason: "creation" | "init";

  constructor(reason: "creation" | "init", message: string, cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
  }
}

function asFailure(error: unknown, resource: ComponentResource): ComponentFailure {
  if (error instanceof ComponentFailure) return error;
  const what = `initialization error occurred for ${componentLabel(resource)}`;
  const text = error instanceof Error ? error.message : String(error);
  return new ComponentFailure(
    "init",
    `[INIT_COMPONENT_FAILURE]: ${what}: ${text} (${placeOf(resource)})`,
    error,
  );
}

async function openOne(resource: ComponentResource, init: ComponentsInit): Promise<OpenComponent> {
  const entry = findEntry(resource);
  const file = await entry.load();
  checkVersion(resource, file);
  const category = categoryOf(resource.type);
  const log = init.log.scope("dapr.contrib", { component: componentLabel(resource) });
  const properties = await resolveProperties(resource, category, init);
  const { values, warnings } = readMetadata(file.metadataSchema, category, properties);
  for (const warning of warnings)
    init.log.warn(`${placeOf(resource)}: ${componentLabel(resource)}: ${warning}`);
  const port = await withTimeout(resource, init, async (signal) => {
    const context = {
      name: resource.name,
      type: resource.type,
      version: resource.version || file.versions[0]!,
      appId: init.options.appId,
      namespace: init.options.namespace,
      metadata: values,
      properties,
      mesh: init.mesh,
      clock: init.clock,
      log,
      signal,
    };
    return file.open(context as never);
  });
  const capabilities = (port as Knowing).capabilities ?? file.capabilities;
  return { resource, file, port, capabilities, properties };
}

function findEntry(resource: ComponentResource): ComponentEntry {
  const type = resource.type.toLowerCase();
  const entry = componentEntries.find((candidate) => candidate.type === type);
  if (entry !== undefined) return entry;
  if (!categories.has(resource.type.split(".")[0]!)) {
    throw new ComponentFailure("creation", `incorrect type ${resource.type} (${placeOf(resource)})`);
  }
  const known = componentEntries.map((candidate) => candidate.type);
  const guess = nearest(type, known);
  const hint = guess === undefined ? `known types: ${known.join(", ")}` : `did you mean ${guess}?`;
  const what = `couldn't find ${kindWord(resource.type)} ${type}/${resource.version || "v1"}`;
  throw new ComponentFailure(
    "creation",
    `[CREATE_COMPONENT_FAILURE]: ${what} (${placeOf(resource)}; ${hint})`,
  );
}

/** First parts of types that Dapr knows, as they must be written. */
const categories = new Set([
  "state",
  "pubsub",
  "bindings",
  "secretstores",
  "configuration",
  "lock",
  "crypto",
  "conversation",
  "nameresolution",
  "middleware",
]);

/** Unversioned types take an empty version, v0 and v1. */
function checkVersion(resource: ComponentResource, file: ComponentFile): void {
  const { version } = resource;
  const unversioned = file.versions.length === 1 && file.versions[0] === "v1";
  if (version === "" || file.versions.includes(version) || (unversioned && version === "v0")) return;
  const what = `couldn't find ${kindWord(resource.type)} ${resource.type}/${version}`;
  const hint = `${placeOf(resource)}; versions: ${file.versions.join(", ")}`;
  throw new ComponentFailure("creation", `[CREATE_COMPONENT_FAILURE]: ${what} (${hint})`);
}

async function resolveProperties(
  resource: ComponentResource,
  category: string,
  init: ComponentsInit,
): Promise<Record<string, string>> {
  const resolved = await resolveMetadata(resource, {
    appId: init.options.appId,
    namespace: init.options.namespace,
    env: init.env,
    uuid: randomUUID,
    defaultSecretStore: undefined,
    readSecret: () => Promise.resolve(undefined),
  });
  for (const warning of resolved.warnings) init.log.warn(warning);
  if (resolved.waitingFor !== undefined) {
    throw new Error(
      `secret store "${resolved.waitingFor}" is not loaded; give the values in metadata or by envRef`,
    );
  }
  const properties = Object.fromEntries(resolved.texts);
  // The consumer group is the app unless the user says otherwise.
  if (
    category === "pubsub" &&
    !Object.keys(properties).some((name) => name.toLowerCase() === "consumerid" && properties[name] !== "")
  ) {
    properties["consumerID"] = init.options.appId;
  }
  return properties;
}

async function withTimeout<T>(
  resource: ComponentResource,
  { clock, log }: ComponentsInit,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = new AbortController();
  const { promise: overrun, reject } = Promise.withResolvers<never>();
  const timer = clock.setTimeout(() => {
    const error = new Error(
      `init timeout for component ${componentLabel(resource)} after ${resource.initTimeoutMs} ms (initTimeout)`,
    );
    limit.abort(error);
    reject(error);
  }, resource.initTimeoutMs);
  const opening = run(limit.signal);
  try {
    return await Promise.race([opening, overrun]);
  } catch (error) {
    if (limit.signal.aborted) void closeLate(opening, resource, log);
    throw error;
  } finally {
    timer.cancel();
  }
}

/** Nobody waits any more for a component that opens after its time, but what it holds must not stay open. */
async function closeLate(opening: Promise<unknown>, resource: ComponentResource, log: Log): Promise<void> {
  let port: Closable;
  try {
    port = (await opening) as Closable;
  } catch {
    // It ended by itself, as it should when its signal is aborted.
    return;
  }
  try {
    await port.close();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    log.warn(`${componentLabel(resource)}, which opened too late, cannot be closed: ${text}`);
  }
}

function byCategory(opened: readonly OpenComponent[]): RunningComponents {
  const find = (category: string): OpenComponent[] =>
    opened.filter((component) => categoryOf(component.resource.type) === category);
  const categories = new Map<string, Map<string, OpenComponent>>();
  for (const category of new Set(opened.map((component) => categoryOf(component.resource.type)))) {
    categories.set(
      category,
      new Map(find(category).map((component) => [component.resource.name, component])),
    );
  }
  return {
    get: <P>(category: string, name: string) =>
      categories.get(category)?.get(name) as OpenComponent<P> | undefined,
    all: <P>(category: string) => [...(categories.get(category)?.values() ?? [])] as OpenComponent<P>[],
    list: () => opened,
    close: () => closeAll(opened),
  };
}

async function closeAll(opened: readonly OpenComponent[]): Promise<void> {
  await Promise.allSettled(opened.map((component) => (component.port as Closable).close()));
}

function categoryOf(type: string): string {
  return type.slice(0, type.indexOf(".")).toLowerCase();
}

const kindWords: Readonly<Record<string, string>> = { state: "state store", pubsub: "message bus" };

function kindWord(type: string): string {
  return kindWords[categoryOf(type)] ?? "component";
}

function placeOf(resource: ComponentResource): string {
  return `${resource.origin.file}:${resource.origin.line}`;
}
