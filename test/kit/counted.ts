/** A sidecar that tells what it holds: its calls and streams, and memory once garbage is gone. */
import { freePort } from "./ports.ts";
import { startSidecar, type Sidecar, type SidecarOptions } from "./sidecar.ts";

/** Memory in bytes, after a garbage collection. */
export type Counts = {
  readonly mesh: { pendingRequests: number; servedCalls: number; streams: number };
  /** Open handles by kind. */
  readonly handles: Readonly<Record<string, number>>;
  readonly memory: { heapUsed: number; external: number; arrayBuffers: number };
};

export type Counted = { readonly sidecar: Sidecar; counts(): Promise<Counts> };

/** Starts a sidecar with `--enable-profiling`. */
export async function startCounted(options: SidecarOptions): Promise<Counted> {
  const port = await freePort();
  const flags = [...(options.flags ?? []), "--enable-profiling=true", `--profile-port=${port}`];
  const sidecar = await startSidecar({ ...options, flags });
  const counts = async (): Promise<Counts> =>
    (await (await fetch(`http://127.0.0.1:${port}/debug/pprof/counts`)).json()) as Counts;
  return { sidecar, counts };
}

/** Bytes on the heap and beside it. */
export function heldBytes({ memory }: Counts): number {
  return memory.heapUsed + memory.external;
}
