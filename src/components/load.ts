/**
 * Makes one component of its resource: finds the file that serves its type, takes metadata texts from where they are
 * kept, checks them and opens it within its init timeout.
 */
import { randomUUID } from "node:crypto";
import type { Clock, Mesh } from "../../mesh/index.ts";
import type { SecretStore } from "../blocks/secrets/port.ts";
import {
  componentLabel,
  type ComponentResource,
  DEFAULT_INIT_TIMEOUT_MS,
  resolveMetadata,
} from "../config/kinds/component.ts";
import type { SidecarOptions } from "../config/options.ts";
import { nearest } from "../lib/nearest.ts";
import type { Log } from "../telemetry/log.ts";
import { categoryNames, categoryOf, findCategory } from "./categories.ts";
import type { ComponentContext, ComponentFile } from "./component.ts";
import { ComponentFailure, placeOf } from "./failure.ts";
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

export type LoadInit = {
  readonly options: SidecarOptions;
  readonly mesh: Mesh;
  readonly clock: Clock;
  readonly log: Log;
  readonly env: NodeJS.ProcessEnv;
  /** Component types; all of this build when not given. */
  readonly entries?: readonly ComponentEntry[];
  /** `spec.wasm.strictSandbox` of the Configuration. */
  readonly strictWasm?: boolean;
  /** A secret store by component name. */
  readonly secretStore: (name: string) => SecretStore | undefined;
};

/** `waitingFor` names the secret store without which the component cannot be opened. */
export type LoadOutcome =
  | { readonly component: OpenComponent; readonly waitingFor?: undefined }
  | { readonly component?: undefined; readonly waitingFor: string };

/** Every port can be closed; that is all this file knows of one. */
export type Closable = { close(): Promise<void> };

/** What a port may tell of itself beside its category's methods. */
type Telling = {
  /** Where they hang on the metadata. */
  readonly capabilities?: readonly string[];
  /** Unix ms since when it cannot reach its server. */
  awaySinceMs?(): number | undefined;
};

/** Unix ms since when a component cannot reach its server; undefined while it can, and where it does not tell. */
export function awaySince({ port }: OpenComponent): number | undefined {
  return (port as Telling).awaySinceMs?.();
}

/** Rejects with ComponentFailure; then nothing stays open. */
export async function loadComponent(resource: ComponentResource, init: LoadInit): Promise<LoadOutcome> {
  try {
    const entry = findEntry(resource, init.entries ?? componentEntries);
    const file = await entry.load();
    checkVersion(resource, file);
    return await withTimeout(resource, init, (signal) => openFile(resource, file, init, signal));
  } catch (thrown) {
    throw ComponentFailure.init(resource, thrown);
  }
}

async function openFile(
  resource: ComponentResource,
  file: ComponentFile,
  init: LoadInit,
  signal: AbortSignal,
): Promise<LoadOutcome> {
  const category = categoryOf(resource.type);
  const { properties, waitingFor } = await resolveProperties(resource, init, signal);
  if (waitingFor !== undefined) return { waitingFor };
  const { values, warnings } = readMetadata(file.metadataSchema, category, properties);
  for (const { field, message } of file.openMetadata === true ? [] : warnings)
    init.log.warn(`${placeOf(resource, field)}: ${componentLabel(resource)}: ${message}`);
  const context: ComponentContext = {
    name: resource.name,
    type: resource.type,
    version: resource.version.toLowerCase() || file.versions[0]!,
    appId: init.options.appId,
    namespace: init.options.namespace,
    metadata: values,
    properties,
    env: init.env,
    strictWasm: init.strictWasm ?? false,
    mesh: init.mesh,
    clock: init.clock,
    log: init.log.scope("dapr.contrib", { component: componentLabel(resource) }),
    signal,
  };
  const port = await file.open(context as never);
  const { capabilities = file.capabilities } = port as Telling;
  return { component: { resource, file, port, capabilities, properties } };
}

function findEntry(resource: ComponentResource, entries: readonly ComponentEntry[]): ComponentEntry {
  const type = resource.type.toLowerCase();
  const category = findCategory(resource.type);
  if (category === undefined) {
    const guess = nearest(resource.type.split(".")[0]!, categoryNames);
    const start = `a type starts with ${categoryNames.join(", ")}`;
    throw ComponentFailure.incorrectType(resource, guess === undefined ? start : `did you mean ${guess}?`);
  }
  const entry = entries.find((candidate) => candidate.type === type);
  if (entry !== undefined) return entry;
  const known = entries.map((candidate) => candidate.type);
  const guess = nearest(type, known);
  const remedy = guess === undefined ? `known types: ${known.join(", ")}` : `did you mean ${guess}?`;
  const text = `couldn't find ${category.word} ${resource.type}/${resource.version}`;
  throw ComponentFailure.creation(resource, text, remedy);
}

/** Unversioned types take an empty version, v0 and v1, in either case. */
function checkVersion(resource: ComponentResource, file: ComponentFile): void {
  const version = resource.version.toLowerCase();
  const unversioned = file.versions.length === 1 && file.versions[0] === "v1";
  if (version === "" || file.versions.includes(version) || (unversioned && version === "v0")) return;
  const text = `couldn't find ${findCategory(resource.type)?.word} ${resource.type}/${resource.version}`;
  throw ComponentFailure.creation(resource, text, `versions: ${file.versions.join(", ")}`);
}

const builtInStore = "kubernetes";

/** Store of references that name none. */
export function defaultSecretStore({ mode }: SidecarOptions): string | undefined {
  return mode === "kubernetes" ? builtInStore : undefined;
}

/**
 * In Kubernetes mode and in a cluster: with the store of its secrets, unless a resource has its name or a flag forbids
 * it.
 */
export function withBuiltIn(
  resources: readonly ComponentResource[],
  { options, env }: Pick<LoadInit, "options" | "env">,
): readonly ComponentResource[] {
  const isCluster = options.mode === "kubernetes" && (env["KUBERNETES_SERVICE_HOST"] ?? "") !== "";
  if (!isCluster || !options.resources.builtinKubernetesSecretStore) return resources;
  if (resources.some(({ name }) => name === builtInStore)) return resources;
  const origin = { file: "--mode=kubernetes", line: 1, column: 1 };
  const builtIn: ComponentResource = {
    kind: "Component",
    name: builtInStore,
    namespace: undefined,
    type: "secretstores.kubernetes",
    typeOrigin: origin,
    version: "v1",
    metadata: [],
    initTimeoutMs: DEFAULT_INIT_TIMEOUT_MS,
    // Not every sidecar needs it, and not every pod may read secrets.
    ignoreErrors: true,
    scopes: [],
    secretStore: undefined,
    origin,
  };
  return [builtIn, ...resources];
}

/** The texts that a component is opened with, or the secret store that they wait for. */
async function resolveProperties(
  resource: ComponentResource,
  { options, env, log, secretStore }: LoadInit,
  signal: AbortSignal,
): Promise<{ readonly properties: Record<string, string>; readonly waitingFor: string | undefined }> {
  const resolved = await resolveMetadata(resource, {
    appId: options.appId,
    namespace: options.namespace,
    env,
    uuid: randomUUID,
    defaultSecretStore: defaultSecretStore(options),
    readSecret: (store, secret, metadata) =>
      secretStore(store)?.get(secret, metadata, signal) ?? Promise.resolve(undefined),
  });
  for (const { field, message } of resolved.warnings) log.warn(`${placeOf(resource, field)}: ${message}`);
  const properties = Object.fromEntries(resolved.texts);
  if (categoryOf(resource.type) === "pubsub") {
    // The consumer group is the app unless the user says otherwise.
    const name = Object.keys(properties).find((key) => key.toLowerCase() === "consumerid") ?? "consumerID";
    properties[name] = properties[name]?.trim() || options.appId;
  }
  return { properties, waitingFor: resolved.waitingFor };
}

async function withTimeout(
  resource: ComponentResource,
  { clock, log }: LoadInit,
  run: (signal: AbortSignal) => Promise<LoadOutcome>,
): Promise<LoadOutcome> {
  const limit = new AbortController();
  const { promise: overrun, reject } = Promise.withResolvers<never>();
  const timer = clock.setTimeout(() => {
    const failure = ComponentFailure.timeout(resource);
    limit.abort(failure);
    reject(failure);
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
async function closeLate(
  opening: Promise<LoadOutcome>,
  resource: ComponentResource,
  log: Log,
): Promise<void> {
  let outcome: LoadOutcome;
  try {
    outcome = await opening;
  } catch {
    // It ended by itself, as it should when its signal is aborted.
    return;
  }
  try {
    await (outcome.component?.port as Closable | undefined)?.close();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    log.warn(`${componentLabel(resource)}, which opened too late, cannot be closed: ${text}`);
  }
}
