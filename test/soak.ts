/**
 * `npm run soak`: everything under load and faults. First the mesh for `--minutes N` (soak/mesh.ts), then every state
 * store under compare-and-set (soak/lost-updates.ts), then every broker killed for 30 s under a client that sends
 * (soak/outages.ts). `--only mesh`, `--only stores` and `--only outages` run one part. Ends with "N passed, N failed"
 * and exit code 1 when one failed.
 */
import { parseArgs } from "node:util";
import { lostUpdates } from "./soak/lost-updates.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string", default: "all" },
    increments: { type: "string", default: "1000" },
    minutes: { type: "string" },
    cycles: { type: "string" },
    seed: { type: "string" },
  },
});

const checks: boolean[] = [];
const runs = (part: string): boolean => values.only === "all" || values.only === part;
if (runs("mesh")) checks.push(...(await import("./soak/mesh.ts")).meshChecks);
if (runs("stores")) checks.push(...(await soakStores(8, Number(values.increments))));
if (runs("outages")) checks.push(...(await import("./soak/outages.ts")).outageChecks);
const failed = checks.filter((passed) => !passed).length;
process.exitCode = failed === 0 ? 0 : 1;
console.log(`${checks.length - failed} passed, ${failed} failed`);

/** One truth value per store. */
async function soakStores(clients: number, increments: number): Promise<boolean[]> {
  const results = await lostUpdates({ clients, increments, timeoutMs: 3_600_000, say: console.log });
  return results.map(({ store, sum, doubts, conflicts, kills }) => {
    const words = `${conflicts} conflicts, ${doubts} answers in doubt, ${kills} kills`;
    console.log(`${store}: sum ${sum} of ${clients * increments}; ${words}`);
    return sum === clients * increments;
  });
}
