/**
 * `npm run soak`: everything under load and faults. First the mesh for `--minutes N` (soak/mesh.ts), then every state
 * store under compare-and-set (soak/lost-updates.ts). `--only mesh` and `--only stores` run one half. Ends with
 * "N passed, N failed" and exit code 1 when one failed.
 */
import { parseArgs } from "node:util";
import { lostUpdates } from "./soak/lost-updates.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string", default: "both" },
    increments: { type: "string", default: "1000" },
    minutes: { type: "string" },
    cycles: { type: "string" },
    seed: { type: "string" },
  },
});

const checks: boolean[] = [];
if (values.only !== "stores") checks.push(...(await import("./soak/mesh.ts")).meshChecks);
if (values.only !== "mesh") checks.push(...(await soakStores(8, Number(values.increments))));
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
