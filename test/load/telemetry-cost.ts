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
  /** Requests a second without and with, over all turns. */
  readonly off: number;
  readonly on: number;
  /** CPU of both sidecars per request, microseconds. */
  readonly offCpuUs: number;
  readonly onCpuUs: number;
};

/** Length of one turn, s: short, so that a noisy neighbour hits both sides alike. */
const turnSeconds = 1;

/** So many pairs of turns as fill the rounds; their sums count. Rejects when a call failed. */
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
  for (const pair of [off, on]) await httpLoad(pair.job, connections, 3);
  const sums = new Map([off, on].map((pair) => [pair, { requests: 0, seconds: 0, cpuMs: 0 }]));
  const turns = Math.ceil((seconds * rounds) / turnSeconds);
  for (let turn = 0; turn < turns; turn++) {
    for (const pair of turn % 2 === 0 ? [off, on] : [on, off]) {
      const sum = sums.get(pair)!;
      const before = usedMs(pair);
      const load = await httpLoad(pair.job, connections, turnSeconds);
      sum.cpuMs += usedMs(pair) - before;
      sum.requests += load.requests;
      sum.seconds += load.requests / load.perSecond;
    }
  }
  void sink;
  const [without, with_] = [sums.get(off)!, sums.get(on)!];
  return {
    off: without.requests / without.seconds,
    on: with_.requests / with_.seconds,
    offCpuUs: (without.cpuMs * 1000) / without.requests,
    onCpuUs: (with_.cpuMs * 1000) / with_.requests,
  };
}

function usedMs({ pids }: Pair): number {
  return pids.reduce((sum, pid) => sum + cpuMs(pid), 0);
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
