// Events survive kills of everything on their way. Long form: `npm run soak -- --only events`.
import { expect, test } from "vitest";
import { soakEvents } from "../../soak/events.ts";

test.each([
  ["nats-ordered", 2_000, 1],
  ["nats-shared", 2_000, 1],
  ["redis", 1_000, 1],
  ["kafka", 1_000, 1],
] as const)(
  "%s: every acknowledged event is handled, in order where that was asked for",
  { timeout: 300_000 },
  async (broker, events, rounds) => {
    const seed = Date.now() % 1e6;
    const result = await soakEvents({ broker, events, rounds, seed, timeoutMs: 200_000 });
    const kills = Object.values(result.kills).reduce((sum, count) => sum + count, 0);
    expect({ seed, kills, lost: result.lost, disordered: result.disordered ?? [] }).toEqual({
      seed,
      kills: 4 * rounds,
      lost: [],
      disordered: [],
    });
    expect(result.acknowledged).toBeGreaterThanOrEqual(events);
  },
);
