/**
 * The publish/subscribe block: apps publish events through it and get those they subscribed to.
 * See README.md for the way of an event through the files of this folder.
 */
import type { BlockHost } from "../block.ts";
import { createPubSubBlock, type PubSubBlock } from "./pubsub.ts";

/** Rejects with an Error when a declarative subscription cannot be run; the message names its file and line. */
export function pubsubBlock(host: BlockHost): Promise<PubSubBlock> {
  return createPubSubBlock(host);
}
