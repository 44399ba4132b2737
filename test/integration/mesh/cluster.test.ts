// Three NATS servers: streams have three copies, one server may die, and one's own writes are read.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type JoinedMesh, type Table, joinMesh } from "../../../mesh/index.ts";
import { eventually } from "../../kit/index.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { bytes, codeOf, request, textOf, to } from "./lab.ts";

const state = { kind: "state", name: ["default", "store"] } as const;
const stream = { name: ["default", "pubsub"], maxAgeMs: 3_600_000, maxBytes: -1 };

let cluster: Cluster;
const meshes: JoinedMesh[] = [];
beforeAll(async () => {
  cluster = await startCluster();
}, 150_000);
afterAll(async () => {
  await Promise.all(meshes.map((mesh) => mesh.close()));
  await cluster[Symbol.asyncDispose]();
});

/** A participant that begins at one of the servers. */
async function join(app: string, server: number): Promise<JoinedMesh> {
  const natsUrls = [...cluster.urls.slice(server), ...cluster.urls.slice(0, server)];
  const mesh = joinMesh({ namespace: "default", app, natsUrls });
  meshes.push(mesh);
  await mesh.ready();
  return mesh;
}

async function increment(table: Table, key: readonly string[]): Promise<void> {
  for (;;) {
    const entry = await table.get(key);
    const next = bytes(String(Number(textOf(entry?.value) ?? "0") + 1));
    const code = await codeOf(table.put(key, next, { expect: entry?.revision ?? "absent" }));
    if (code === "success") return;
    expect(code).toBe("conflict");
  }
}

/** Adds an id to a list that others write too. */
async function addTo(table: Table, key: readonly string[], id: string): Promise<void> {
  for (;;) {
    const entry = await table.get(key);
    const ids = JSON.parse(textOf(entry?.value) ?? "[]") as string[];
    // Stored, although it could not be known: a server was slow, and somebody else wrote since.
    if (ids.includes(id)) return;
    const next = bytes(JSON.stringify([...ids, id]));
    const code = await codeOf(table.put(key, next, { expect: entry?.revision ?? "absent" }));
    if (code === "success") return;
    expect(["conflict", "interrupted"]).toContain(code);
  }
}

describe("a cluster of three", () => {
  it("keeps every stream three times", async () => {
    const mesh = await join("a", 0);
    const table = await mesh.table(state);
    await table.put(["k"], bytes("v"));
    const topics = await mesh.topics(stream);
    await topics.publish("t", bytes("x"), { timeoutMs: 10_000 });
    await mesh.announce();
    const client = await cluster.servers[0]!.connect();
    for (const name of [`KV_${table.bucket}`, topics.stream, "KV_weft__presence"]) {
      const info = await client.request(`$JS.API.STREAM.INFO.${name}`, "", { timeout: 5_000 });
      expect(info.json<{ config: { num_replicas: number } }>().config.num_replicas).toBe(3);
    }
  });

  it("never gives a participant less than its own last write, by any kind of read", async () => {
    const mesh = await join("a", 1);
    const table = await mesh.table(state);
    const loops = Array.from({ length: 16 }, async (_, worker) => {
      for (let i = 0; i < 40; i++) {
        const [key, neighbour] = [
          ["own", `${worker}`],
          ["own2", `${worker}`],
        ];
        const revision = await table.put(key, bytes(`${i}`));
        expect((await table.get(key))?.revision).toBe(revision);
        await table.batch([
          { kind: "put", key, value: bytes(`b${i}`) },
          { kind: "put", key: neighbour, value: bytes(`b${i}`) },
        ]);
        const both = await table.getMany([key, neighbour]);
        expect(both.map((entry) => textOf(entry?.value))).toEqual([`b${i}`, `b${i}`]);
        await table.delete(neighbour);
        expect(await table.getMany([neighbour, key])).toMatchObject([undefined, { value: bytes(`b${i}`) }]);
        expect(textOf((await table.get(key, { strong: true }))?.value)).toBe(`b${i}`);
      }
    });
    await Promise.all(loops);
  });

  it("loses and repeats no change of 4 writers at different servers, and creates a key once", async () => {
    const tables = await Promise.all(
      [0, 1, 2, 0].map(async (server, i) => (await join(`w${i}`, server)).table(state)),
    );
    const idsOf = (writer: number): string[] => Array.from({ length: 25 }, (_, i) => `${writer}-${i}`);
    await Promise.all(
      tables.map(async (table, writer) => {
        for (const id of idsOf(writer)) await addTo(table, ["list"], id);
      }),
    );
    const list = textOf((await tables[0]!.get(["list"], { strong: true }))?.value)!;
    const all = [0, 1, 2, 3].flatMap(idsOf).toSorted();
    expect((JSON.parse(list) as string[]).toSorted()).toEqual(all);
    const creators = tables.map((table) => codeOf(table.put(["created"], bytes("v"), { expect: "absent" })));
    expect((await Promise.all(creators)).filter((code) => code === "success")).toHaveLength(1);
  });

  it("loses a server, the leader of everything: all goes on", { timeout: 180_000 }, async () => {
    const [front, back] = [await join("front", 0), await join("back", 1)];
    await back.serve(async ({ path }) => ({ status: 200, headers: [], body: bytes(path) }));
    const [table, topics] = [await front.table(state), await front.topics(stream)];
    const events: string[] = [];
    const group = {
      topic: "t2",
      group: "g",
      deliver: "all",
      ackWaitMs: 2_000,
      concurrency: 8,
      backoffMs: [50],
      maxDeliver: -1,
    } as const;
    await (await back.topics(stream)).subscribe(group, async ({ data }) => void events.push(textOf(data)!));
    let stop = false;
    let increments = 0;
    const published: string[] = [];
    const work = [
      (async () => {
        while (!stop) {
          await increment(table, ["survivor"]);
          increments++;
        }
      })(),
      (async () => {
        for (let i = 0; !stop; i++) {
          await topics.publish("t2", bytes(`${i}`), { id: `t2-${i}`, timeoutMs: 20_000 });
          published.push(`${i}`);
        }
      })(),
    ];
    const working = Promise.all(work);
    working.catch(() => {});
    await eventually(() => increments > 20 && published.length > 20, { timeoutMs: 30_000 });
    const victim = await cluster.leaderOf(`KV_${table.bucket}`);
    await victim.kill();
    const before = increments;
    try {
      await Promise.race([working, eventually(() => increments > before + 50, { timeoutMs: 60_000 })]);
    } finally {
      stop = true;
      await victim.restart();
    }
    await working;
    expect(textOf((await table.get(["survivor"], { strong: true }))?.value)).toBe(String(increments));
    await eventually(() => new Set(events).size === published.length, { timeoutMs: 30_000 });
    await eventually(
      async () => (await codeOf(front.call(request({ path: "/x" }), to("back")))) === "success",
      { timeoutMs: 30_000 },
    );
  });

  it("lists what was written just now, also keys that are rewritten all the time", async () => {
    const mesh = await join("lister", 2);
    const table = await mesh.table({ kind: "listed", name: ["all"] });
    const keys = Array.from({ length: 40 }, (_, n) => ["a", `k${n}`]);
    for (const key of keys) await table.put(key, bytes("0"));
    let writing = true;
    const writer = (async () => {
      for (let n = 0; writing; n++) await table.put(keys[n % keys.length]!, bytes(String(n)));
    })();
    for (let round = 0; round < 30; round++) {
      const seen = new Set<string>();
      let after: number | undefined;
      do {
        const options = { limit: 7, wants: () => true };
        const page = await table.page(["a"], after === undefined ? options : { ...options, after });
        for (const key of page.keys) seen.add(key.join("/"));
        after = page.next;
      } while (after !== undefined && seen.size < keys.length);
      expect(seen.size).toBe(keys.length);
    }
    writing = false;
    await writer;
  }, 120_000);

  it("loses a server: watches go on, and large values stay whole", { timeout: 240_000 }, async () => {
    const mesh = await join("watcher", 0);
    const table = mesh.largeTable({ kind: "large", name: ["all"], maxValueBytes: 8_000_000 });
    const ending = new AbortController();
    const changes = await table.watch({ prefix: ["a"] }, { signal: ending.signal });
    const seen: string[] = [];
    const reading = (async () => {
      for await (const change of changes)
        if (change.kind === "put") seen.push(`${change.key[1]} ${change.entry.value.length}`);
    })();
    const value = (fill: number): Buffer => Buffer.alloc(2_000_000 + fill, fill);
    await table.put(["a", "k"], value(1));
    await eventually(() => seen.at(-1) === "k 2000001");
    const victim = await cluster.leaderOf(`KV_${table.bucket}`);
    await victim.kill();
    try {
      await eventually(async () => (await codeOf(table.put(["a", "k"], value(2)))) === "success", {
        timeoutMs: 60_000,
      });
      await eventually(() => seen.at(-1) === "k 2000002", { timeoutMs: 60_000 });
      expect(Buffer.compare((await table.get(["a", "k"]))!.value, value(2))).toBe(0);
    } finally {
      await victim.restart();
    }
    await cluster.settled(`KV_${table.bucket}`);
    for (let fill = 3; fill < 13; fill++) {
      await table.put(["a", "k"], value(fill));
      expect(Buffer.compare((await table.get(["a", "k"]))!.value, value(fill))).toBe(0);
    }
    await eventually(() => seen.at(-1) === "k 2000012", { timeoutMs: 60_000 });
    ending.abort();
    await reading;
  });

  it(
    "loses a server while topics join a shared consumer: no event is lost",
    { timeout: 300_000 },
    async () => {
      const name = ["default", "shared"];
      const members = [await join("member1", 0), await join("member2", 1)];
      const publisher = await (await join("publisher", 2)).topics({ ...stream, name });
      const events = new Set<string>();
      const published: string[] = [];
      const publishAll = async (names: readonly string[], round: number): Promise<void> => {
        for (const topic of names) {
          const id = `${topic}-${round}`;
          await publisher.publish(topic, bytes(id), { id, timeoutMs: 60_000 });
          published.push(id);
        }
      };
      const group = {
        group: "g",
        shared: "join",
        deliver: "all",
        ackWaitMs: 2_000,
        concurrency: 8,
        backoffMs: [50],
        maxDeliver: -1,
      } as const;
      const subscribeAll = async (mesh: JoinedMesh, names: readonly string[]): Promise<void> => {
        const topics = await mesh.topics({ ...stream, name });
        const one = (topic: string): Promise<unknown> =>
          topics.subscribe({ ...group, topic }, async ({ data }) => void events.add(textOf(data)!));
        // As a sidecar does: a subscription that fails is tried again.
        const attempt = (topic: string): Promise<unknown> =>
          eventually(() => one(topic).then(() => true), { timeoutMs: 60_000, everyMs: 200 });
        await Promise.all(names.map(attempt));
      };
      const first = Array.from({ length: 20 }, (_, n) => `first${n}`);
      const later = Array.from({ length: 20 }, (_, n) => `later${n}`);
      for (const mesh of members) await subscribeAll(mesh, first);
      await publishAll(first, 0);
      const victim = await cluster.leaderOf("weft__topics__default__shared");
      await victim.kill();
      try {
        const joining = members.map((mesh) => subscribeAll(mesh, later));
        await publishAll([...first, ...later], 1);
        await Promise.all(joining);
        await publishAll([...first, ...later], 2);
      } finally {
        await victim.restart();
      }
      await publishAll([...first, ...later], 3);
      await eventually(() => expect(published.filter((id) => !events.has(id))).toEqual([]), {
        timeoutMs: 60_000,
      });
      expect(published).toHaveLength(140);
      const client = await cluster.servers[0]!.connect();
      const subject = "$JS.API.CONSUMER.INFO.weft__topics__default__shared.g___shared";
      const info = (await client.request(subject, "", { timeout: 5_000 })).json<{
        cluster?: { replicas?: unknown[] };
      }>();
      expect(info.cluster?.replicas).toHaveLength(2);
    },
  );

  it("has a frozen replica: reads pass it over", async () => {
    const mesh = await join("reader", 0);
    const table = await mesh.table(state);
    await table.put(["k"], bytes("v"));
    await cluster.settled(`KV_${table.bucket}`);
    const leader = await cluster.leaderOf(`KV_${table.bucket}`);
    const server = mesh.status().server;
    const frozen = cluster.servers.find((it) => it !== leader && !server.endsWith(`:${it.port}`))!;
    await frozen.pause();
    try {
      const reads = await Promise.all(Array.from({ length: 50 }, () => codeOf(table.get(["k"]))));
      expect(new Set(reads)).toEqual(new Set(["success"]));
    } finally {
      frozen.resume();
    }
  });
});

describe("a cluster that is too small", () => {
  it("keeps streams once, and three times when it has grown", { timeout: 180_000 }, async () => {
    await using small = await startCluster(2, 1);
    const lone = joinMesh({ namespace: "default", app: "lone", natsUrls: small.urls });
    const table = await lone.table(state);
    // Not connected yet: what kind of server it will be is still unknown.
    await table.put(["k"], bytes("v"));
    const client = await small.servers[0]!.connect();
    const replicas = async (): Promise<number> => {
      const info = await client.request(`$JS.API.STREAM.INFO.KV_${table.bucket}`, "", { timeout: 5_000 });
      return info.json<{ config: { num_replicas: number } }>().config.num_replicas;
    };
    expect(await replicas()).toBe(1);
    await small.grow();
    const attempt = async (): Promise<boolean> => {
      const next = joinMesh({ namespace: "default", app: "next", natsUrls: small.urls });
      try {
        expect(textOf((await (await next.table(state)).get(["k"]))?.value)).toBe("v");
      } finally {
        await next.close();
      }
      return (await replicas()) === 3;
    };
    await eventually(attempt, { timeoutMs: 60_000 });
    await lone.close();
  });
});
