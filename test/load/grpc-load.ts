/** One closed-loop load of unary gRPC calls on one HTTP/2 connection: so many under way, each followed by the next. */
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from "node:http2";
import { once } from "node:events";
import { encodeFrame } from "../../src/lib/grpc-wire.ts";
import type { LoadResult } from "./http-load.ts";

export type GrpcJob = {
  readonly port: number;
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly message: Uint8Array;
};

/** Rejects when a call did not end with OK and the bytes that were sent. */
export async function grpcLoad(job: GrpcJob, underWay: number, seconds: number): Promise<LoadResult> {
  const session = connect(`http://127.0.0.1:${job.port}`);
  await once(session, "remoteSettings");
  const frame = encodeFrame(job.message);
  const startMs = performance.now();
  const endMs = startMs + seconds * 1000;
  const times: number[] = [];
  const worker = async (): Promise<void> => {
    for (let nowMs = performance.now(); nowMs < endMs;) {
      await call(session, job, frame);
      const doneMs = performance.now();
      times.push(doneMs - nowMs);
      nowMs = doneMs;
    }
  };
  try {
    await Promise.all(Array.from({ length: underWay }, worker));
  } finally {
    session.destroy();
  }
  const tookMs = performance.now() - startMs;
  times.sort((a, b) => a - b);
  const at = (share: number): number => Number(times[Math.floor(times.length * share)]!.toFixed(2));
  return {
    perSecond: (times.length * 1000) / tookMs,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    requests: times.length,
  };
}

function call(session: ClientHttp2Session, job: GrpcJob, frame: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ":method": "POST",
      ":path": job.path,
      "content-type": "application/grpc",
      te: "trailers",
      ...job.metadata,
    });
    let bytes = 0;
    let ended: IncomingHttpHeaders | undefined;
    stream.on("data", (chunk: Buffer) => (bytes += chunk.length));
    stream.once("response", (headers) => (ended = headers));
    stream.once("trailers", (trailers) => (ended = trailers));
    stream.once("error", reject);
    stream.once("close", () => {
      if (ended?.["grpc-status"] === "0" && bytes === frame.length) return resolve();
      reject(new Error(`${job.path}: ended with ${String(ended?.["grpc-status"] ?? "no status")}`));
    });
    stream.end(frame);
  });
}
