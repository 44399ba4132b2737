// NATS killed, restarted, cut off and silent: what waits ends as README.md says, and everything resumes by itself.
import { afterEach, describe, expect, it } from "vitest";
import type { JoinOptions, JoinedMesh, MeshResponse, Table, TopicStream } from "../../../mesh/index.ts";
import { joinMesh } from "../../../mesh/index.ts";
import { eventually, faultProxy, freePort, startNats } from "../../kit/index.ts";
import { type Lab, bytes, codeOf, quickestMs, request, slowClock, startLab, textOf, to } from "./lab.ts";

let lab: Lab | undefined;
afterEach(async () => {
  await lab?.[Symbol.asyncDispose]();
  lab = undefined;
});

const answer = (text: string): MeshResponse => ({ status: 200, headers: [], body: bytes(text) });
const state = { kind: "state", name: ["default", "store"] } as const;
const stream = { name: ["default", "pubsub"], maxAgeMs: 3_600_000, maxBytes: -1 };
const group = {
  topic: "t",
  group: "g",
  deliver: "all",
  ackWaitMs: 2_000,
  concurrency: 4,
  backoffMs: [50],
  maxDeliver: -1,
} as const;

/** One participant that does everything, and another that uses it. */
async function world(
  options: Partial<JoinOptions> = {},
  ackWaitMs: number = group.ackWaitMs,
): Promise<{
  lab: Lab;
  mesh: JoinedMesh;
  peer: JoinedMesh;
  table: Table;
  topics: TopicStream;
  events: string[];
}> {
  const made = await startLab();
  lab = made;
  const [mesh, peer] = [await made.join("all", options), await made.join("peer", options)];
  await mesh.serve(async ({ path }, _by, signal) => {
    if (path === "/wait") await new Promise((resolve) => signal.addEventListener("abort", resolve));
    return answer(path);
  });
  await mesh.announce();
  const table = await mesh.table(state);
  await table.put(["kept"], bytes("1"));
  const topics = await mesh.topics(stream);
  const events: string[] = [];
  await topics.subscribe({ ...group, ackWaitMs }, async (message) => void events.push(textOf(message.data)!));
  await topics.publish("t", bytes("before"), { timeoutMs: 5_000 });
  await eventually(() => events.includes("before"));
  return { lab: made, mesh, peer, table, topics, events };
}

const gone = (mesh: JoinedMesh) => eventually(() => !mesh.status().connected);

describe("NATS is killed", () => {
  it("and comes back: pending calls are interrupted at once, then all goes on without a restart", async () => {
    const {
      lab: { nats },
      mesh,
      peer,
      table,
      topics,
      events,
    } = await world({ clock: slowClock(4) }, 30_000);
    const statuses: boolean[] = [];
    mesh.onStatus(({ connected }) => statuses.push(connected));
    const pending = codeOf(peer.call(request({ path: "/wait" }), to("all")));
    await eventually(() => mesh.counts().servedCalls === 1);
    await nats.kill();
    // Silence would end it after 16 s, as a timeout.
    expect(await pending).toBe("interrupted");
    expect(mesh.status().way).toContain("as given");

    await gone(mesh);
    const waiting = [
      table.get(["kept"]),
      table.put(["new"], bytes("1"), { expect: "absent" }),
      table.put(["new2"], bytes("1")),
      table.batch([
        { kind: "put", key: ["b1"], value: bytes("1") },
        { kind: "put", key: ["b2"], value: bytes("1") },
      ]),
      table.getMany([["kept"]]),
      table.list([], 10),
      topics.publish("t", bytes("during"), { id: "during", timeoutMs: 20_000 }),
      peer.call(request({ path: "/during" }), to("all")),
    ];
    await nats.restart();
    const done = await Promise.all(waiting);
    expect(done[0]).toMatchObject({ value: bytes("1") });
    expect(done[4]).toMatchObject([{ value: bytes("1") }]);
    expect(statuses).toEqual([false, true]);

    expect(textOf((await peer.call(request({ path: "/after" }), to("all"))).body)).toBe("/after");
    await topics.publish("t", bytes("after"), { timeoutMs: 5_000 });
    await eventually(() => events.includes("after"));
    expect(events.filter((text) => text === "during")).toEqual(["during"]);
    // The bucket of presence was in memory.
    const present = async (): Promise<boolean> => (await peer.presence()).some(({ app }) => app === "all");
    // By itself it would be renewed after 20 s.
    await eventually(present);
    await eventually(() => peer.counts().pendingRequests + mesh.counts().pendingRequests === 0);
  });

  it("and comes back: a call waits a little for participants that are still on their way", async () => {
    lab = await startLab();
    await using proxy = await faultProxy(lab.nats.port);
    const caller = await lab.join("c", { clock: slowClock(4) });
    const callee = await lab.join("slow", { natsUrls: [proxy.url("nats")] });
    await callee.serve(async () => answer("back"));
    await lab.nats.kill();
    await gone(caller);
    proxy.cut();
    await lab.nats.restart();
    await caller.ready();
    const call = caller.call(request(), to("slow"));
    // Behind the call on the same connection: it has had its first answer.
    await (await caller.table(state)).put(["k"], bytes("v"));
    proxy.heal();
    expect(textOf((await call).body)).toBe("back");
    await callee.close();
  });

  it("five times in a row: what has an id or a guard is stored once each", { timeout: 180_000 }, async () => {
    const {
      lab: { nats },
      mesh,
      table,
      topics,
      events,
    } = await world();
    let stop = false;
    const published: string[] = [];
    const publisher = (async () => {
      for (let i = 0; !stop; i++) {
        await topics.publish("t", bytes(`e${i}`), { id: `e${i}`, timeoutMs: 30_000 });
        published.push(`e${i}`);
      }
    })();
    let increments = 0;
    const counter = (async () => {
      await table.put(["counter"], bytes("0"));
      while (!stop) {
        const { value, revision } = (await table.get(["counter"]))!;
        await table.put(["counter"], bytes(String(Number(textOf(value)) + 1)), { expect: revision });
        increments++;
      }
    })();
    for (let round = 0; round < 5; round++) {
      const before = published.length;
      await eventually(() => published.length > before + 50 && increments > round * 20, {
        timeoutMs: 30_000,
      });
      await nats.kill();
      await nats.restart();
    }
    await mesh.ready();
    stop = true;
    await Promise.all([publisher, counter]);
    expect(textOf((await table.get(["counter"]))?.value)).toBe(String(increments));
    const watcher = await mesh.topics(stream);
    const stored: string[] = [];
    await watcher.subscribe({ ...group, group: "audit", concurrency: 256 }, async (message) => {
      if (message.deliveries === 1) stored.push(textOf(message.data)!);
    });
    await eventually(() => stored.length >= published.length + 1, { timeoutMs: 30_000 });
    expect(stored.slice(1)).toEqual(published);
    await eventually(() => new Set(events).size === published.length + 1, { timeoutMs: 30_000 });
  });

  it("and stays away: every kind of operation ends in its time with disconnected", async () => {
    const {
      lab: { nats },
      mesh,
      table,
      topics,
    } = await world();
    await nats.kill();
    await gone(mesh);
    const startMs = performance.now();
    const codes = await Promise.all([
      codeOf(mesh.call(request(), to("all", 300))),
      codeOf(topics.publish("t", bytes("x"), { id: "x", timeoutMs: 300 })),
      codeOf(mesh.call(request(), to("all"))),
    ]);
    expect(codes).toEqual(["disconnected", "disconnected", "disconnected"]);
    // The longest of them waits 5 s.
    expect(performance.now() - startMs).toBeLessThan(15_000);
    const stop = new AbortController();
    const aborted = codeOf(table.get(["kept"], { signal: stop.signal }));
    stop.abort();
    expect(await aborted).toBe("cancelled");
    const closing = codeOf(table.get(["kept"]));
    await mesh.close();
    expect(await closing).toBe("closed");
  });

  it("and comes back without its data: streams, buckets and groups are made again", async () => {
    const {
      lab: { nats },
      mesh,
      table,
      topics,
      events,
    } = await world();
    await nats.kill();
    await gone(mesh);
    await using fresh = await startNats({ port: nats.port });
    await mesh.ready();
    expect(await table.get(["kept"])).toBeUndefined();
    await topics.publish("t", bytes("fresh"), { timeoutMs: 10_000 });
    await eventually(() => events.includes("fresh"), { timeoutMs: 30_000 });
    expect(fresh.running()).toBe(true);
    await mesh.close();
  });
});

describe("the way to NATS", () => {
  it("is not there at first: joining waits, operations begin when it is", async () => {
    const port = await freePort();
    const mesh = joinMesh({ namespace: "default", app: "early", natsUrls: [`nats://127.0.0.1:${port}`] });
    const stop = new AbortController();
    const impatient = mesh.ready(stop.signal);
    stop.abort(new Error("no time"));
    await expect(impatient).rejects.toThrow("no time");
    const served = mesh.serve(async () => answer("here"));
    const announced = mesh.announce();
    const stored = (await mesh.table(state)).put(["k"], bytes("v"));
    const published = (await mesh.topics(stream)).publish("t", bytes("v"), { timeoutMs: 20_000 });
    expect(mesh.status()).toMatchObject({ connected: false });
    await using nats = await startNats({ port });
    await Promise.all([served, announced, stored, published]);
    expect(textOf((await mesh.call(request(), to("early"))).body)).toBe("here");
    expect(await mesh.presence({ namespace: "default", app: "early" })).toHaveLength(1);
    await mesh.close();
    expect(nats.running()).toBe(true);
    await using another = await (async () => joinNow(nats.url))();
    expect(await another.mesh.presence()).toEqual([]);
  });

  it("is cut: noticed at once, healed by itself", async () => {
    lab = await startLab();
    await using proxy = await faultProxy(lab.nats.port);
    const behind = await lab.join("behind", { natsUrls: [proxy.url("nats")] });
    const front = await lab.join("front");
    await behind.serve(async () => answer("behind"));
    for (let round = 0; round < 3; round++) {
      proxy.cut();
      await gone(behind);
      proxy.heal();
      await behind.ready();
      await eventually(async () => (await codeOf(front.call(request(), to("behind", 500)))) === "success");
    }
  });

  it.each([
    ["nothing is to be sent", 0],
    ["much is to be sent", 20],
  ])(
    "swallows everything while %s: pings notice, what waits is interrupted, and it heals",
    async (_name, megabytes) => {
      lab = await startLab();
      await using proxy = await faultProxy(lab.nats.port);
      const behind = await lab.join("behind", { natsUrls: [proxy.url("nats")], pingIntervalMs: 500 });
      const front = await lab.join("front");
      await behind.serve(async () => answer("behind"));
      await front.serve(async () => answer("front"));
      proxy.block();
      const body = new Uint8Array(1_000_000);
      const calls = [codeOf(behind.call(request(), to("front")))];
      for (let i = 0; i < megabytes; i++) calls.push(codeOf(behind.call(request({ body }), to("front"))));
      // Silence would end them after 16 s, as timeouts.
      expect(new Set(await Promise.all(calls))).toEqual(new Set(["interrupted"]));
      proxy.heal();
      await behind.ready();
      await eventually(async () => (await codeOf(front.call(request(), to("behind", 500)))) === "success");
    },
  );

  it("freezes with the server: noticed, and used again when it goes on", async () => {
    lab = await startLab();
    const mesh = await lab.join("patient", { pingIntervalMs: 150 });
    const table = await mesh.table(state);
    await table.put(["k"], bytes("1"));
    await lab.nats.pause();
    const waiting = table.put(["k"], bytes("2"));
    await gone(mesh);
    lab.nats.resume();
    await waiting;
    expect(textOf((await table.get(["k"]))?.value)).toBe("2");
  });

  it("is given up while it is tried: close ends at once, in every state", async () => {
    const port = await freePort();
    const never = joinMesh({ namespace: "default", app: "never", natsUrls: [`nats://127.0.0.1:${port}`] });
    const waiting = codeOf(never.ready());
    await never.close();
    expect(await waiting).toBe("closed");
    lab = await startLab();
    const twice = await lab.join("twice");
    const away = [await lab.join("away"), await lab.join("away"), await lab.join("away")];
    for (const mesh of away) await mesh.announce();
    await Promise.all([twice.close(), twice.close()]);
    await lab.nats.kill();
    for (const mesh of away) await gone(mesh);
    expect(await quickestMs(() => away.pop()!.close())).toBeLessThan(1_000);
  });
});

describe("presence", () => {
  it("shows who is alive, one app or all, survives a foreign entry, and ends with close", async () => {
    lab = await startLab();
    const [a, b] = [await lab.join("a", { version: "9" }), await lab.join("b", { namespace: "other.ns" })];
    await Promise.all([a.announce(), a.announce(), b.announce()]);
    const client = await lab.nats.connect();
    await client.request("$KV.weft__presence.default.a.odd", "junk", { timeout: 5_000 });
    await client.request("$KV.weft__presence.a=b", "junk", { timeout: 5_000 });
    const all = await b.presence();
    expect(all.map(({ namespace, app }) => [namespace, app]).toSorted(byText)).toEqual([
      ["default", "a"],
      ["other.ns", "b"],
    ]);
    expect(await b.presence({ namespace: "default", app: "a" })).toEqual([
      expect.objectContaining({ instance: a.identity.instance, pid: process.pid, version: "9" }),
    ]);
    await a.close();
    expect((await b.presence()).map(({ app }) => app)).toEqual(["b"]);
  });
});

const byText = (a: readonly string[], b: readonly string[]): number => a.join().localeCompare(b.join());

async function joinNow(url: string): Promise<AsyncDisposable & { mesh: JoinedMesh }> {
  const mesh = joinMesh({ namespace: "default", app: "now", natsUrls: [url] });
  await mesh.ready();
  return { mesh, [Symbol.asyncDispose]: () => mesh.close() };
}
