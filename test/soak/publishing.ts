/** A publisher that numbers its events and remembers which of them were acknowledged. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Sidecar } from "../kit/index.ts";

const parallel = 8;

/** Resolves with the acknowledged numbers after the signal. A refused or broken publish is simply not acknowledged. */
export async function publishing(sidecar: Sidecar, signal: AbortSignal): Promise<number[]> {
  const acked: number[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (!signal.aborted) {
      const n = next++;
      const answer = await sidecar.post("/v1.0/publish/pubsub/soak", { n }).catch(() => undefined);
      if (answer?.status === 204) acked.push(n);
      else await sleep(50);
      await sleep(5);
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  return acked;
}
