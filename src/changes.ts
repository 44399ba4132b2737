/**
 * Takes changed resources into a running sidecar: components first, then subscriptions, each block being told. What
 * fails is logged and keeps nothing else back.
 */
import type { Block } from "./blocks/block.ts";
import type { RunningComponents } from "./components/open.ts";
import type { LoadedResources } from "./config/resources.ts";
import type { Log } from "./telemetry/log.ts";

/** Deliveries that run on a component get this long when it is replaced or removed, ms. */
const changeGraceMs = 5_000;

export type ChangesInit = {
  readonly components: RunningComponents;
  readonly blocks: readonly Block[];
  /** What the sidecar was started with. */
  readonly resources: LoadedResources;
  readonly log: Log;
  /** Aborted when the sidecar stops: nothing begins then. */
  readonly stopping: AbortSignal;
};

export type Changes = {
  /** Never rejects; calls must not overlap. */
  update(resources: LoadedResources): Promise<void>;
  /** What was taken in last. */
  resources(): LoadedResources;
};

export function createChanges(init: ChangesInit): Changes {
  const { components, blocks, log, stopping } = init;
  let current = init.resources;
  let subscriptions = subscriptionsText(current.subscriptions);

  const tell = async (step: (block: Block) => Promise<void> | undefined): Promise<void> => {
    if (stopping.aborted) return;
    for (const outcome of await Promise.allSettled(blocks.map(async (block) => step(block)))) {
      if (outcome.status === "rejected") log.error(`a change is not taken up: ${String(outcome.reason)}`);
    }
  };

  components.follow({
    async check(category, component) {
      for (const block of blocks) await block.checkComponent?.(category, component);
    },
    changed: (change) => tell((block) => block.componentChanged?.(change, changeGraceMs)),
  });

  const update = async (resources: LoadedResources): Promise<void> => {
    if (stopping.aborted) return;
    current = resources;
    await components.apply(resources.components);
    const text = subscriptionsText(resources.subscriptions);
    if (text === subscriptions) return;
    subscriptions = text;
    await tell((block) => block.subscriptionsChanged?.(resources.subscriptions, changeGraceMs));
  };
  return { update, resources: () => current };
}

/** Places in files do not count. */
function subscriptionsText(subscriptions: LoadedResources["subscriptions"]): string {
  return JSON.stringify(subscriptions, (key, value: unknown) => (key === "origin" ? undefined : value));
}
