/** Clients that increment one counter by compare-and-set through several sidecars: the sum must be exact. */
import { setTimeout as sleep } from "node:timers/promises";
import { eventually } from "../kit/index.ts";
import type { Sidecar } from "../kit/index.ts";

const clients = 4;
const path = "/v1.0/state/statestore";
// Both apps see the key only when it carries no prefix of theirs, so each app counts on its own key.
const key = "counter";

export type CounterResult = {
  readonly acked: number;
  /** Writes whose answer was lost: each may or may not have counted. */
  readonly unknown: number;
  readonly value: number;
};

/** Resolves after the signal with the sums over all sidecars. */
export async function counting(sidecars: readonly Sidecar[], signal: AbortSignal): Promise<CounterResult> {
  const sums = { acked: 0, unknown: 0 };
  const work = sidecars.flatMap((sidecar) =>
    Array.from({ length: clients }, () => increments(sidecar, signal, sums)),
  );
  await Promise.all(work);
  let value = 0;
  for (const sidecar of sidecars) {
    value += await eventually(async () => Number((await sidecar.get(`${path}/${key}`)).text), {
      timeoutMs: 30_000,
    });
  }
  return { ...sums, value };
}

async function increments(
  sidecar: Sidecar,
  signal: AbortSignal,
  sums: { acked: number; unknown: number },
): Promise<void> {
  while (!signal.aborted) {
    await sleep(10);
    const read = await sidecar.get(`${path}/${key}`).catch(() => undefined);
    if (read === undefined || (read.status !== 200 && read.status !== 204)) continue;
    const etag = read.headers["etag"];
    const item = { key, value: read.status === 204 ? 1 : Number(read.text) + 1 };
    const guard = etag === undefined ? { options: { concurrency: "first-write" } } : { etag };
    const saved = await sidecar.post(path, [{ ...item, ...guard }]).catch(() => undefined);
    if (saved?.status === 204) sums.acked++;
    else if (saved?.status !== 409) sums.unknown++;
  }
}
