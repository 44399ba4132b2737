/**
 * Three sidecars under load while nats-server and sidecars are killed and frozen at random (the seed is printed). At
 * the end every acknowledged publish was handled, every acknowledged save is there, and counters kept by
 * compare-and-set are exact. Before that, components are added, changed and removed in `--cycles` rounds (200) while
 * others are called: no such call fails, no handle or memory is left behind. Runs when it is imported.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { eventually, startApp, startNats, startSidecar } from "../kit/index.ts";
import type { Sidecar } from "../kit/index.ts";
import { nativeComponents } from "../kit/native-components.ts";
import { reloadCycles } from "./reload-cycles.ts";
import { seededRandom } from "./random.ts";
import { counting, type CounterResult } from "./counters.ts";
import { publishing } from "./publishing.ts";

/** Memory in use that caches and metrics may take more at one moment than at another, MB. */
const maxGrowthMb = 10;

const components = `${nativeComponents}---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: { name: soak }
scopes: [subscriber]
spec: { pubsubname: pubsub, topic: soak, routes: { default: /soak } }
`;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "5" },
    cycles: { type: "string", default: "200" },
    seed: { type: "string", default: String(Date.now() % 1e6) },
  },
  // The other options are those of soak.ts.
  strict: false,
});
const random = seededRandom(Number(values.seed));
console.log(`soak: ${values.minutes} min, seed ${values.seed}`);

await using nats = await startNats();
const reloads = await reloadCycles(nats, Number(values.cycles));
console.log(`reload: ${JSON.stringify(reloads)}`);
const seen = new Map<number, number>();
await using app = await startApp({
  routes: {
    "/soak": (request) => {
      const { n } = request.json<{ data: { n: number } }>().data;
      seen.set(n, (seen.get(n) ?? 0) + 1);
      // Some events fail at first: their redelivery is part of the load.
      return n % 97 === 0 && seen.get(n) === 1 ? { status: 500 } : {};
    },
  },
});
const resources = { "all.yaml": components };
await using publisher = await startSidecar({ appId: "publisher", nats, resources });
await using first = await startSidecar({ appId: "subscriber", appPort: app.port, nats, resources });
await using second = await startSidecar({ appId: "subscriber", appPort: app.port, nats, resources });
await first.subscribed("soak");

const stop = new AbortController();
const published = publishing(publisher, stop.signal);
const counted = counting([publisher, first], stop.signal);
const faults = await makeFaults(Number(values.minutes) * 60_000);
stop.abort();
const acked = await published;
const counters = await counted;

/** Which of the promises were kept. */
export const meshChecks = report(acked, counters, await settle(acked), faults);

async function makeFaults(totalMs: number): Promise<Record<string, number>> {
  const made: Record<string, number> = {};
  const kinds: Record<string, () => Promise<void>> = {
    "nats kill -9": () => nats.restart(),
    "nats frozen 3 s": async () => {
      await nats.pause();
      await sleep(3_000);
      nats.resume();
    },
    "subscriber kill -9": () => killAndReturn(random() < 0.5 ? first : second),
    "subscriber frozen 12 s": async () => {
      const victim = random() < 0.5 ? first : second;
      await victim.pause();
      await sleep(12_000);
      victim.resume();
    },
    "publisher kill -9": () => killAndReturn(publisher),
  };
  const names = Object.keys(kinds);
  for (const endMs = performance.now() + totalMs; performance.now() < endMs;) {
    await sleep(2_000 + random() * 4_000);
    const name = names[Math.floor(random() * names.length)]!;
    if (name === "nats kill -9") await nats.kill();
    await kinds[name]!();
    made[name] = (made[name] ?? 0) + 1;
    console.log(`${new Date().toISOString().slice(11, 19)}  ${name}; ${seen.size} events handled`);
  }
  return made;
}

async function killAndReturn(sidecar: Sidecar): Promise<void> {
  await sidecar.kill("SIGKILL");
  await sleep(random() * 2_000);
  await sidecar.restart();
}

/** Waits until all acknowledged events have been handled; gives those that never were. */
async function settle(acked: readonly number[]): Promise<number[]> {
  const missing = (): number[] => acked.filter((n) => !seen.has(n));
  await eventually(() => missing().length === 0, { timeoutMs: 90_000 }).catch(() => {});
  return missing();
}

function report(
  acked: readonly number[],
  counters: CounterResult,
  missing: readonly number[],
  faults: Record<string, number>,
): boolean[] {
  const duplicates = [...seen.values()].reduce((sum, count) => sum + count - 1, 0);
  console.log(`faults: ${JSON.stringify(faults)}`);
  console.log(
    `publishes acknowledged ${acked.length}, handled ${seen.size}, handled again ${duplicates}, lost ${missing.length}`,
  );
  console.log(
    `counter: ${counters.acked} increments acknowledged, value ${counters.value}, unknown outcomes ${counters.unknown}`,
  );
  return [
    missing.length === 0 && acked.length > 0,
    reloads.failures.length === 0,
    reloads.handles[1] <= reloads.handles[0] + 5 && reloads.memoryMb[1] <= reloads.memoryMb[0] + maxGrowthMb,
    counters.value >= counters.acked &&
      counters.value <= counters.acked + counters.unknown &&
      counters.acked > 0,
  ];
}
