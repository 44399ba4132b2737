import { expect, it } from "vitest";
import { type ManualClock, manualClock } from "../../../test/contract/manual-clock.ts";
import { silentLog } from "../../../test/contract/silent-log.ts";
import { MeshError } from "../../../mesh/index.ts";
import type { Broker } from "../pubsub/broker.ts";
import type { PublishMessage } from "../pubsub/port.ts";
import type { StateStore } from "../state/port.ts";
import { createRelay, type OutboxStore } from "./relay.ts";
import { Rounds } from "./rounds.ts";

const settings = {
  publishPubsub: "bus",
  publishTopic: "orders",
  waitPubsub: "bus",
  waitTopic: "nsapporders",
  discardsMissing: false,
};

type Tested = {
  readonly clock: ManualClock;
  readonly rounds: Rounds;
  readonly published: PublishMessage[];
  readonly logged: string[];
  readonly gets: { count: number };
  /** Keys of each store. */
  readonly keys: readonly Set<string>[];
  failures: { publish: Error[]; get: Error | undefined; delete: number };
  /** Relays an event and moves time until it is done. */
  handle(id: string, signal?: AbortSignal): Promise<"done" | Error>;
};

function testRelay(discardsMissing = false, stores = 1): Tested {
  const clock = manualClock();
  const rounds = new Rounds();
  const published: PublishMessage[] = [];
  const logged: string[] = [];
  const gets = { count: 0 };
  const failures: Tested["failures"] = { publish: [], get: undefined, delete: 0 };
  const keys = Array.from({ length: stores }, () => new Set<string>());
  const record = (text: string): void => void logged.push(text);
  const of = (own: Set<string>, index: number): OutboxStore => ({
    name: `store${index}`,
    settings: { ...settings, discardsMissing, publishPubsub: `bus${index}` },
    port: {
      async get(key: string) {
        gets.count++;
        if (failures.get !== undefined) throw failures.get;
        return own.has(key) ? { value: Buffer.from("0"), etag: "1" } : undefined;
      },
      async delete({ key }: { key: string }) {
        if (failures.delete-- > 0) throw new Error("store away");
        own.delete(key);
      },
    } as unknown as StateStore,
  });
  const relay = createRelay({
    rounds,
    clock,
    log: { ...silentLog, warn: record, error: record },
    brokers: {
      get: (name) => ({ name, stored: (topic: string) => `ns${topic}` }) as Broker,
      any: () => true,
    },
    publisher: {
      allow: () => {},
      async send(_broker, message) {
        const failure = failures.publish.shift();
        if (failure !== undefined) throw failure;
        published.push(message);
      },
    },
    storesOf: () => keys.map(of),
  });
  return {
    clock,
    rounds,
    published,
    logged,
    gets,
    keys,
    failures,
    async handle(id, signal = new AbortController().signal) {
      const data = Buffer.from(JSON.stringify({ id, data: 1, topic: "", pubsubname: "" }));
      const message = { topic: "nsapporders", data, metadata: {}, contentType: undefined };
      let outcome: "done" | Error | undefined;
      void relay("bus", "nsapporders", message, signal).then(
        () => (outcome = "done"),
        (error: Error) => (outcome = error),
      );
      for (let step = 0; step < 400 && outcome === undefined; step++) {
        await new Promise(setImmediate);
        if (outcome === undefined) clock.advance(100);
      }
      return outcome ?? new Error("it still runs");
    },
  };
}

it("publishes what has a marker in any of the stores of its topic, and deletes the marker", async () => {
  const tested = testRelay(false, 2);
  tested.keys[1]!.add("outbox-1");
  const startMs = tested.clock.nowMs();
  expect(await tested.handle("outbox-1")).toBe("done");
  expect(tested.clock.nowMs() - startMs).toBeGreaterThanOrEqual(1_000);
  const [message] = tested.published;
  expect(JSON.parse(Buffer.from(message!.data).toString())).toEqual({
    data: 1,
    id: "outbox-1",
    pubsubname: "bus1",
    topic: "orders",
  });
  expect([message!.topic, message!.id, tested.keys[1]!.size]).toEqual(["nsorders", "outbox-1", 0]);
});

it("looks for ten seconds, later only once, and gives the event up after two minutes", async () => {
  const tested = testRelay();
  const startMs = tested.clock.nowMs();
  expect(await tested.handle("outbox-1")).toMatchObject({
    message: expect.stringContaining("is not found") as string,
  });
  expect(tested.clock.nowMs() - startMs).toBe(10_000);
  expect(tested.gets.count).toBe(6);
  expect(await tested.handle("outbox-1")).toBeInstanceOf(Error);
  expect([tested.gets.count, tested.logged.length]).toEqual([7, 1]);
  tested.clock.advance(120_000);
  expect(await tested.handle("outbox-1")).toBe("done");
  expect(tested.logged.at(-1)).toContain("is given up");
  expect(tested.published).toEqual([]);
});

it("finds a transaction that was late", async () => {
  const tested = testRelay();
  expect(await tested.handle("outbox-1")).toBeInstanceOf(Error);
  tested.keys[0]!.add("outbox-1");
  expect(await tested.handle("outbox-1")).toBe("done");
  expect(tested.published).toHaveLength(1);
});

it("acknowledges what is not found when the store says so, but not when the store cannot be asked", async () => {
  const tested = testRelay(true);
  tested.failures.get = new Error("store away");
  expect(await tested.handle("outbox-1")).toMatchObject({ message: "store away" });
  tested.failures.get = undefined;
  expect(await tested.handle("outbox-1")).toBe("done");
  expect(tested.logged).toEqual(["outbox event outbox-1 is discarded: its transaction was not found"]);
});

it("gives nothing up or away while it has no store to ask", async () => {
  const tested = testRelay(true, 0);
  expect(await tested.handle("outbox-1")).toBeInstanceOf(Error);
  tested.clock.advance(120_000);
  expect(await tested.handle("outbox-1")).toBeInstanceOf(Error);
  expect(tested.logged).toEqual([]);
});

it("knows the transactions of its own sidecar without asking the store", async () => {
  const tested = testRelay();
  tested.keys[0]!.add("outbox-1");
  tested.rounds.begin("store0", ["outbox-1"])("committed");
  tested.rounds.begin("store0", ["outbox-2"])("refused");
  expect([await tested.handle("outbox-1"), await tested.handle("outbox-2")]).toEqual(["done", "done"]);
  expect(tested.published.map(({ id }) => id)).toEqual(["outbox-1"]);
  expect([tested.gets.count, tested.keys[0]!.size]).toEqual([0, 0]);
  tested.rounds.begin("store0", ["outbox-3"])("unknown");
  expect(await tested.handle("outbox-3")).toBeInstanceOf(Error);
  expect(tested.gets.count).toBe(6);
});

it("waits for a transaction that runs, and leaves the event when the subscription ends", async () => {
  const tested = testRelay();
  tested.rounds.begin("store0", ["outbox-1"]);
  const ending = new AbortController();
  const handled = tested.handle("outbox-1", ending.signal);
  await new Promise(setImmediate);
  ending.abort(new Error("the subscription ends"));
  expect(await handled).toMatchObject({ message: "the subscription ends" });
});

it("tries on while the broker is away, but not with what can never fit", async () => {
  const tested = testRelay();
  tested.keys[0]!.add("outbox-1");
  tested.failures.publish = [new Error("away"), new Error("away")];
  expect(await tested.handle("outbox-1")).toBe("done");
  expect(tested.published).toHaveLength(1);
  tested.keys[0]!.add("outbox-2");
  tested.failures.publish = [new MeshError("too-large", "too large")];
  expect(await tested.handle("outbox-2")).toMatchObject({ message: "too large" });
});

it("publishes once although the marker cannot be deleted", async () => {
  const tested = testRelay();
  tested.keys[0]!.add("outbox-1");
  tested.failures.delete = 99;
  expect(await tested.handle("outbox-1")).toBe("done");
  expect(tested.published).toHaveLength(1);
  expect(tested.logged).toEqual(["state store store0: key outbox-1 of the outbox stays: store away"]);
});

it.each(["", "null", "[]", "{}", '{"id":7}', '{"id":"mine"}', "\u0000"])(
  "drops %j, which is no event of an outbox",
  async (text) => {
    const tested = testRelay();
    const logged: string[] = [];
    const relay = createRelay({
      ...({} as Parameters<typeof createRelay>[0]),
      rounds: tested.rounds,
      clock: tested.clock,
      log: { ...silentLog, error: (line: string) => void logged.push(line) },
    });
    const message = { topic: "t", data: Buffer.from(text), metadata: {}, contentType: undefined };
    await relay("bus", "t", message, new AbortController().signal);
    expect(logged).toEqual(["a message on topic t of bus is no outbox event; it is dropped"]);
  },
);
