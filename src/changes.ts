/**
 * Takes changed files into a running sidecar, part by part: each exchanges what it has made of the old ones, for calls
 * from then on. Ports stay open and calls under way end as they began. What cannot be taken in is logged, leaves what
 * was there, and keeps nothing else back: see docs/decisions/0025-changes-apply-in-place.md.
 */
import type { Apis } from "./apis.ts";
import type { Block } from "./blocks/block.ts";
import { definitionText } from "./config/definition.ts";
import type { ConfigurationResource } from "./config/kinds/configuration.ts";
import type { LoadedResources } from "./config/resources.ts";
import { type Foundation, wantedComponents } from "./foundation.ts";
import { textOf } from "./lib/thrown.ts";
import type { Log } from "./telemetry/log.ts";

/** Deliveries that run on a component get this long when it is replaced or removed, ms. */
const changeGraceMs = 5_000;

/** What a sidecar is made of, beside its flags. */
export type Files = {
  readonly configuration: ConfigurationResource;
  readonly resources: LoadedResources;
};

export type ChangesInit = Omit<Foundation, "mesh" | "app"> & {
  readonly blocks: readonly Block[];
  /** What the sidecar was started with. */
  readonly files: Files;
  readonly log: Log;
  /** Aborted when the sidecar stops: nothing begins then. */
  readonly stopping: AbortSignal;
};

/** One per sidecar. */
export class Changes {
  readonly #init: ChangesInit;
  #files: Files;

  constructor(init: ChangesInit) {
    this.#init = init;
    this.#files = init.files;
    const { components } = init;
    components.follow({
      changed: (change) => this.#tell((block) => block.componentChanged?.(change, changeGraceMs)),
    });
  }

  /** What was taken in last. */
  get files(): Files {
    return this.#files;
  }

  /** Never rejects; calls must not overlap. */
  async take(next: Files, apis: Pick<Apis, "set">): Promise<void> {
    const before = this.#files;
    const { configuration, resources } = next;
    await this.#step(async () => {
      if (differ(before.configuration, configuration)) await this.#configure(configuration, apis);
      this.#files = { ...this.#files, configuration };
    });
    this.#files = { ...this.#files, resources };
    await this.#step(() => this.#components());
    await this.#step(async () => {
      if (differ(before.resources.resiliencies, resources.resiliencies))
        await this.#init.policies.set(resources.resiliencies);
    });
    await this.#step(() => this.#endpoints(resources));
    if (differ(before.resources.subscriptions, resources.subscriptions))
      await this.#tell((block) => block.subscriptionsChanged?.(resources.subscriptions, changeGraceMs));
  }

  /** Only opening the tracing can fail, so it comes first. The APIs take up what all others are by then. */
  async #configure(configuration: ConfigurationResource, apis: Pick<Apis, "set">): Promise<void> {
    const { tracing, metrics, pipelines, blocks, log } = this.#init;
    await tracing.set(configuration.tracing);
    metrics.set(configuration.metrics);
    pipelines.set(configuration);
    for (const block of blocks) block.configurationChanged?.(configuration);
    apis.set(configuration);
    log.info("Configuration updated");
  }

  /** In any case, also to try again what failed. */
  async #components(): Promise<void> {
    const { components, pipelines } = this.#init;
    const { configuration, resources } = this.#files;
    await components.apply(wantedComponents(configuration, resources));
    pipelines.warnSkipped();
  }

  /** In any case: their secrets may be others. */
  async #endpoints({ httpEndpoints }: LoadedResources): Promise<void> {
    const { endpoints, blocks, log } = this.#init;
    if (!(await endpoints.set(httpEndpoints))) return;
    for (const block of blocks) block.httpEndpointsChanged?.(endpoints.all);
    log.info(`HTTPEndpoints updated: ${endpoints.all.map(({ name }) => name).join(", ") || "none"}`);
  }

  async #step(step: () => Promise<void>): Promise<void> {
    if (this.#init.stopping.aborted) return;
    try {
      await step();
    } catch (error) {
      this.#refused(error);
    }
  }

  async #tell(step: (block: Block) => Promise<void> | undefined): Promise<void> {
    if (this.#init.stopping.aborted) return;
    const outcomes = await Promise.allSettled(this.#init.blocks.map(async (block) => step(block)));
    for (const outcome of outcomes) if (outcome.status === "rejected") this.#refused(outcome.reason);
  }

  #refused(error: unknown): void {
    this.#init.log.error(`a change is not taken up: ${textOf(error)}`);
  }
}

function differ(before: unknown, now: unknown): boolean {
  return before !== now && definitionText(before) !== definitionText(now);
}
