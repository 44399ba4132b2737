/** The building blocks of a sidecar, one line each. */
import type { OpenComponent } from "../components/open.ts";
import { checkBinding } from "./bindings/bindings.ts";
import { bindingsBlock } from "./bindings/index.ts";
import type { Block, BlockHost } from "./block.ts";
import { cryptoBlock } from "./crypto/index.ts";
import { configurationBlock } from "./configuration/index.ts";
import { invocationBlock, type InvocationBlock } from "./invocation/index.ts";
import { lockBlock } from "./lock/index.ts";
import { checkLockStore } from "./lock/lock.ts";
import { outboxBlock } from "./outbox/index.ts";
import { pubsubBlock } from "./pubsub/index.ts";
import { secretsBlock } from "./secrets/index.ts";
import { stateBlock } from "./state/index.ts";
import { checkStateStore } from "./state/stores.ts";

/** Invocation stands apart as well: it takes what no route takes, and serves calls from the mesh. */
export async function makeBlocks(
  host: BlockHost,
): Promise<{ blocks: readonly Block[]; invocation: InvocationBlock }> {
  const invocation = invocationBlock(host);
  const pubsub = await pubsubBlock(host);
  const outbox = outboxBlock(host, pubsub);
  const blocks = [
    invocation,
    pubsub,
    outbox,
    stateBlock(host, outbox.outboxOf),
    bindingsBlock(host),
    secretsBlock(host),
    cryptoBlock(host),
    lockBlock(host),
    configurationBlock(host),
  ];
  return { invocation, blocks };
}

/** Throws a readable Error when the block of the category cannot serve a component that did open. */
export function checkComponent(category: string, component: OpenComponent): void {
  if (category === "state") checkStateStore(component);
  if (category === "lock") checkLockStore(component);
  if (category === "bindings") checkBinding(component);
}
