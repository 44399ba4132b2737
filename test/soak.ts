/**
 * `npm run soak`: everything under load and faults. `--only mesh`, `stores`, `transfers`, `events` or `outages` runs
 * one part:
 * - mesh: calls, events, state and reloads for `--minutes N` (soak/mesh.ts);
 * - stores: every state store under compare-and-set, `--increments N` for each of 8 clients (soak/lost-updates.ts);
 * - transfers: transactions between accounts whose total must not change (soak/transfers.ts);
 * - events: `--events N` through pubsub.nats and a tenth of them through Redis and Kafka (soak/events.ts);
 * - outages: every broker killed for 30 s under a client that goes on sending (soak/outages.ts).
 * Ends with "N passed, N failed" and exit code 1 when one failed.
 */
import { parseArgs } from "node:util";
import { soakEvents } from "./soak/events.ts";
import { lostUpdates } from "./soak/lost-updates.ts";
import { transfers } from "./soak/transfers.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string", default: "all" },
    increments: { type: "string", default: "1000" },
    transfers: { type: "string", default: "5000" },
    events: { type: "string", default: "100000" },
    minutes: { type: "string" },
    cycles: { type: "string" },
    seed: { type: "string", default: String(Date.now() % 1e6) },
  },
});
const hourMs = 3_600_000;

const parts: Readonly<Record<string, () => Promise<readonly boolean[]>>> = {
  mesh: async () => (await import("./soak/mesh.ts")).meshChecks,
  stores: () => soakStores(8, Number(values.increments)),
  transfers: soakTransfers,
  events: () => soakBrokers(Number(values.events)),
  outages: async () => (await import("./soak/outages.ts")).outageChecks,
};
if (values.only !== "all" && parts[values.only] === undefined)
  throw new Error(`--only ${values.only}: write one of ${Object.keys(parts).join(", ")}`);

const checks: boolean[] = [];
for (const [name, part] of Object.entries(parts))
  if (values.only === "all" || values.only === name) checks.push(...(await part()));
const failed = checks.filter((passed) => !passed).length;
process.exitCode = failed === 0 ? 0 : 1;
console.log(`${checks.length - failed} passed, ${failed} failed`);

/** One truth value per store. */
async function soakStores(clients: number, increments: number): Promise<boolean[]> {
  const results = await lostUpdates({ clients, increments, timeoutMs: hourMs, say: console.log });
  return results.map(({ store, sum, doubts, conflicts, kills }) => {
    const words = `${conflicts} conflicts, ${doubts} answers in doubt, ${kills} kills`;
    console.log(`${store}: sum ${sum} of ${clients * increments}; ${words}`);
    return sum === clients * increments;
  });
}

/** One truth value per store. */
async function soakTransfers(): Promise<boolean[]> {
  const options = { transfers: Number(values.transfers), seed: Number(values.seed), timeoutMs: hourMs };
  const results = await transfers({ ...options, say: console.log });
  return results.map((result) => {
    console.log(`${result.store}: ${JSON.stringify(result)}`);
    return result.wrongTotals.length === 0 && result.lost.length === 0;
  });
}

/** One truth value per broker. */
async function soakBrokers(events: number): Promise<boolean[]> {
  const passed: boolean[] = [];
  console.log(`events: seed ${values.seed}`);
  for (const broker of ["nats", "nats-ordered", "nats-shared", "redis", "kafka"] as const) {
    const native = broker.startsWith("nats");
    const share = native ? { events, rounds: 10 } : { events: events / 10, rounds: 3 };
    const options = { broker, seed: Number(values.seed), timeoutMs: hourMs, ...share };
    const result = await soakEvents({ ...options, say: console.log });
    console.log(`${broker}: ${JSON.stringify(result)}`);
    passed.push(result.lost.length === 0 && (result.disordered ?? []).length === 0);
  }
  return passed;
}
