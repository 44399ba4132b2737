/** The streaming lines of `npm run bench`: one large body through two sidecars, beside the two ceilings of the run. */
import { startSidecar } from "../kit/index.ts";
import type { Nats } from "../kit/index.ts";
import { type Direction, jobOf, natsStream, startStreamApp, transfer, usageOf } from "./stream-load.ts";

const bytes = 256 * 1024 * 1024;

export type StreamRow = {
  readonly direction: Direction;
  /** MB (10^6 bytes) per second, each way. */
  readonly throughSidecars: number;
  readonly bareHttp: number;
  readonly bareNats: number;
  /** CPU of both sidecars and nats-server per MB, ms. */
  readonly cpuMsPerMb: number;
  /** Resident memory gained at most by a sidecar, MB. */
  readonly grownMb: number;
};

export async function measureStreams(command: [string, ...string[]], nats: Nats): Promise<StreamRow[]> {
  const app = await startStreamApp();
  const flags = ["--max-body-size=1Gi"];
  await using callee = await startSidecar({ appId: "streamed", appPort: app.port, nats, flags, command });
  await using caller = await startSidecar({ appId: "streamer", nats, flags, command });
  const through = `${caller.httpUrl}/v1.0/invoke/streamed/method`;
  await transfer(`${through}/echo`, 16 * 1024 * 1024);
  const pids = { caller: caller.pid, callee: callee.pid, nats: nats.pid };
  const perSecond = (seconds: number): number => bytes / 1e6 / seconds;
  const rows: StreamRow[] = [];
  for (const direction of ["up", "down", "both"] as const) {
    const { path, sent } = jobOf(direction, bytes);
    const bareHttp = perSecond((await transfer(`http://127.0.0.1:${app.port}${path}`, sent)).seconds);
    const bareNats = perSecond(await natsStream(nats.url, bytes));
    const { result, usage } = await usageOf(pids, () => transfer(through + path, sent));
    const used = Object.values(usage);
    const cpuMsPerMb = (used.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0) * 1e9) / bytes;
    const sidecars = [usage["caller"]!, usage["callee"]!];
    const grownMb = Math.max(...sidecars.map(({ peakMb, beforeMb }) => peakMb - beforeMb));
    rows.push({
      direction,
      throughSidecars: perSecond(result.seconds),
      bareHttp,
      bareNats,
      cpuMsPerMb,
      grownMb,
    });
  }
  await app.close();
  return rows;
}

export function printStreams(rows: readonly StreamRow[]): void {
  console.log(
    "\none body of 256 MiB through two sidecars, MB/s; ratios to bare node:http and to a bare NATS client",
  );
  console.log("stream    MB/s   http  ratio   NATS  ratio  CPU ms/MB  memory MB");
  for (const { direction, throughSidecars, bareHttp, bareNats, cpuMsPerMb, grownMb } of rows) {
    const http = (throughSidecars / bareHttp).toFixed(2);
    const nats = (throughSidecars / bareNats).toFixed(2);
    console.log(
      [
        direction.padEnd(6),
        throughSidecars.toFixed(0).padStart(7),
        bareHttp.toFixed(0).padStart(6),
        http.padStart(6),
        bareNats.toFixed(0).padStart(6),
        nats.padStart(6),
        cpuMsPerMb.toFixed(1).padStart(10),
        `+${grownMb.toFixed(0)}`.padStart(10),
      ].join(" "),
    );
  }
}
