/** Large bodies: through two sidecars, through bare node:http, and from one bare NATS client to another. */
import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { Worker } from "node:worker_threads";
import { connect } from "@nats-io/transport-node";
import { cpuMs, residentMb } from "./process-usage.ts";

const pieceBytes = 64 * 1024;
/** Messages under way in the NATS ceiling: as many as fit in a grown window of the mesh. */
const natsWindow = 16;
/** How often memory is looked at, ms. */
const sampleMs = 50;

export type Direction = "up" | "down" | "both";
/** A far end in a thread of its own. */
export type FarEnd = { readonly port: number; close(): Promise<unknown> };
type Run = { readonly seconds: number; readonly received: number };
type Sink = {
  write(piece: Buffer): boolean;
  end(): void;
  once(event: "drain", listener: () => void): unknown;
};

/** What one run used; memory in MB of 10^6 bytes. */
export type Usage = {
  readonly cpuSeconds: number;
  readonly beforeMb: number;
  readonly peakMb: number;
  readonly endMb: number;
};

/** An app; `port` serves it. */
export async function startStreamApp(): Promise<FarEnd> {
  return startFarEnd({ role: "app" });
}

async function startFarEnd(data: Record<string, unknown>): Promise<FarEnd> {
  const worker = new Worker(new URL("stream-worker.ts", import.meta.url), { workerData: data });
  const [port] = (await once(worker, "message")) as [number];
  return { port, close: () => worker.terminate() };
}

/** Path of the app for a direction, and the bytes to be sent there. */
export function jobOf(direction: Direction, bytes: number): { path: string; sent: number } {
  const path = { up: "/sink", down: `/source/${bytes}`, both: "/echo" }[direction];
  return { path, sent: direction === "down" ? 0 : bytes };
}

/** Writes so many bytes as fast as they are taken. */
export function pour(sink: Sink, bytes: number): void {
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

/** Sends `bytes` in chunks to a URL and reads the whole answer. */
export function transfer(url: string, bytes: number): Promise<Run> {
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

/** Seconds for `bytes` in messages of 64 KiB from one bare NATS client to another, with a window. */
export async function natsStream(url: string, bytes: number): Promise<number> {
  const messages = Math.ceil(bytes / pieceBytes);
  const taker = await startFarEnd({ role: "nats", url, messages });
  const client = await connect({ servers: [url] });
  const piece = Buffer.alloc(pieceBytes, "w");
  const startMs = performance.now();
  await new Promise<void>((resolve) => {
    let sent = 0;
    const send = (taken: number): void => {
      while (sent < messages && sent < taken + natsWindow) {
        client.publish("bench.stream", piece);
        sent++;
      }
      if (taken === messages) resolve();
    };
    client.subscribe("bench.taken", { callback: (_error, message) => send(Number(message.string())) });
    send(0);
  });
  const seconds = (performance.now() - startMs) / 1000;
  await client.close();
  await taker.close();
  return seconds;
}

/** What processes use while `run` runs. */
export async function usageOf<T>(
  pids: Readonly<Record<string, number>>,
  run: () => Promise<T>,
): Promise<{ result: T; usage: Record<string, Usage> }> {
  const names = Object.keys(pids);
  const look = (): { mb: number; cpu: number }[] =>
    names.map((name) => ({ mb: residentMb(pids[name]!), cpu: cpuMs(pids[name]!) }));
  const before = look();
  const peak = before.map(({ mb }) => mb);
  const sampler = setInterval(() => {
    for (const [i, { mb }] of look().entries()) peak[i] = Math.max(peak[i]!, mb);
  }, sampleMs);
  const result = await run();
  clearInterval(sampler);
  const after = look();
  const usage: Record<string, Usage> = {};
  for (const [i, name] of names.entries()) {
    usage[name] = {
      cpuSeconds: (after[i]!.cpu - before[i]!.cpu) / 1000,
      beforeMb: before[i]!.mb,
      peakMb: Math.max(peak[i]!, after[i]!.mb),
      endMb: after[i]!.mb,
    };
  }
  return { result, usage };
}
