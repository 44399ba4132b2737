// An acknowledged save outlives the death of the server and of the sidecar.
import { expect, test } from "vitest";
import { eventually, startNats, startSidecar } from "../../kit/index.ts";
import { stateComponent } from "./resources.ts";

const path = "/v1.0/state/store";
const slow = { timeoutMs: 30_000 };
const resources = { "store.yaml": stateComponent("store", "state.nats") };

test("acknowledged saves outlive kill -9 of nats-server, and the same sidecar serves on", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  const saves = Array.from({ length: 300 }, async (_, index) => {
    const saved = await sidecar.post(path, [{ key: `k${index}`, value: index }]);
    expect(saved.status).toBe(204);
  });
  await Promise.all(saves);
  await nats.kill();
  await nats.restart();
  const keys = Array.from({ length: 300 }, (_, index) => `k${index}`);
  const found = await eventually(async () => {
    const answer = await sidecar.post(`${path}/bulk`, { keys });
    if (answer.status !== 200) throw new Error(`${answer.status} ${answer.text}`);
    return answer.json<{ key: string; data: number }[]>();
  }, slow);
  expect(found.map(({ data }) => data)).toEqual(keys.map((_, index) => index));
  expect((await sidecar.post(path, [{ key: "after", value: true }])).status).toBe(204);
  expect(sidecar.running()).toBe(true);
});

test("a save during an outage of the server is done when it returns, or refused", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  await sidecar.post(path, [{ key: "k", value: "before" }]);
  await nats.kill();
  const during = sidecar.post(path, [{ key: "k", value: "during" }]);
  await nats.restart();
  const { status } = await during;
  expect([204, 500]).toContain(status);
  const wanted = status === 204 ? ['"during"'] : ['"before"', '"during"'];
  const found = await eventually(async () => {
    const answer = await sidecar.get(`${path}/k`);
    return answer.status === 200 && answer.text;
  }, slow);
  expect(wanted).toContain(found);
});

test("acknowledged saves outlive kill -9 of the sidecar", async () => {
  await using nats = await startNats();
  await using sidecar = await startSidecar({ appId: "shop", nats, resources });
  expect((await sidecar.post(path, [{ key: "k", value: "kept" }])).status).toBe(204);
  await sidecar.kill();
  await sidecar.restart();
  expect((await sidecar.get(`${path}/k`)).text).toBe('"kept"');
});
