// No update is lost or counted twice when servers and sidecar are killed. Long form: `npm run soak -- --only stores`.
import { expect, test } from "vitest";
import { lostUpdates } from "../../soak/lost-updates.ts";

const clients = 8;
const increments = 12;

test(
  "compare-and-set counts exactly on every store, through kill -9 of servers and sidecar",
  {
    timeout: 300_000,
  },
  async () => {
    const results = await lostUpdates({ clients, increments, timeoutMs: 240_000 });
    const sums = Object.fromEntries(results.map(({ store, sum }) => [store, sum]));
    const exact = clients * increments;
    expect(sums).toEqual({
      nats: exact,
      sqlite: exact,
      redis: exact,
      pg1: exact,
      pg2: exact,
      mysql: exact,
      etcd: exact,
      mongo: exact,
    });
    for (const { kills } of results) expect(kills).toBeGreaterThan(0);
  },
);
