/**
 * Reads the files of a running sidecar again whenever something changes in their folders, and hands on what they hold
 * (to changes.ts). Whatever is wrong with a file, what works goes on as it is: see
 * docs/decisions/0018-reload-keeps-what-works.md.
 */
import { basename, dirname } from "node:path";
import type { Clock } from "../mesh/index.ts";
import type { Files } from "./changes.ts";
import { definitionText } from "./config/definition.ts";
import { enabledFeatures } from "./config/kinds/configuration.ts";
import { loadConfiguration } from "./config/load-configuration.ts";
import { notEnforced } from "./config/not-enforced.ts";
import { configurationEnv, type SidecarOptions } from "./config/options.ts";
import { type FileMemory, formatProblem, loadResources } from "./config/resources.ts";
import { FolderWatch } from "./config/watch-folders.ts";
import { textOf } from "./lib/thrown.ts";
import type { Log } from "./telemetry/log.ts";

export type HotReloadInit = {
  readonly options: SidecarOptions;
  readonly env: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly log: Log;
  /** What the sidecar was started with. */
  readonly files: Files;
  readonly memory: FileMemory;
  /** Makes the sidecar follow. Never rejects. */
  readonly update: (files: Files) => Promise<void>;
};

/** Resolves when changes are followed; none is missed from then on. */
export async function followFiles(init: HotReloadInit): Promise<{ close(): void }> {
  const { directories, configFiles, reconcileIntervalMs } = init.options.resources;
  const configFolders = configFiles.map((file) => ({
    path: dirname(file),
    matters: (name: string) => name === basename(file) || isMount(name),
  }));
  const reload = new HotReload(init, () => watch.close());
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

/** What is to be said about files that were read. */
export function warningsOf({ configuration, resources }: Files): string[] {
  const problems = [...configuration.problems, ...resources.problems];
  return [...problems.map(formatProblem), ...notEnforced(configuration, resources)];
}

class HotReload {
  readonly #init: HotReloadInit;
  readonly #close: () => void;
  #files: Files;
  /** Lines of the last time. */
  #told: ReadonlySet<string>;
  /** One at a time. */
  #turn: Promise<void> = Promise.resolve();
  #ended = false;

  constructor(init: HotReloadInit, close: () => void) {
    this.#init = init;
    this.#close = close;
    this.#files = init.files;
    this.#told = new Set(warningsOf(init.files));
  }

  /** At the start nothing is done when nothing has changed; later, what failed is tried again in any case. */
  run(when: "start" | "change"): Promise<void> {
    return (this.#turn = this.#turn.then(() => this.#run(when)));
  }

  async #run(when: "start" | "change"): Promise<void> {
    if (this.#ended) return;
    const before = this.#files;
    this.#files = await this.#read();
    if (when === "start" && definitionText(this.#files) === definitionText(before)) return;
    await this.#init.update(this.#files);
    if (enabledFeatures(this.#files.configuration).includes("HotReload")) return;
    this.#ended = true;
    this.#close();
    this.#init.log.warn("the Configuration turns HotReload off: files are not followed from here on");
  }

  /** Of what cannot be read, the last that could. */
  async #read(): Promise<Files> {
    const refusals: string[] = [];
    const refuse = (error: unknown): void =>
      void refusals.push(`changed files are not taken up, everything goes on as before: ${textOf(error)}`);
    const { options, env, log, memory } = this.#init;
    let { configuration, resources } = this.#files;
    try {
      const { configFiles } = options.resources;
      if (configFiles.length > 0)
        configuration = await loadConfiguration(configFiles, configurationEnv(options, env), "again");
    } catch (error) {
      refuse(error);
    }
    try {
      const audience = { appId: options.appId, env };
      resources = await loadResources(options.resources.directories, audience, memory);
    } catch (error) {
      refuse(error);
    }
    const files = { configuration, resources };
    const warnings = warningsOf(files);
    for (const line of warnings) if (!this.#told.has(line)) log.warn(line);
    for (const line of refusals) if (!this.#told.has(line)) log.error(line);
    this.#told = new Set([...warnings, ...refusals]);
    return files;
  }
}
