/**
 * Makes a running sidecar follow its files: components and subscriptions in place; a changed Configuration,
 * HTTPEndpoint or Resiliency by starting it again in the same process. Whatever is wrong with a file, what works goes
 * on as it is: see docs/decisions/0018-reload-keeps-what-works.md.
 */
import { basename, dirname } from "node:path";
import type { Clock } from "../mesh/index.ts";
import type { ConfigurationResource } from "./config/kinds/configuration.ts";
import { loadConfiguration } from "./config/load-configuration.ts";
import { configurationEnv, type SidecarOptions } from "./config/options.ts";
import { type FileMemory, formatProblem, type LoadedResources, loadResources } from "./config/resources.ts";
import { FolderWatch } from "./config/watch-folders.ts";
import type { Log } from "./telemetry/log.ts";

export type HotReloadInit = {
  readonly options: SidecarOptions;
  readonly env: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly log: Log;
  /** What the sidecar was started with. */
  readonly configuration: ConfigurationResource;
  readonly resources: LoadedResources;
  readonly memory: FileMemory;
  /** Makes the sidecar follow what can change in place. Never rejects. */
  readonly update: (resources: LoadedResources) => Promise<void>;
  /** Something changed that only a new start can take up; `why` for the log. */
  readonly restart: (why: string) => void;
};

/** Resolves when changes are followed; none is missed from then on. */
export async function followFiles(init: HotReloadInit): Promise<{ close(): void }> {
  const reload = new HotReload(init);
  const { directories, configFiles, reconcileIntervalMs } = init.options.resources;
  const configFolders = configFiles.map((file) => ({
    path: dirname(file),
    matters: (name: string) => name === basename(file) || isMount(name),
  }));
  const watch = new FolderWatch({
    folders: [...directories.map((path) => ({ path, matters: isResource })), ...configFolders],
    intervalMs: reconcileIntervalMs,
    clock: init.clock,
    changed: () => reload.run("change"),
  });
  await watch.start();
  // What changed between the reading of the files and the watch.
  await reload.run("start");
  return watch;
}

function isResource(name: string): boolean {
  return /\.ya?ml$/i.test(name) || isMount(name);
}

/** Kubernetes changes all files of a mounted ConfigMap by exchanging the link `..data`. */
function isMount(name: string): boolean {
  return name.startsWith("..");
}

class HotReload {
  readonly #init: HotReloadInit;
  /** Definitions that a restart depends on. */
  readonly #configuration: string;
  readonly #fixed: string;
  readonly #started: string;
  #refused = "";
  #restarting = false;

  constructor(init: HotReloadInit) {
    this.#init = init;
    this.#configuration = definition(init.configuration);
    this.#fixed = definition(fixedParts(init.resources));
    this.#started = definition(init.resources);
  }

  /** At the start nothing is done when nothing has changed; later, what failed is tried again in any case. */
  async run(when: "start" | "change"): Promise<void> {
    if (this.#restarting) return;
    const { options, env, log, memory, update } = this.#init;
    let resources: LoadedResources;
    let why: string | undefined;
    try {
      resources = await loadResources(options.resources.directories, { appId: options.appId, env }, memory);
      for (const problem of resources.problems) log.warn(formatProblem(problem));
      why = await this.#needsRestart(resources);
      if (when === "start" && why === undefined && definition(resources) === this.#started) return;
    } catch (error) {
      this.#refuse(error);
      return;
    }
    const spoiled = this.#spoiled(resources);
    if (spoiled !== undefined) {
      this.#refuse(spoiled);
      return update(resources);
    }
    this.#refused = "";
    // The new life reads the files afresh, so it must not begin while one of them cannot be read.
    if (why === undefined || resources.held.length > 0) {
      if (why !== undefined) log.warn(`${why}; it is taken up when ${resources.held.join(", ")} can be used`);
      await update(resources);
      return;
    }
    this.#restarting = true;
    this.#init.restart(why);
  }

  /** A policy that could be used when this life began and cannot any more: a restart would lose it. */
  #spoiled({ resiliencies }: LoadedResources): Error | undefined {
    const before = new Set(this.#init.resources.resiliencies.filter(isFaulty).map(({ name }) => name));
    const found = resiliencies.find((resource) => isFaulty(resource) && !before.has(resource.name));
    const [fault] = found?.faults ?? [];
    return fault && new Error(`Resiliency ${found!.name} cannot be used: ${formatProblem(fault)}`);
  }

  async #needsRestart(resources: LoadedResources): Promise<string | undefined> {
    const { options, env } = this.#init;
    if (definition(fixedParts(resources)) !== this.#fixed)
      return "An HTTPEndpoint or Resiliency resource has changed";
    const { configFiles } = options.resources;
    if (configFiles.length === 0) return undefined;
    const configuration = await loadConfiguration(configFiles, configurationEnv(options, env));
    return definition(configuration) === this.#configuration ? undefined : "The Configuration has changed";
  }

  /** The same refusal is told once. */
  #refuse(error: unknown): void {
    const text = error instanceof Error ? error.message : String(error);
    if (text === this.#refused) return;
    this.#refused = text;
    this.#init.log.error(`changed files are not taken up, everything goes on as before: ${text}`);
  }
}

function isFaulty({ faults }: LoadedResources["resiliencies"][number]): boolean {
  return faults.length > 0;
}

/** What a running sidecar cannot change in place. */
function fixedParts({ httpEndpoints, resiliencies }: LoadedResources): unknown {
  return [httpEndpoints, resiliencies];
}

/** Data as text, without places in files and what was said about them. */
function definition(data: unknown): string {
  return JSON.stringify(data, (key, value: unknown) =>
    key === "origin" || key === "typeOrigin" || key === "problems" ? undefined : value,
  );
}
