// Many reads of values below NATS' max_payload at once: NATS ends a connection for which too much waits.
import { expect, test } from "vitest";
import { type HttpReply, startNats, startSidecar } from "../../kit/index.ts";
import { stateComponent } from "./resources.ts";

const path = "/v1.0/state/store";

test(
  "hundreds of reads at once, one by one and in bulk, leave the connection alone",
  { timeout: 120_000 },
  async () => {
    await using nats = await startNats();
    const resources = { "store.yaml": stateComponent("store", "state.nats") };
    await using sidecar = await startSidecar({ appId: "shop", nats, resources });
    const value = "v".repeat(900_000);
    const keys = Array.from({ length: 20 }, (_, i) => `k${i}`);
    for (const key of keys) expect((await sidecar.post(path, [{ key, value }])).status).toBe(204);
    const timeoutMs = 60_000;
    const all = (count: number, read: () => Promise<HttpReply>): Promise<HttpReply[]> =>
      Promise.all(Array.from({ length: count }, read));
    for (const { status, text } of await all(300, () => sidecar.http(`${path}/k1`, { timeoutMs })))
      expect([status, text.length]).toEqual([200, value.length + 2]);
    const bulk = { method: "POST", body: { keys }, timeoutMs };
    for (const { status, text } of await all(10, () => sidecar.http(`${path}/bulk`, bulk)))
      expect([status, text.length > keys.length * value.length]).toEqual([200, true]);
    expect(sidecar.logs()).not.toContain("NATS is away");
  },
);
