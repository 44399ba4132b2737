/**
 * Every broker away for 30 s while a client goes on sending, one after the other; those that keep what they acknowledge
 * are killed. Nothing that a sidecar acknowledged is lost, and no sidecar is restarted. Runs when it is imported.
 */
import { loopBrokers, pubsubBrokers } from "../integration/outages/brokers.ts";
import { loopOutage, pubsubOutage } from "../integration/outages/scenario.ts";
import { startApp, startNats } from "../kit/index.ts";

const outageMs = 30_000;

/** One truth value per component. */
export const outageChecks: boolean[] = [];

for (const [brokers, scenario] of [
  [pubsubBrokers, pubsubOutage],
  [loopBrokers, loopOutage],
] as const) {
  for (const [type, start] of Object.entries(brokers))
    outageChecks.push(await survives(type, start, scenario));
}

async function survives(
  type: string,
  start: (typeof pubsubBrokers)[string],
  scenario: typeof pubsubOutage,
): Promise<boolean> {
  await using nats = await startNats();
  await using app = await startApp();
  await using broker = await start(true);
  try {
    const { acked, refused, lost, slowestMs } = await scenario({ nats, app, broker, outageMs }, type);
    const slowest = `${Math.round(slowestMs)} ms for the slowest`;
    console.log(`${type}: ${acked} acknowledged, ${refused} refused, ${lost.length} lost; ${slowest}`);
    return lost.length === 0;
  } catch (error) {
    console.log(`${type}: ${(error as Error).message}`);
    return false;
  }
}
