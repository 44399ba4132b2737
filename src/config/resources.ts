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
  /** Undefined when two have one name. */
  readonly httpEndpoints: readonly HttpEndpointResource[] | undefined;
  /** In load order, those with errors included: what is later wins over what is earlier. */
  readonly resiliencies: readonly ResiliencyResource[];
  /** Kinds that are recognised and not used yet. */
  readonly others: readonly GenericResource[];
  /** To log as warnings, see `formatProblem`. */
  readonly problems: readonly Problem[];
  /** Files that count with what they held before, since they cannot be used as they are. */
  readonly held: readonly string[];
}

/** Larger files are refused: no manifest is this long. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const MAX_FILES = 10_000;
const NOT_YAML = "the file is not loaded: the name of a resource file must end in .yaml or .yml";

/**
 * What the files held when they were read last, by path. With it files are read again: a file that cannot be read or
 * understood any more then counts with what it held before, and only changed files have problems.
 */
export type FileMemory = Map<string, RememberedFile>;

interface RememberedFile {
  readonly text: string | undefined;
  readonly resources: readonly Resource[];
  /** Some of the resources are of an earlier text. */
  readonly held: boolean;
}

/**
 * Reads every `.yaml` and `.yml` file in the directories themselves (not in their subdirectories). `memory` is brought
 * up to date.
 * @throws {SettingError} for a directory that cannot be read and for two components of one name.
 */
export async function loadResources(
  directories: readonly string[],
  audience: Audience,
  memory: FileMemory = new Map(),
): Promise<LoadedResources> {
  const files: ParsedResources[] = [];
  const seen = new Set<string>();
  for (const directory of directories) {
    for (const name of await listFiles(directory)) {
      const path = join(directory, name);
      seen.add(path);
      if (/\.ya?ml$/i.test(name)) files.push(await readAgain(path, memory));
      else if (!name.startsWith(".")) files.push(readOther(path, memory));
    }
  }
  for (const path of memory.keys()) if (!seen.has(path)) memory.delete(path);
  const held = [...memory].filter(([, file]) => file.held).map(([path]) => path);
  return Object.freeze({ ...selectResources(files, audience), held: Object.freeze(held) });
}

/** A resource file, less what was said about it before, plus what it held before and has in a broken form now. */
async function readAgain(path: string, memory: FileMemory): Promise<ParsedResources> {
  const before = memory.get(path);
  const file = await readText(path);
  if (before !== undefined && before.text === file.text) return unchanged(before);
  const parsed = file.problem === undefined ? await parseText(file.text, path, before) : failed(file.problem);
  const held = parsed.broken ? stillHeld(parsed, before) : [];
  const resources = [...parsed.resources, ...held];
  memory.set(path, { text: file.text, resources, held: held.length > 0 });
  if (held.length === 0) return { ...parsed, resources };
  const names = held.map(({ kind, name }) => `${kind} ${name}`).join(", ");
  const meanwhile = held.length === 1 ? `${names} stays as it was` : `${names} stay as they were`;
  const [first = problemOf(path, "a document has no kind or apiVersion"), ...rest] = parsed.problems;
  const message = `${first.message}; meanwhile ${meanwhile} before`;
  return { ...parsed, resources, problems: [{ ...first, message }, ...rest] };
}

function unchanged({ resources }: RememberedFile): ParsedResources {
  return { resources, problems: [], broken: false };
}

/** What a file held before and holds no more. */
function stillHeld(parsed: ParsedResources, before: RememberedFile | undefined): readonly Resource[] {
  const keyOf = ({ kind, name }: Resource): string => JSON.stringify([kind, name]);
  const now = new Set(parsed.resources.map(keyOf));
  return (before?.resources ?? []).filter((resource) => !now.has(keyOf(resource)));
}

/** A file that is emptied is about to be written, or was emptied by mistake: to take it away it is deleted. */
async function parseText(
  text: string,
  path: string,
  before: RememberedFile | undefined,
): Promise<ParsedResources> {
  if (before !== undefined && before.resources.length > 0 && text.trim() === "") {
    return failed(problemOf(path, "the file is empty, delete it to remove what it held"));
  }
  const { parseResources } = await import("./parse-resources.ts");
  return parseResources(text, path);
}

function readOther(path: string, memory: FileMemory): ParsedResources {
  const before = memory.get(path);
  if (before !== undefined) return unchanged(before);
  memory.set(path, { text: undefined, resources: [], held: false });
  return failed(problemOf(path, NOT_YAML));
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
    httpEndpoints: repeated.length > 0 ? undefined : Object.freeze(endpoints),
    resiliencies: Object.freeze(resiliencies),
    others: Object.freeze(others),
    problems: Object.freeze([...files.flatMap((file) => file.problems), ...repeated]),
    held: Object.freeze([]),
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
    const message = `${duplicate}; no HTTPEndpoint is loaded or changed, rename one`;
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

type FileText =
  | { readonly text: string; readonly problem?: undefined }
  | { readonly text?: undefined; readonly problem: Problem };

async function readText(path: string): Promise<FileText> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    return { problem: problemOf(path, `the file cannot be read: ${reasonOf(error)}`) };
  }
  if (bytes.length > MAX_FILE_BYTES)
    return { problem: problemOf(path, `the file is larger than ${MAX_FILE_BYTES} bytes, split it`) };
  return { text: bytes.toString() };
}

function failed(problem: Problem): ParsedResources {
  return { resources: [], problems: [problem], broken: true };
}

function problemOf(file: string, message: string): Problem {
  return { severity: "error", file, line: 1, column: 1, message };
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
