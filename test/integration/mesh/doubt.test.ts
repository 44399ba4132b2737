// Answers that get lost: what was done is known to be done, what was not is done once, what cannot be known is said so.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JoinedMesh, Table, TableKey, TableWrite, TopicStream } from "../../../mesh/index.ts";
import { type DeafProxy, deafProxy, eventually, faultProxy } from "../../kit/index.ts";
import { type Lab, bytes, codeOf, request, startLab, textOf, to } from "./lab.ts";

const name = { kind: "state", name: ["default", "doubt"] } as const;
const stream = { name: ["default", "doubt"], maxAgeMs: 3_600_000, maxBytes: -1 };

let lab: Lab;
let proxy: DeafProxy;
/** Reaches NATS through the proxy. */
let mesh: JoinedMesh;
let table: Table;
/** Has a connection of its own. */
let other: Table;
let topics: TopicStream;
let count = 0;
beforeAll(async () => {
  lab = await startLab();
  proxy = await deafProxy(lab.nats.port);
  mesh = await lab.join("doubting", { natsUrls: [proxy.url] });
  const sure = await lab.join("sure");
  [table, other] = [await mesh.table(name), await sure.table(name)];
  topics = await mesh.topics(stream);
  await table.get(["made"]);
  await topics.publish("made", bytes(""), { timeoutMs: 5_000 });
});
afterAll(async () => {
  await lab[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
});

const fresh = (): TableKey => ["keys", `k${count++}`];
const write = (key: TableKey, value: string, expectation?: number | "absent"): TableWrite => ({
  kind: "put",
  key,
  value: bytes(value),
  ...(expectation === undefined ? {} : { expect: expectation }),
});
const revisionOf = async (key: TableKey) => (await other.get(key))?.revision ?? 0;
const valueOf = async (key: TableKey) => textOf((await other.get(key))?.value);

/** Does the work while no answer comes back; `then` runs when `done` holds, before the connection is restored. */
async function unanswered<T>(
  work: () => Promise<T>,
  done: () => Promise<boolean>,
  then = async (): Promise<void> => {},
): Promise<T> {
  await mesh.ready();
  proxy.deafen();
  const result = work();
  result.catch(() => {});
  await eventually(done);
  await then();
  proxy.heal();
  return result;
}

describe("a guarded write whose answer was lost", () => {
  it("is known by its op: success, with its revision, applied once", async () => {
    const key = fresh();
    const first = await other.put(key, bytes("1"));
    const got = await unanswered(
      () => table.put(key, bytes("2"), { expect: first }),
      async () => (await valueOf(key)) === "2",
    );
    expect(got).toBe(await revisionOf(key));
    expect(got).toBe(first + 1);
  });

  it("as a create and as a delete, too", async () => {
    const key = fresh();
    await unanswered(
      () => table.put(key, bytes("1"), { expect: "absent" }),
      async () => (await valueOf(key)) === "1",
    );
    const revision = await revisionOf(key);
    const codes = await unanswered(
      () => codeOf(table.delete(key, { expect: revision })),
      async () => (await valueOf(key)) === undefined,
    );
    expect(codes).toBe("success");
  });

  it("and that somebody has replaced: the outcome is unknown, and said to be", async () => {
    const key = fresh();
    const first = await other.put(key, bytes("1"));
    const code = await unanswered(
      () => codeOf(table.put(key, bytes("mine"), { expect: first })),
      async () => (await valueOf(key)) === "mine",
      async () => void (await other.put(key, bytes("theirs"), { expect: first + 1 })),
    );
    expect(code).toBe("interrupted");
    expect(await valueOf(key)).toBe("theirs");
  });
});

describe("a guarded write that got lost itself", () => {
  const lost = async <T>(
    work: (bucket: Table) => Promise<T>,
    meanwhile: () => Promise<unknown>,
  ): Promise<T> => {
    await using broken = await faultProxy(lab.nats.port);
    const behind = await lab.join("behind", { natsUrls: [broken.url("nats")] });
    const bucket = await behind.table(name);
    await bucket.get(["made"]);
    broken.block();
    const result = work(bucket);
    result.catch(() => {});
    await meanwhile();
    broken.cut();
    broken.heal();
    try {
      return await result;
    } finally {
      await behind.close();
    }
  };

  it("is sent again, and applied once", async () => {
    const key = fresh();
    const first = await other.put(key, bytes("1"));
    const got = await lost(
      (bucket) => bucket.put(key, bytes("2"), { expect: first }),
      async () => {},
    );
    expect(got).toBe(first + 1);
    expect(await valueOf(key)).toBe("2");
  });

  it("conflicts when another one replaced what it expected", async () => {
    const key = fresh();
    const first = await other.put(key, bytes("1"));
    const code = await lost(
      (bucket) => codeOf(bucket.put(key, bytes("mine"), { expect: first })),
      () => other.put(key, bytes("theirs"), { expect: first }),
    );
    expect(code).toBe("conflict");
    expect(await valueOf(key)).toBe("theirs");
  });

  it("and a batch alike", async () => {
    const [a, b] = [fresh(), fresh()];
    await lost(
      (bucket) => bucket.batch([write(a, "1", "absent"), write(b, "1")]),
      async () => {},
    );
    expect([await valueOf(a), await valueOf(b)]).toEqual(["1", "1"]);
    const base = await revisionOf(a);
    const code = await lost(
      (bucket) => codeOf(bucket.batch([write(b, "2"), write(a, "2", base)])),
      () => other.put(a, bytes("theirs"), { expect: base }),
    );
    expect(code).toBe("conflict");
    expect([await valueOf(a), await valueOf(b)]).toEqual(["theirs", "1"]);
  });
});

describe("a batch whose answer was lost", () => {
  it.each([
    ["with guards", true],
    ["without guards", false],
  ])("%s: success, applied once", async (_name, guarded) => {
    const [a, b] = [fresh(), fresh()];
    const revision = await other.put(a, bytes("1"));
    await unanswered(
      () =>
        table.batch(
          guarded ? [write(b, "2", "absent"), write(a, "2", revision)] : [write(b, "2"), write(a, "2")],
        ),
      async () => (await valueOf(b)) === "2",
    );
    expect([await valueOf(a), await valueOf(b)]).toEqual(["2", "2"]);
    expect([await revisionOf(b), await revisionOf(a)]).toEqual([revision + 1, revision + 2]);
  });

  it("does not undo what others wrote since", async () => {
    const [a, b] = [fresh(), fresh()];
    await unanswered(
      () => table.batch([write(a, "mine"), write(b, "mine")]),
      async () => (await valueOf(b)) === "mine",
      async () => void (await other.put(a, bytes("theirs"))),
    );
    expect([await valueOf(a), await valueOf(b)]).toEqual(["theirs", "mine"]);
  });
});

describe("other requests whose answer was lost", () => {
  it("a plain write and reads are done again", async () => {
    const key = fresh();
    const revision = await unanswered(
      () => table.put(key, bytes("1")),
      async () => (await valueOf(key)) === "1",
    );
    expect(revision).toBe(await revisionOf(key));
    await unanswered(
      () => Promise.all([table.get(key), table.getMany([key]), table.list(key.slice(0, 1), 1)]),
      async () => true,
    ).then((read) =>
      expect(read).toMatchObject([{ revision }, [{ revision }], [["keys", expect.any(String)]]]),
    );
  });

  it("a publish with an id is stored once; without one it is not repeated: interrupted", async () => {
    const watcher = await (await lab.join("watcher")).topics(stream);
    const stored: string[] = [];
    await watcher.subscribe(
      {
        topic: "t",
        group: "g",
        deliver: "all",
        ackWaitMs: 10_000,
        concurrency: 10,
        backoffMs: [],
        maxDeliver: -1,
      },
      async (message) => void stored.push(textOf(message.data)!),
    );
    const again = await unanswered(
      () => topics.publish("t", bytes("with"), { id: "one", timeoutMs: 20_000 }),
      async () => stored.includes("with"),
    );
    expect(again.duplicate).toBe(true);
    const code = await unanswered(
      () => codeOf(topics.publish("t", bytes("without"), { timeoutMs: 20_000 })),
      async () => stored.includes("without"),
    );
    expect(code).toBe("interrupted");
    await topics.publish("t", bytes("end"), { timeoutMs: 20_000 });
    await eventually(() => stored.includes("end"));
    expect(stored).toEqual(["with", "without", "end"]);
  });

  it("a call is not repeated: interrupted as soon as the connection is known to be broken", async () => {
    const callee = await lab.join("once");
    let calls = 0;
    await callee.serve(async () => (calls++, { status: 200, headers: [], body: new Uint8Array(0) }));
    const code = await unanswered(
      () => codeOf(mesh.call(request(), to("once"))),
      async () => calls === 1,
    );
    expect(code).toBe("interrupted");
    expect(calls).toBe(1);
  });

  it("an answer given while the callee's connection is broken reaches a caller whose own is not", async () => {
    const caller = await lab.join("c");
    const release = Promise.withResolvers<void>();
    await mesh.serve(async () => (await release.promise, { status: 200, headers: [], body: bytes("late") }));
    const call = caller.call(request(), to("doubting"));
    await eventually(() => mesh.counts().servedCalls === 1);
    const broken = new Promise<void>((resolve) => {
      const off = mesh.onStatus(({ connected }) => {
        if (connected) return;
        off();
        resolve();
      });
    });
    proxy.heal();
    await broken;
    expect(mesh.status().connected).toBe(false);
    release.resolve();
    expect(textOf((await call).body)).toBe("late");
  });
});
