/**
 * Loads the resource directories of one sidecar and keeps what is meant for it. Use:
 * `parseFlags` -> `resolveOptions` -> `loadResources(options.resources.directories, { appId, env })`.
 * Reading is done here, meaning in parse-resources.ts, which is imported only when there is a file: the YAML
 * reader is a large part of the start time.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Environment } from "./flags.ts";
import { type ComponentResource, componentLabel } from "./kinds/component.ts";
import type { GenericResource } from "./kinds/generic.ts";
import type { HttpEndpointResource } from "./kinds/http-endpoint.ts";
import type { ResiliencyResource } from "./kinds/resiliency.ts";
import type { SubscriptionResource } from "./kinds/subscription.ts";
import type { ParsedResources, Resource } from "./parse-resources.ts";
import { formatPlace, type Problem } from "./problem.ts";
import { SettingError } from "./setting-error.ts";

export type { ComponentResource } from "./kinds/component.ts";
export type { GenericResource } from "./kinds/generic.ts";
export type { HttpEndpointResource } from "./kinds/http-endpoint.ts";
export type { ResiliencyResource } from "./kinds/resiliency.ts";
export type { SubscriptionResource, SubscriptionRule } from "./kinds/subscription.ts";
export { formatProblem, type Problem } from "./problem.ts";

/** Whom the resources are for. */
export interface Audience {
  readonly appId: string;
  /** A resource of another namespace is passed over, but only when NAMESPACE is set. */
  readonly env: Environment;
}

export interface LoadedResources {
  /** In load order: directory, file name, document. */
  readonly components: readonly ComponentResource[];
  readonly subscriptions: readonly SubscriptionResource[];
  /** None when two have one name. */
  readonly httpEndpoints: readonly HttpEndpointResource[];
  /** In load order, those with errors included: what is later wins over what is earlier. */
  readonly resiliencies: readonly ResiliencyResource[];
  /** Kinds that are recognised and not used yet. */
  readonly others: readonly GenericResource[];
  /** To log as warnings, see `formatProblem`. */
  readonly problems: readonly Problem[];
}

/** Larger files are refused: no manifest is this long. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const MAX_FILES = 10_000;
const NOT_YAML = "the file is not loaded: the name of a resource file must end in .yaml or .yml";

/**
 * Reads every `.yaml` and `.yml` file in the directories themselves (not in their subdirectories).
 * @throws {SettingError} for a directory that cannot be read and for two components of one name.
 */
export async function loadResources(
  directories: readonly string[],
  audience: Audience,
): Promise<LoadedResources> {
  const files: ParsedResources[] = [];
  for (const directory of directories) {
    for (const name of await listFiles(directory)) {
      const path = join(directory, name);
      if (/\.ya?ml$/i.test(name)) files.push(await readResources(path));
      else if (!name.startsWith(".")) files.push(skipped(path, NOT_YAML));
    }
  }
  return selectResources(files, audience);
}

/**
 * Keeps what is meant for the audience: by namespace, by scope, the last of several subscriptions of one name.
 * @throws {SettingError} for two components of one name, with Dapr's words.
 */
export function selectResources(files: readonly ParsedResources[], audience: Audience): LoadedResources {
  const components = new Map<string, ComponentResource>();
  const subscriptions = new Map<string, SubscriptionResource>();
  const endpoints: HttpEndpointResource[] = [];
  const resiliencies: ResiliencyResource[] = [];
  const others: GenericResource[] = [];
  const duplicates: string[] = [];
  const namespace = audience.env["NAMESPACE"];
  for (const resource of files.flatMap((file) => file.resources)) {
    if (namespace && resource.namespace !== undefined && resource.namespace !== namespace) continue;
    // A duplicate is one even when the later resource is out of scope; one out of scope takes no name.
    if (isComponent(resource)) {
      const existing = components.get(resource.name);
      if (existing !== undefined) {
        duplicates.push(describeDuplicate(resource, existing));
        continue;
      }
    }
    if (resource.scopes.length > 0 && !resource.scopes.includes(audience.appId)) continue;
    if (isComponent(resource)) {
      components.set(resource.name, resource);
    } else if (isSubscription(resource)) {
      // Deleted first, so that the later one also takes the later place.
      subscriptions.delete(resource.name);
      subscriptions.set(resource.name, resource);
    } else if (isHttpEndpoint(resource)) {
      endpoints.push(resource);
    } else if (isResiliency(resource)) {
      resiliencies.push(resource);
    } else {
      others.push(resource);
    }
  }
  if (duplicates.length > 0) throw new SettingError(`failed to load components: ${duplicates.join("\n")}`);
  const repeated = repeatedEndpoints(endpoints);
  return Object.freeze({
    components: Object.freeze([...components.values()]),
    subscriptions: Object.freeze([...subscriptions.values()]),
    httpEndpoints: Object.freeze(repeated.length > 0 ? [] : endpoints),
    resiliencies: Object.freeze(resiliencies),
    others: Object.freeze(others),
    problems: Object.freeze([...files.flatMap((file) => file.problems), ...repeated]),
  });
}

function isComponent(resource: Resource): resource is ComponentResource {
  return resource.kind === "Component";
}

function isSubscription(resource: Resource): resource is SubscriptionResource {
  return resource.kind === "Subscription";
}

function isHttpEndpoint(resource: Resource): resource is HttpEndpointResource {
  return resource.kind === "HTTPEndpoint";
}

function isResiliency(resource: Resource): resource is ResiliencyResource {
  return resource.kind === "Resiliency";
}

/** Dapr loads no endpoint at all when two share a name, and only warns. */
function repeatedEndpoints(endpoints: readonly HttpEndpointResource[]): Problem[] {
  const first = new Map<string, HttpEndpointResource>();
  const problems: Problem[] = [];
  for (const endpoint of endpoints) {
    const { name, origin } = endpoint;
    const existing = first.get(name)?.origin;
    first.set(name, first.get(name) ?? endpoint);
    if (existing === undefined) continue;
    const place = `${existing.file}:${existing.line}`;
    const duplicate = `duplicate definition of HTTPEndpoint name ${name}, first in ${place}`;
    const message = `${duplicate}; no HTTPEndpoint is loaded, rename one`;
    problems.push({ ...origin, severity: "error", message });
  }
  return problems;
}

function describeDuplicate(resource: ComponentResource, existing: ComponentResource): string {
  return (
    `duplicate definition of Component name ${componentLabel(resource)} ` +
    `with existing ${componentLabel(existing)} ` +
    `(${formatPlace(resource.origin)} and ${formatPlace(existing.origin)}; rename one)`
  );
}

async function listFiles(directory: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    // A pipe or device would hold up the start for as long as nobody writes to it.
    const names = entries
      .filter((entry) => entry.isFile() || entry.isSymbolicLink())
      .map((entry) => entry.name);
    if (names.length > MAX_FILES) {
      throw new SettingError(`failed to load components: ${directory} holds more than ${MAX_FILES} files`);
    }
    return names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  } catch (error) {
    if (error instanceof SettingError) throw error;
    const fix = "create the directory or correct --resources-path";
    throw new SettingError(`failed to load components: open ${directory}: ${reasonOf(error)} (${fix})`);
  }
}

async function readResources(path: string): Promise<ParsedResources> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    return skipped(path, `the file cannot be read: ${reasonOf(error)}`);
  }
  if (bytes.length > MAX_FILE_BYTES)
    return skipped(path, `the file is larger than ${MAX_FILE_BYTES} bytes, split it`);
  const { parseResources } = await import("./parse-resources.ts");
  return parseResources(bytes.toString(), path);
}

function skipped(file: string, message: string): ParsedResources {
  return { resources: [], problems: [{ severity: "error", file, line: 1, column: 1, message }] };
}

/** The words of the operating system, as Go gives them. */
export function reasonOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const words: Readonly<Record<string, string>> = {
    ENOENT: "no such file or directory",
    ENOTDIR: "not a directory",
    EISDIR: "is a directory",
    EACCES: "permission denied",
  };
  return words[code] ?? (error instanceof Error ? error.message : String(error));
}
