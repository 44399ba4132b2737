// Values above NATS' max_payload through a real sidecar on state.nats: whole, also when processes die.
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { joinMesh } from "../../../mesh/index.ts";
import {
  type Nats,
  type Sidecar,
  type SidecarOptions,
  eventually,
  faultProxy,
  grpcClient,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import { openEvents } from "./event-source.ts";
import { stateComponent } from "./resources.ts";

const MB = 1024 * 1024;
const path = "/v1.0/state/store";
const resources = { "store.yaml": stateComponent("store", "state.nats") };
const start = (
  nats: SidecarOptions["nats"],
  bodySize = "200Mi",
  more: Record<string, string> = {},
): Promise<Sidecar> =>
  startSidecar({
    appId: "shop",
    nats,
    resources: { ...resources, ...more },
    flags: ["--max-body-size", bodySize],
  });

async function residentMb({ pid }: Sidecar): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) / 1024;
}

/** Names of what lies in the bucket of parts. */
async function partsOf(nats: Nats): Promise<{
  list(): Promise<string[]>;
  /** Resolves when there are more than so many. */
  above(count: number): Promise<void>;
  sweep(): Promise<number>;
  close(): Promise<void>;
}> {
  const mesh = joinMesh({ namespace: "default", app: "looker", natsUrls: [nats.url] });
  await mesh.ready();
  const bucket = { kind: "state", name: ["default", "store"], expiryMarks: true } as const;
  const parts = await mesh.table({ ...bucket, kind: "state-parts" });
  return {
    list: async () => (await parts.list([], 10_000)).map((key) => key.join("/")),
    close: () => mesh.close(),
    async above(count) {
      const client = await nats.connect();
      const subject = "$JS.API.STREAM.INFO.KV_weft__state-parts__default__store";
      for (let found = 0; found <= count;) {
        const info = await client.request(subject, "", { timeout: 10_000 });
        found = info.json<{ state: { messages: number } }>().state.messages;
      }
      await client.close();
    },
    async sweep() {
      // As it will be in an hour.
      for (const [kind, id] of await parts.list(["w"], 1_000)) await parts.delete([kind!, id!]);
      return mesh.largeTable({ ...bucket, maxValueBytes: 200 * MB }).sweep(new AbortController().signal);
    },
  };
}

test("64 MiB go and come, again and again, in bounded memory", { timeout: 300_000 }, async () => {
  await using nats = await startNats();
  await using sidecar = await start(nats);
  const text = randomBytes(24 * MB).toString("base64") + randomBytes(24 * MB).toString("base64");
  expect(text.length).toBe(64 * MB);
  const peaks: number[] = [];
  for (let round = 0; round < 4; round++) {
    const value = `${round}${text}`;
    const saved = await sidecar.post(path, [{ key: "big", value }]);
    expect([saved.status, saved.text]).toEqual([204, ""]);
    const found = await sidecar.get(`${path}/big`);
    expect(found.text === JSON.stringify(value)).toBe(true);
    peaks.push(await residentMb(sidecar));
  }
  expect(Math.max(...peaks)).toBeLessThan(1_200);
  const parts = await partsOf(nats);
  // One value's parts of half a MiB, and not those of the three before.
  expect((await parts.list()).filter((key) => key.startsWith("p/"))).toHaveLength(129);
  await parts.close();
});

test(
  "1 GiB is refused cleanly, and so is what metadata maxValueSize forbids",
  { timeout: 120_000 },
  async () => {
    await using nats = await startNats();
    const small = stateComponent("store", "state.nats", { maxValueSize: "2000000" });
    await using sidecar = await start(nats, "200Mi", { "store.yaml": small });
    const refused = await sidecar
      .http(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", "Content-Length": String(1024 * MB) },
        body: Buffer.from("[]"),
      })
      .catch((error: Error) => error);
    // The client may still be sending when the answer comes.
    if (!(refused instanceof Error)) expect(refused.status).toBeGreaterThanOrEqual(400);
    const over = await sidecar.post(path, [{ key: "k", value: "x".repeat(3_000_000) }]);
    expect(over.status).toBe(500);
    expect(over.text).toContain(
      "takes 3000002 bytes, more than the 2000000 that metadata maxValueSize allows",
    );
    expect((await sidecar.get(`${path}/k`)).status).toBe(204);
    expect(await residentMb(sidecar)).toBeLessThan(600);
  },
);

test("ETag, first-write, time to live, transactions, bulk get and watch hold for large values", async () => {
  await using nats = await startNats();
  await using sidecar = await start(nats);
  using grpc = grpcClient(sidecar.grpcPort);
  const value = "v".repeat(3 * MB);
  const options = { concurrency: "first-write" };
  await using events = await openEvents(`${sidecar.httpUrl}/v1.0-weft1/state/store/watch?key=k`);
  expect(await events.next()).toMatchObject({ event: "ready" });
  expect((await sidecar.post(path, [{ key: "k", value, options }])).status).toBe(204);
  const put = await events.next();
  expect((put!.data as { data: string }).data === value).toBe(true);
  expect((await sidecar.post(path, [{ key: "k", value, options }])).status).toBe(409);
  const etag = String((await sidecar.get(`${path}/k`)).headers["etag"]);
  expect((await sidecar.post(path, [{ key: "k", value: `${value}2`, etag }])).status).toBe(204);
  expect((await sidecar.post(path, [{ key: "k", value: `${value}3`, etag }])).status).toBe(409);
  const stale = await sidecar.post(`${path}/transaction`, {
    operations: [
      { operation: "upsert", request: { key: "other", value } },
      { operation: "upsert", request: { key: "k", value, etag } },
    ],
  });
  expect(stale.status).toBe(500);
  expect(stale.text).toContain("key 'k'");
  const operations = [
    { operation: "upsert", request: { key: "other", value } },
    { operation: "upsert", request: { key: "small", value: 1 } },
    { operation: "delete", request: { key: "k" } },
  ];
  expect((await sidecar.post(`${path}/transaction`, { operations })).status).toBe(204);
  const bulk = await sidecar.post(`${path}/bulk`, { keys: ["other", "k", "small"] });
  const found = bulk.json<{ key: string; data?: unknown }[]>();
  expect(found.map(({ key, data }) => [key, data === value || data])).toEqual([
    ["other", true],
    ["k", undefined],
    ["small", 1],
  ]);
  const raw = randomBytes(5 * MB);
  await grpc.unary(Dapr.method.saveState, { storeName: "store", states: [{ key: "raw", value: raw }] });
  const read = await grpc.unary(Dapr.method.getState, { storeName: "store", key: "raw", consistency: 2 });
  expect(Buffer.compare(read.data, raw)).toBe(0);
  for (const [key, ttlInSeconds] of Object.entries({ long: "600", short: "1" })) {
    const saved = await sidecar.post(path, [{ key, value, metadata: { ttlInSeconds } }]);
    expect(saved.status).toBe(204);
  }
  expect((await sidecar.get(`${path}/long`)).headers["metadata.ttlexpiretime"]).toBeDefined();
  await eventually(async () => (await sidecar.get(`${path}/short`)).status === 204, { what: "expiry" });
  for (const key of ["other", "raw", "long"]) await sidecar.http(`${path}/${key}`, { method: "DELETE" });
  const parts = await partsOf(nats);
  await eventually(async () => (await parts.sweep()) >= 0 && (await parts.list()).join() === "s", {
    what: "no parts are left",
    timeoutMs: 20_000,
  });
  await parts.close();
});

test("many read one large value at once", { timeout: 120_000 }, async () => {
  await using nats = await startNats();
  await using sidecar = await start(nats);
  const value = JSON.stringify("v".repeat(8 * MB));
  await sidecar.http(path, { method: "POST", body: Buffer.from(`[{"key":"k","value":${value}}]`) });
  const reads = Array.from({ length: 40 }, async () => {
    const answer = await sidecar.http(`${path}/k`, { timeoutMs: 60_000 });
    expect(answer.status).toBe(200);
    expect(answer.text === value).toBe(true);
  });
  await Promise.all(reads);
  expect(sidecar.logs()).not.toContain("NATS is away");
});

test(
  "a sidecar killed while it writes leaves the old value, and no parts in the end",
  { timeout: 120_000 },
  async () => {
    await using nats = await startNats();
    await using proxy = await faultProxy(nats.port);
    await using sidecar = await start(proxy);
    const before = "b".repeat(2 * MB);
    expect((await sidecar.post(path, [{ key: "k", value: before }])).status).toBe(204);
    const parts = await partsOf(nats);
    const kept = (await parts.list()).length;
    // The write takes some ten seconds, so that it is not over when its first parts have been seen.
    proxy.slow(6 * MB);
    const dying = sidecar
      .post(path, [{ key: "k", value: "n".repeat(60 * MB) }])
      .catch((error: Error) => error);
    await parts.above(kept + 5);
    await sidecar.kill();
    expect(await dying).toBeInstanceOf(Error);
    proxy.heal();
    await sidecar.restart();
    expect((await sidecar.get(`${path}/k`)).text === JSON.stringify(before)).toBe(true);
    expect(await parts.sweep()).toBe(1);
    expect((await parts.list()).filter((key) => key !== "s")).toHaveLength(kept);
    expect((await sidecar.get(`${path}/k`)).text === JSON.stringify(before)).toBe(true);
    await parts.close();
  },
);

test(
  "nats-server killed in the middle of a write: the old value or the new one",
  { timeout: 120_000 },
  async () => {
    await using nats = await startNats();
    await using sidecar = await start(nats);
    const [before, after] = ["b".repeat(2 * MB), "a".repeat(40 * MB)];
    expect((await sidecar.post(path, [{ key: "k", value: before }])).status).toBe(204);
    const parts = await partsOf(nats);
    const kept = (await parts.list()).length;
    const during = sidecar.http(path, {
      method: "POST",
      body: [{ key: "k", value: after }],
      timeoutMs: 60_000,
    });
    await parts.above(kept + 5);
    await nats.kill();
    await nats.restart();
    const { status } = await during;
    expect([204, 500]).toContain(status);
    const found = await eventually(
      async () => {
        const answer = await sidecar.get(`${path}/k`);
        return answer.status === 200 && answer.text;
      },
      { timeoutMs: 30_000 },
    );
    const isAfter = found === JSON.stringify(after);
    expect(isAfter || found === JSON.stringify(before)).toBe(true);
    if (status === 204) expect(isAfter).toBe(true);
    await parts.close();
  },
);
