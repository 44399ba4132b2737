// Reloads again and again under load. `npm run soak` does ten times as many.
import { expect, test } from "vitest";
import { startNats } from "../../kit/index.ts";
import { reloadCycles } from "../../soak/reload-cycles.ts";

const cycles = 20;

test("components come, change and go while others are called", { timeout: 400_000 }, async () => {
  await using nats = await startNats();
  const result = await reloadCycles(nats, cycles);
  expect(result.failures).toEqual([]);
  expect(result.calls).toBeGreaterThan(cycles * 10);
  // Connections of the clients come and go too.
  expect(result.handles[1]).toBeLessThanOrEqual(result.handles[0] + 5);
});
