/**
 * `node test/load/stream.ts`: one large body each way through two sidecars, at once, as an echo; prints MB/s, CPU and
 * how much resident memory each sidecar gained. `--mb N` (default 1024), `--direction up|down|both` (default both).
 * `--node <flag>` runs them from source with that flag of node, e.g. `--node=--cpu-prof`, and may be repeated.
 * Beside it stands the ceiling of the machine: the same echo without sidecars. Nothing here asserts.
 */
import { createServer, request, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { checkout, nodeBinary } from "../kit/paths.ts";
import { sidecarNodeFlags } from "../../src/cli/sidecar-command.ts";
import { startNats, startSidecar } from "../kit/index.ts";
import { cpuMs, residentMb } from "./process-usage.ts";

const pieceBytes = 64 * 1024;
/** How often memory is looked at, ms. */
const sampleMs = 50;

if (isMainThread) await main();
else serveApp();

/** The app, in a thread of its own: `/echo` gives back what comes, `/sink` counts it, `/source/<n>` makes n bytes. */
function serveApp(): void {
  const server = createServer((incoming, response) => {
    const [, kind, size] = (incoming.url ?? "").split("/");
    if (kind === "echo") return void incoming.pipe(response);
    if (kind === "source") return void incoming.resume().on("end", () => pour(response, Number(size)));
    let taken = 0;
    incoming.on("data", (chunk: Buffer) => (taken += chunk.length));
    incoming.on("end", () => response.end(String(taken)));
  });
  server.listen(0, "127.0.0.1", () => {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    parentPort!.postMessage((server.address() as AddressInfo).port);
  });
}

type Sink = {
  write(piece: Buffer): boolean;
  end(): void;
  once(event: "drain", listener: () => void): unknown;
};

/** Writes so many bytes as fast as they are taken. */
function pour(sink: Sink, bytes: number): void {
  const piece = Buffer.alloc(pieceBytes, "w");
  let left = bytes;
  const step = (): void => {
    while (left > 0) {
      const next = left >= pieceBytes ? piece : piece.subarray(0, left);
      left -= next.length;
      if (!sink.write(next)) return void sink.once("drain", step);
    }
    sink.end();
  };
  step();
}

type Run = { readonly seconds: number; readonly received: number };

/** Sends `bytes` in chunks to a URL and reads the whole answer. */
function transfer(url: string, bytes: number): Promise<Run> {
  return new Promise((resolve, reject) => {
    const startMs = performance.now();
    const outgoing = request(url, { method: "POST" }, (incoming: IncomingMessage) => {
      let received = 0;
      incoming.on("data", (chunk: Buffer) => (received += chunk.length));
      incoming.once("end", () => resolve({ seconds: (performance.now() - startMs) / 1000, received }));
      incoming.once("error", reject);
      incoming.once("aborted", () => reject(new Error(`cut off after ${received} bytes`)));
    });
    outgoing.once("error", reject);
    pour(outgoing, bytes);
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      mb: { type: "string", default: "1024" },
      direction: { type: "string", default: "both" },
      node: { type: "string", multiple: true },
    },
  });
  const bytes = Number(values.mb) * 1024 * 1024;
  const app = new Worker(new URL(import.meta.url));
  const appPort = await new Promise<number>((resolve) => app.once("message", resolve));
  await using nats = await startNats();
  const flags = ["--max-body-size=8Gi"];
  const command = [
    nodeBinary(),
    ...sidecarNodeFlags,
    ...(values.node ?? []),
    join(checkout, "src", "main.ts"),
  ] as [string, ...string[]];
  const common = { nats, flags, ...(values.node === undefined ? {} : { command }) };
  await using callee = await startSidecar({ appId: "callee", appPort, ...common });
  await using caller = await startSidecar({ appId: "caller", ...common });
  const path = { up: "/sink", down: `/source/${bytes}`, both: "/echo" }[values.direction] ?? "/echo";
  const sent = values.direction === "down" ? 0 : bytes;
  const direct = await transfer(`http://127.0.0.1:${appPort}${path}`, sent);
  const through = `${caller.httpUrl}/v1.0/invoke/callee/method`;
  await transfer(`${through}/echo`, 4 * 1024 * 1024);
  const sidecars = { caller: caller.pid, callee: callee.pid, nats: nats.pid };
  console.log(`processes ${JSON.stringify(sidecars)}`);
  const before = usage(sidecars);
  const peak: Record<string, number> = {};
  const sampler = setInterval(() => {
    for (const [name, { mb }] of Object.entries(usage(sidecars))) peak[name] = Math.max(peak[name] ?? 0, mb);
  }, sampleMs);
  const run = await transfer(through + path, sent);
  clearInterval(sampler);
  const after = usage(sidecars);
  const mbPerSecond = (seconds: number): string => (bytes / 1e6 / seconds).toFixed(0);
  console.log(`direction ${values.direction}, ${values.mb} MiB, answer of ${run.received} bytes`);
  console.log(`without sidecars ${mbPerSecond(direct.seconds)} MB/s each way`);
  console.log(`two sidecars     ${mbPerSecond(run.seconds)} MB/s each way`);
  for (const name of Object.keys(sidecars)) {
    const cpu = (after[name]!.cpu - before[name]!.cpu) / 1000;
    const [from, to, end] = [before[name]!.mb, peak[name] ?? 0, after[name]!.mb];
    const grown = `peak +${(to - from).toFixed(0)}, end +${(end - from).toFixed(0)}`;
    console.log(`${name.padEnd(7)} CPU ${cpu.toFixed(1)} s; memory ${from.toFixed(0)} MB before, ${grown}`);
  }
  // Not killed, so that profiles are written.
  await Promise.all([caller.stop(), callee.stop()]);
  await app.terminate();
}

function usage(pids: Readonly<Record<string, number>>): Record<string, { mb: number; cpu: number }> {
  return Object.fromEntries(
    Object.entries(pids).map(([name, pid]) => [name, { mb: residentMb(pid), cpu: cpuMs(pid) }]),
  );
}
