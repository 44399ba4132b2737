// No money is made or lost by transactions while the store's server is killed. Long form, with all stores that have
// transactions: `npm run soak -- --only transfers`.
import { expect, test } from "vitest";
import { transfers } from "../../soak/transfers.ts";

const kept = ["nats", "sqlite"];

test("the total of all accounts never changes, in no bulk get", { timeout: 180_000 }, async () => {
  const seed = Date.now() % 1e6;
  const results = await transfers({ only: kept, transfers: 400, seed, timeoutMs: 150_000 });
  expect(results.map(({ store, wrongTotals, lost }) => ({ seed, store, wrongTotals, lost }))).toEqual(
    kept.map((store) => ({ seed, store, wrongTotals: [], lost: [] })),
  );
  for (const { reads } of results) expect(reads).toBeGreaterThan(1);
  expect(results[0]!.kills).toBeGreaterThan(0);
});
