/**
 * What tracing and metrics cost: the same invocation through two pairs of sidecars, one with every call traced and
 * exported and with metrics, one with neither, turn by turn in one run.
 */
import { join } from "node:path";
import { checkout, eventually, freePort, nodeBinary, startProcess, startSidecar } from "../kit/index.ts";
import type { Nats } from "../kit/index.ts";
import type { Sidecar } from "../kit/sidecar.ts";
import { httpLoad, type HttpJob } from "./http-load.ts";
import { cpuMs } from "./process-usage.ts";

export type CostOptions = {
  readonly command: readonly [string, ...string[]];
  readonly nats: Nats;
  readonly echoPort: number;
  readonly connections: number;
  readonly seconds: number;
  readonly rounds: number;
};

/** Largest part of the throughput that telemetry may cost. */
export const costLimit = 0.15;

export type Cost = {
  /** Requests a second without and with, of the median round by their ratio. */
  readonly off: number;
  readonly on: number;
  /** CPU of both sidecars per request, microseconds. */
  readonly offCpuUs: number;
  readonly onCpuUs: number;
  /** Part of the throughput that was lost: 0.1 is 10 %. */
  readonly cost: number;
};

/** Prints each round. Rejects when a call failed. */
export async function measureTelemetry(options: CostOptions): Promise<Cost> {
  const sinkPort = await freePort();
  await using sink = await startProcess({
    name: "trace sink",
    command: nodeBinary(),
    args: [join(checkout, "test", "load", "sink.mjs"), String(sinkPort)],
  });
  await eventually(() => fetch(`http://127.0.0.1:${sinkPort}/`));
  await using off = await startPair(options, "off", offConfig);
  await using on = await startPair(options, "on", onConfig(sinkPort));
  const { connections, seconds, rounds } = options;
  for (const pair of [off, on]) await httpLoad(pair.job, connections, 2);
  const taken: Cost[] = [];
  for (let round = 1; round <= rounds; round++) {
    const order = round % 2 === 0 ? [on, off] : [off, on];
    const rates = new Map<Pair, { perSecond: number; cpuUs: number }>();
    for (const pair of order) rates.set(pair, await measure(pair, connections, seconds));
    const [without, with_] = [rates.get(off)!, rates.get(on)!];
    const cost = 1 - with_.perSecond / without.perSecond;
    console.log(
      `round ${round}  off ${without.perSecond.toFixed(0)}/s ${without.cpuUs.toFixed(0)} us  ` +
        `on ${with_.perSecond.toFixed(0)}/s ${with_.cpuUs.toFixed(0)} us  cost ${(cost * 100).toFixed(1)} %`,
    );
    taken.push({
      off: without.perSecond,
      on: with_.perSecond,
      offCpuUs: without.cpuUs,
      onCpuUs: with_.cpuUs,
      cost,
    });
  }
  void sink;
  return taken.sort((a, b) => a.cost - b.cost)[taken.length >> 1]!;
}

type Pair = AsyncDisposable & { readonly job: HttpJob; readonly pids: readonly number[] };

const offConfig = `apiVersion: dapr.io/v1alpha1
kind: Configuration
spec:
  tracing: {samplingRate: "0"}
  metrics: {enabled: false}
`;

const onConfig = (port: number): string => `apiVersion: dapr.io/v1alpha1
kind: Configuration
spec:
  tracing:
    samplingRate: "1"
    otel: {protocol: http, endpointAddress: "127.0.0.1:${port}", isSecure: false}
  metrics: {enabled: true}
`;

async function startPair(options: CostOptions, name: string, config: string): Promise<Pair> {
  const stack = new AsyncDisposableStack();
  const { command, nats, echoPort } = options;
  const start = async (appId: string, appPort?: number): Promise<Sidecar> =>
    stack.use(
      await startSidecar({ appId, nats, command, config, ...(appPort === undefined ? {} : { appPort }) }),
    );
  const callee = await start(`callee-${name}`, echoPort);
  const caller = await start(`caller-${name}`);
  const url = `${caller.httpUrl}/v1.0/invoke/callee-${name}/method/echo`;
  return {
    job: { url, method: "POST", body: "x".repeat(256) },
    pids: [callee.pid, caller.pid],
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function measure(
  { job, pids }: Pair,
  connections: number,
  seconds: number,
): Promise<{ perSecond: number; cpuUs: number }> {
  const used = (): number => pids.reduce((sum, pid) => sum + cpuMs(pid), 0);
  const before = used();
  const load = await httpLoad(job, connections, seconds);
  return { perSecond: load.perSecond, cpuUs: ((used() - before) * 1000) / load.requests };
}
