/**
 * `npm run bench`: our jobs beside the ceilings of the same machine, in one run, as ratios to a bare node:http echo.
 * Rounds alternate between the echo and every job, so that a noisy neighbour hits all alike; the median round counts.
 * `-- --seconds N` and `-- --rounds N` make it longer or shorter. Nothing here asserts.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { nativeComponents } from "../kit/native-components.ts";
import { freePort } from "../kit/ports.ts";
import { checkout, nodeBinary, sidecarCommand } from "../kit/paths.ts";
import { startNats, startProcess, startSidecar, eventually } from "../kit/index.ts";
import type { Sidecar } from "../kit/sidecar.ts";
import { type CryptoRow, measureCrypto, printCrypto } from "./crypto-bench.ts";
import { measureEvents, printEvents, type EventRow } from "./events-bench.ts";
import { grpcLoad } from "./grpc-load.ts";
import { httpLoad, type HttpJob, type LoadResult } from "./http-load.ts";
import { manyKeysRead, natsCeilings, natsLoad } from "./nats-load.ts";
import { measureStreams, printStreams, type StreamRow } from "./stream-bench.ts";
import { costLimit, measureTelemetry } from "./telemetry-cost.ts";
import { cpuMs, residentMb } from "./process-usage.ts";

const connections = 32;

/** Smallest ratios that the issues ask for. */
const floors: Readonly<Record<string, number>> = {
  invoke: 0.1,
  "state get": 0.48,
  "state save": 0.43,
  publish: 0.45,
};

/** Keys of one bulk get; the ceiling of that name reads as many. */
const manyKeys = Array.from({ length: 100 }, (_, at) => `many-${at}`);
const bulkGet = "bulk get 100";

/** Smallest ratio of a bulk get to the bare read of as many keys (issue E). */
const bulkFloor = 0.5;

/** A load with so many calls at once for so long. */
type Job = (underWay: number, seconds: number) => Promise<LoadResult>;

type Row = {
  readonly name: string;
  readonly perSecond: number;
  readonly ratio: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU of all sidecars per request, microseconds. */
  readonly cpuUs: number;
};

type Report = {
  readonly commit: string;
  readonly rows: readonly Row[];
  readonly ceilings: Readonly<Record<string, number>>;
  readonly readyMs: number;
  readonly idleMb: number;
  readonly singleInvokeP50Ms: number;
  readonly streams: readonly StreamRow[];
  readonly events: readonly EventRow[];
  readonly crypto: readonly CryptoRow[];
};

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "3" },
    /** Only what tracing and metrics cost an invocation. */
    telemetry: { type: "boolean", default: false },
    /** Only large bodies. */
    streams: { type: "boolean", default: false },
    /** Only publish to delivery. */
    events: { type: "boolean", default: false },
    /** Only encryption. */
    crypto: { type: "boolean", default: false },
  },
});
const seconds = Number(values.seconds);
const rounds = Number(values.rounds);
if (values.telemetry) await runTelemetry();
else if (values.streams) await runStreams();
else if (values.events) await runEvents();
else if (values.crypto) await runCrypto();
else {
  const report = await run();
  print(report);
  save(report);
}

async function runStreams(): Promise<void> {
  await using nats = await startNats();
  printStreams(await measureStreams(sidecarBinary(), nats));
}

async function runEvents(): Promise<void> {
  const command = sidecarBinary();
  await using nats = await startNats();
  await using echo = await startEcho();
  const echoUrl = `http://127.0.0.1:${echo.port}/`;
  printEvents(await measureEvents({ command, nats, echoUrl, connections, seconds, rounds }));
}

async function runCrypto(): Promise<void> {
  await using nats = await startNats();
  printCrypto(await measureCrypto(sidecarBinary(), nats, rounds));
}

async function runTelemetry(): Promise<void> {
  const command = sidecarBinary();
  await using nats = await startNats();
  await using echo = await startEcho();
  const cost = await measureTelemetry({ command, nats, echoPort: echo.port, connections, seconds, rounds });
  const percent = (part: number): string => `${(part * 100).toFixed(1)} %`;
  console.log(
    `\ntracing of every call (OTLP) and metrics on: ${cost.on.toFixed(0)}/s, off: ${cost.off.toFixed(0)}/s, ` +
      `${percent(1 - cost.on / cost.off)} of the throughput, limit ${percent(costLimit)}\n` +
      `CPU of both sidecars a call: ${cost.onCpuUs.toFixed(0)} us, ${cost.offCpuUs.toFixed(0)} us, ` +
      `${percent(cost.onCpuUs / cost.offCpuUs - 1)} more`,
  );
}

/** The app behind the callee. */
async function startEcho(): Promise<AsyncDisposable & { readonly port: number }> {
  const port = await freePort();
  const process = await startProcess({
    name: "echo",
    command: nodeBinary(),
    args: [join(checkout, "test", "load", "echo.mjs"), String(port)],
  });
  await eventually(() => fetch(`http://127.0.0.1:${port}/`));
  return { port, [Symbol.asyncDispose]: () => process[Symbol.asyncDispose]() };
}

async function run(): Promise<Report> {
  const command = sidecarBinary();
  await using nats = await startNats();
  await using echo = await startEcho();
  const echoPort = echo.port;
  const echoUrl = `http://127.0.0.1:${echoPort}/`;
  const grpcPort = await freePort();
  await using grpcEcho = await startProcess({
    name: "gRPC echo",
    command: nodeBinary(),
    args: [join(checkout, "test", "load", "grpc-echo.mjs"), String(grpcPort)],
  });
  const readyMs = await measureReady(command, nats);
  const resources = { "components.yaml": nativeComponents };
  await using caller = await startSidecar({ appId: "caller", nats, resources, command });
  await using callee = await startSidecar({ appId: "callee", appPort: echoPort, nats, resources, command });
  const grpc = { appId: "grpc-callee", appPort: grpcPort, appProtocol: "grpc" };
  await using grpcCallee = await startSidecar({ ...grpc, nats, resources, command });
  const idleMb = residentMb(caller.pid);
  const jobs = makeJobs(caller, echoUrl, grpcPort);
  await saveManyKeys(caller);
  for (const job of Object.values(jobs)) await job(connections, 1);
  const pids = [caller.pid, callee.pid, grpcCallee.pid];
  const results = await measure(jobs, pids);
  const single = await jobs["invoke"]!(1, 2);
  const ceilings = await measureCeilings(nats.url);
  const streams = await measureStreams(command, nats);
  const events = await measureEvents({ command, nats, echoUrl, connections, seconds, rounds });
  const crypto = await measureCrypto(command, nats, rounds);
  void grpcEcho;
  return {
    commit: execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: checkout, encoding: "utf8" }).trim(),
    rows: results,
    ceilings,
    readyMs,
    idleMb,
    singleInvokeP50Ms: single.p50Ms,
    streams,
    events,
    crypto,
  };
}

/** The built executable when it is there, as users run it; else the source. */
function sidecarBinary(): [string, ...string[]] {
  const built = join(checkout, "dist", "weftd");
  if (existsSync(built)) return [built];
  console.log("dist/weftd is not there (npm run build): measuring from source");
  return [...sidecarCommand()];
}

function makeJobs(sidecar: Sidecar, echoUrl: string, grpcPort: number): Record<string, Job> {
  const text = "x".repeat(256);
  const json = { "content-type": "application/json" };
  const state = `${sidecar.httpUrl}/v1.0/state/statestore`;
  const save = JSON.stringify([{ key: "bench", value: text }]);
  const http: Record<string, HttpJob> = {
    echo: { url: echoUrl, method: "POST", body: text },
    invoke: { url: `${sidecar.httpUrl}/v1.0/invoke/callee/method/echo`, method: "POST", body: text },
    "state save": { url: state, method: "POST", body: save, headers: json },
    "state get": { url: `${state}/bench`, method: "GET" },
    [bulkGet]: {
      url: `${state}/bulk`,
      method: "POST",
      body: JSON.stringify({ keys: manyKeys }),
      headers: json,
    },
    publish: {
      url: `${sidecar.httpUrl}/v1.0/publish/pubsub/bench`,
      method: "POST",
      body: JSON.stringify({ text: "x".repeat(245) }),
      headers: json,
    },
  };
  const jobs = Object.entries(http).map(([name, job]): [string, Job] => [
    name,
    (underWay, long) => httpLoad(job, underWay, long),
  ]);
  const unary = { path: "/bench.Echo/Echo", message: Buffer.from(text) };
  const direct = { ...unary, port: grpcPort, metadata: {} };
  const proxied = { ...unary, port: sidecar.grpcPort, metadata: { "dapr-app-id": "grpc-callee" } };
  return {
    ...Object.fromEntries(jobs),
    "bare gRPC": (underWay, long) => grpcLoad(direct, underWay, long),
    "proxied gRPC": (underWay, long) => grpcLoad(proxied, underWay, long),
  };
}

async function saveManyKeys(sidecar: Sidecar): Promise<void> {
  const items = manyKeys.map((key) => ({ key, value: "x".repeat(256) }));
  const saved = await sidecar.post("/v1.0/state/statestore", items);
  if (saved.status !== 204) throw new Error(`state save: ${saved.status} ${saved.text}`);
}

async function measure(jobs: Record<string, Job>, pids: readonly number[]): Promise<Row[]> {
  const taken = new Map<string, { load: LoadResult; ratio: number; cpuUs: number }[]>();
  for (let round = 1; round <= rounds; round++) {
    const echo = await jobs["echo"]!(connections, seconds);
    for (const [name, job] of Object.entries(jobs)) {
      const before = totalCpuMs(pids);
      const load = name === "echo" ? echo : await job(connections, seconds);
      const cpuUs = name === "echo" ? 0 : ((totalCpuMs(pids) - before) * 1000) / load.requests;
      const ratio = load.perSecond / echo.perSecond;
      console.log(
        `round ${round}  ${name.padEnd(12)} ${load.perSecond.toFixed(0).padStart(7)}/s  ${ratio.toFixed(3)}`,
      );
      taken.set(name, [...(taken.get(name) ?? []), { load, ratio, cpuUs }]);
    }
  }
  return [...taken].map(([name, samples]) => {
    const { load, ratio, cpuUs } = samples.sort((a, b) => a.ratio - b.ratio)[samples.length >> 1]!;
    return { name, ratio, cpuUs, perSecond: load.perSecond, p50Ms: load.p50Ms, p99Ms: load.p99Ms };
  });
}

function totalCpuMs(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuMs(pid), 0);
}

async function measureCeilings(url: string): Promise<Record<string, number>> {
  const { ceilings, close } = await natsCeilings(url, manyKeys.length);
  const measured: Record<string, number> = {};
  for (const { name, run: once } of ceilings) {
    await natsLoad(once, connections, 0.5);
    measured[name] = await natsLoad(once, connections, seconds);
  }
  await close();
  return measured;
}

/** From the start of the process to outbound health, with NATS up; the best of five, ms. */
async function measureReady(
  command: [string, ...string[]],
  nats: Awaited<ReturnType<typeof startNats>>,
): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const startMs = performance.now();
    const resources = { "components.yaml": nativeComponents };
    await using sidecar = await startSidecar({
      appId: `ready${i}`,
      nats,
      resources,
      command,
      wait: "outbound",
    });
    times.push(performance.now() - startMs);
    void sidecar;
  }
  return Math.min(...times);
}

function print({ rows, ceilings, readyMs, idleMb, singleInvokeP50Ms, ...large }: Report): void {
  const last = lastReport();
  console.log(
    `\n${connections} connections, 256-byte bodies, metrics on; ratio to a bare node:http echo of the same round`,
  );
  console.log("job             req/s   ratio  floor   p50 ms  p99 ms  sidecar CPU us  last ratio");
  for (const row of rows) {
    const before = last?.rows.find((candidate) => candidate.name === row.name);
    console.log(
      [
        row.name.padEnd(13),
        row.perSecond.toFixed(0).padStart(7),
        row.ratio.toFixed(3).padStart(7),
        (floors[row.name]?.toFixed(2) ?? "").padStart(6),
        String(row.p50Ms).padStart(8),
        String(row.p99Ms).padStart(7),
        row.cpuUs.toFixed(0).padStart(15),
        (before === undefined ? "" : `${before.ratio.toFixed(3)} (${last?.commit})`).padStart(16),
      ].join(" "),
    );
  }
  console.log(`\nceilings of one NATS client, ${connections} under way, 256 bytes`);
  for (const [name, perSecond] of Object.entries(ceilings))
    console.log(`${name.padEnd(18)} ${perSecond.toFixed(0)}/s`);
  const bulk = rows.find(({ name }) => name === bulkGet)!.perSecond / ceilings[manyKeysRead]!;
  console.log(`${bulkGet} to ${manyKeysRead}: ${bulk.toFixed(3)}, floor ${bulkFloor}`);
  printStreams(large.streams);
  printEvents(large.events);
  printCrypto(large.crypto);
  console.log(`\nready (process start to outbound health, NATS up): ${readyMs.toFixed(0)} ms, limit 200`);
  console.log(`idle memory: ${idleMb.toFixed(0)} MB, limit 90`);
  console.log(`invocation at one connection: p50 ${singleInvokeP50Ms} ms`);
}

function reportFile(): string {
  return join(checkout, ".cache", "bench", "last.json");
}

function lastReport(): Report | undefined {
  return existsSync(reportFile()) ? (JSON.parse(readFileSync(reportFile(), "utf8")) as Report) : undefined;
}

function save(made: Report): void {
  mkdirSync(join(checkout, ".cache", "bench"), { recursive: true });
  writeFileSync(reportFile(), `${JSON.stringify(made, null, 2)}\n`);
}
