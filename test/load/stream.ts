/**
 * `node test/load/stream.ts`: one large body each way through two sidecars, at once, as an echo; prints MB/s, CPU and
 * how much resident memory each sidecar gained. `--mb N` (default 1024), `--direction up|down|both` (default both).
 * `--node <flag>` runs them from source with that flag of node, e.g. `--node=--cpu-prof`, and may be repeated.
 * Beside it stand the ceilings of the machine: the same without sidecars, and a bare NATS client. Nothing here asserts.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startNats, startSidecar } from "../kit/index.ts";
import { checkout, nodeBinary } from "../kit/paths.ts";
import { type Direction, jobOf, natsStream, startStreamApp, transfer, usageOf } from "./stream-load.ts";

const { values } = parseArgs({
  options: {
    mb: { type: "string", default: "1024" },
    direction: { type: "string", default: "both" },
    node: { type: "string", multiple: true },
  },
});
const bytes = Number(values.mb) * 1024 * 1024;
const { path, sent } = jobOf(values.direction as Direction, bytes);
const app = await startStreamApp();
await using nats = await startNats();
const flags = ["--max-body-size=8Gi"];
const source = join(checkout, "src", "main.ts");
const command: [string, ...string[]] = [nodeBinary(), ...(values.node ?? []), source];
const common = { nats, flags, ...(values.node === undefined ? {} : { command }) };
await using callee = await startSidecar({ appId: "callee", appPort: app.port, ...common });
await using caller = await startSidecar({ appId: "caller", ...common });
const through = `${caller.httpUrl}/v1.0/invoke/callee/method`;
await transfer(`${through}/echo`, 4 * 1024 * 1024);
const direct = await transfer(`http://127.0.0.1:${app.port}${path}`, sent);
const bareNats = await natsStream(nats.url, bytes);
const sidecars = { caller: caller.pid, callee: callee.pid, nats: nats.pid };
console.log(`processes ${JSON.stringify(sidecars)}`);
const { result, usage } = await usageOf(sidecars, () => transfer(through + path, sent));
const mbPerSecond = (seconds: number): string => (bytes / 1e6 / seconds).toFixed(0);
console.log(`direction ${values.direction}, ${values.mb} MiB, answer of ${result.received} bytes`);
console.log(`two sidecars     ${mbPerSecond(result.seconds)} MB/s each way`);
console.log(`bare node:http   ${mbPerSecond(direct.seconds)} MB/s each way`);
console.log(`bare NATS        ${mbPerSecond(bareNats)} MB/s one way`);
for (const [name, { cpuSeconds, beforeMb, peakMb, endMb }] of Object.entries(usage)) {
  const grown = `peak +${(peakMb - beforeMb).toFixed(0)}, end +${(endMb - beforeMb).toFixed(0)}`;
  const memory = `memory ${beforeMb.toFixed(0)} MB before, ${grown}`;
  console.log(`${name.padEnd(7)} CPU ${cpuSeconds.toFixed(1)} s; ${memory}`);
}
// Not killed, so that profiles are written.
await Promise.all([caller.stop(), callee.stop()]);
await app.close();
