// Topics: what is published arrives at each group at least once, whatever happens, and is handled within bounds.
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JoinedMesh, TopicMessage, TopicStream, TopicSubscribeOptions } from "../../../mesh/index.ts";
import { deafProxy, eventually, faultProxy } from "../../kit/index.ts";
import { type Lab, bytes, codeOf, jumpingClock, startLab, startParticipant, textOf } from "./lab.ts";

const stream = { name: ["default", "pubsub"], maxAgeMs: 3_600_000, maxBytes: -1 };

let lab: Lab;
let mesh: JoinedMesh;
let topics: TopicStream;
let count = 0;
const problems: string[] = [];
beforeAll(async () => {
  lab = await startLab();
  mesh = await lab.join("t", { log: (level, text) => level === "error" && problems.push(text) });
  topics = await mesh.topics(stream);
});
afterAll(() => lab[Symbol.asyncDispose]());

const fresh = (): string => `topic${count++}`;
const options = (topic: string, more: Partial<TopicSubscribeOptions> = {}): TopicSubscribeOptions => ({
  topic,
  group: "g",
  deliver: "all",
  ackWaitMs: 10_000,
  concurrency: 8,
  backoffMs: [50],
  maxDeliver: -1,
  ...more,
});
const publish = (topic: string, text: string, id?: string) =>
  topics.publish(topic, bytes(text), { timeoutMs: 10_000, ...(id === undefined ? {} : { id }) });
const publishAll = (topic: string, amount: number) =>
  Promise.all(Array.from({ length: amount }, (_, i) => publish(topic, String(i))));
const numbers = (amount: number): string[] => Array.from({ length: amount }, (_, i) => String(i));
const byNumber = (list: Iterable<string>): string[] => [...list].toSorted((a, b) => Number(a) - Number(b));

/** Subscribes and notes what comes. */
async function collect(topic: string, more: Partial<TopicSubscribeOptions> = {}, from = topics) {
  const got: string[] = [];
  const subscription = await from.subscribe(
    options(topic, more),
    async ({ data }) => void got.push(textOf(data)!),
  );
  return { got, subscription };
}

async function consumerState(
  topic: string,
  group = "g",
): Promise<{ num_ack_pending: number; num_pending: number; num_redelivered: number; num_waiting: number }> {
  const client = await lab.nats.connect();
  const info = await client.request(`$JS.API.CONSUMER.INFO.${topics.stream}.${group}__${topic}`, "", {
    timeout: 5_000,
  });
  await client.close();
  return info.json();
}

describe("an event", () => {
  it("arrives with its topic, bytes, headers and place in the stream", async () => {
    const topic = `${fresh()}.eu.a b*`;
    const seen: TopicMessage[] = [];
    await topics.subscribe(options(topic), async (message) => void seen.push(message));
    const all = Uint8Array.from({ length: 256 }, (_, i) => i);
    const headers = ["ce-id", "1", "X", "é", "X", "2", "Empty", ""];
    const { sequence, duplicate } = await topics.publish(topic, all, {
      id: "once",
      headers,
      timeoutMs: 5_000,
    });
    expect(duplicate).toBe(false);
    expect(await topics.publish(topic, all, { id: "once", timeoutMs: 5_000 })).toEqual({
      sequence,
      duplicate: true,
    });
    await eventually(() => seen.length === 1);
    const [message] = seen;
    expect(message).toMatchObject({ topic, sequence, deliveries: 1 });
    expect(Uint8Array.from(message!.data)).toEqual(all);
    expect(Math.abs(message!.timestampMs - Date.now())).toBeLessThan(60_000);
    expect(message!.header("ce-id")).toBe("1");
    expect(message!.header("CE-ID")).toBeUndefined();
    expect(message!.header("Empty")).toBeUndefined();
    expect(message!.headers()).toEqual([
      ["Nats-Msg-Id", "once"],
      ["ce-id", "1"],
      ["X", "é,2"],
      ["Empty", ""],
    ]);
  });

  it("goes to every group once, to one member each, also by wildcards", async () => {
    const topic = fresh();
    const second = await (await lab.join("t2")).topics(stream);
    const one = [await collect(topic, { group: "one" }), await collect(topic, { group: "one" }, second)];
    const two = await collect(topic, { group: "two" });
    const wild = await collect(`${topic}.>`, { group: "wild" });
    const star = await collect(`${topic}.*.x`, { group: "star" });
    await publishAll(topic, 200);
    await publish(`${topic}.a.x`, "ax");
    await publish(`${topic}.b`, "b");
    await eventually(() => one[0]!.got.length + one[1]!.got.length === 200 && two.got.length === 200);
    expect(byNumber([...one[0]!.got, ...one[1]!.got])).toEqual(numbers(200));
    expect(byNumber(two.got)).toEqual(numbers(200));
    await eventually(() => wild.got.length === 2 && star.got.length === 1);
    expect(wild.got).toEqual(["ax", "b"]);
    expect(star.got).toEqual(["ax"]);
  });

  it("published before the group exists goes to one that wants all, not to one that wants new ones", async () => {
    const topic = fresh();
    await publish(topic, "old");
    const all = await collect(topic, { group: "all" });
    const recent = await collect(topic, { group: "new", deliver: "new" });
    await publish(topic, "new");
    await eventually(() => all.got.length === 2 && recent.got.length === 1);
    expect([all.got, recent.got]).toEqual([["old", "new"], ["new"]]);
  });

  it("that cannot be stored fails with the reason", async () => {
    const limit = mesh.maxPayloadBytes();
    expect(await codeOf(topics.publish("t", new Uint8Array(limit + 1), { timeoutMs: 10_000 }))).toBe(
      "too-large",
    );
    expect(await codeOf(publish("x".repeat(3_000), "x"))).toBe("too-large");
    const headers = (name: string, value: string) =>
      topics.publish("t", bytes(""), { headers: [name, value], timeoutMs: 10_000 });
    expect(await codeOf(headers("a b", "x"))).toBe("protocol");
    expect(await codeOf(headers("a", "x\r\ny"))).toBe("protocol");
    expect(await codeOf(headers("Nats-TTL", "junk"))).toBe("storage");
    const stop = AbortSignal.abort();
    expect(await codeOf(topics.publish("t", bytes(""), { timeoutMs: 10_000, signal: stop }))).toBe(
      "cancelled",
    );
  });

  it("under a subject that no Weft program would choose is handled, and does not block the group", async () => {
    const topic = fresh();
    const seen: string[] = [];
    await topics.subscribe(options(`${topic}.>`), async (message) => void seen.push(message.topic));
    const client = await lab.nats.connect();
    await client.request(`weft.default.topic.pubsub.${topic}.a=b.ü`, "x", { timeout: 5_000 });
    await publish(`${topic}.z`, "z");
    await eventually(() => seen.length === 2);
    expect(seen).toEqual([`${topic}.a=b.ü`, `${topic}.z`]);
  });
});

describe("a handler", () => {
  it("that fails gets the event again after the backoff of that delivery, until it succeeds", async () => {
    const topic = fresh();
    const times: number[] = [];
    await topics.subscribe(options(topic, { backoffMs: [50, 300] }), async ({ deliveries }) => {
      times.push(performance.now());
      expect(deliveries).toBe(times.length);
      if (times.length < 4) throw new Error("not yet");
    });
    await publish(topic, "x");
    await eventually(() => times.length === 4);
    const gaps = times.slice(1).map((time, i) => time - times[i]!);
    expect(gaps[0]).toBeGreaterThan(45);
    expect(gaps[1]).toBeGreaterThan(295);
    expect(gaps[2]).toBeGreaterThan(295);
    await eventually(async () => (await consumerState(topic)).num_ack_pending === 0);
    expect(times).toHaveLength(4);
  });

  it("that fails for the last allowed time: the event is given up, with a line in the log", async () => {
    const topic = fresh();
    let deliveries = 0;
    await topics.subscribe(options(topic, { maxDeliver: 3, backoffMs: [20] }), () => {
      deliveries++;
      // Not even a promise.
      throw new Error("never");
    });
    await publish(topic, "x");
    await eventually(() =>
      problems.some((text) => text.includes(`${topic} given up after 3 deliveries: never`)),
    );
    await eventually(async () => (await consumerState(topic)).num_ack_pending === 0);
    expect(deliveries).toBe(3);
  });

  // The deadline is extended each third of it, so that a process may stand still for seconds.
  it.concurrent("that works longer than the ack deadline is left alone: delivered once", async () => {
    const topic = fresh();
    const seen: number[] = [];
    const got = Promise.withResolvers<void>();
    await topics.subscribe(options(topic, { ackWaitMs: 6_000 }), async ({ deliveries }) => {
      seen.push(deliveries);
      await sleep(9_000);
      got.resolve();
    });
    await publish(topic, "x");
    await got.promise;
    await eventually(async () => (await consumerState(topic)).num_ack_pending === 0);
    expect(seen).toEqual([1]);
    expect((await consumerState(topic)).num_redelivered).toBe(0);
  });

  it.concurrent("of a group whose deadline cannot be changed keeps to the one it has", async () => {
    const topic = fresh();
    const client = await lab.nats.connect();
    const config = {
      durable_name: `g__${topic}`,
      filter_subject: `weft.default.topic.pubsub.${topic}`,
      ack_policy: "explicit",
      deliver_policy: "last",
      ack_wait: 6_000e6,
    };
    const made = await client.request(
      `$JS.API.CONSUMER.DURABLE.CREATE.${topics.stream}.g__${topic}`,
      JSON.stringify({ stream_name: topics.stream, config }),
      { timeout: 10_000 },
    );
    expect(made.json()).not.toHaveProperty("error");
    const seen: number[] = [];
    await topics.subscribe(options(topic, { ackWaitMs: 60_000 }), async ({ deliveries }) => {
      seen.push(deliveries);
      await sleep(9_000);
    });
    await publish(topic, "x");
    await eventually(() => seen.length > 0);
    const handled = async (): Promise<boolean> => (await consumerState(topic)).num_ack_pending === 0;
    await eventually(handled, { timeoutMs: 20_000 });
    expect(seen).toEqual([1]);
  });

  it("never has more company than its concurrency allows, and no event waits for a slow one beside it", async () => {
    const topic = fresh();
    await publishAll(topic, 60);
    let running = 0;
    let most = 0;
    const got: string[] = [];
    const [five, forty] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    await topics.subscribe(options(topic, { concurrency: 5, ackWaitMs: 60_000 }), async ({ data }) => {
      most = Math.max(most, ++running);
      if (running === 5) five.resolve();
      await five.promise;
      await (textOf(data) === "0" ? forty.promise : sleep(5));
      running--;
      if (got.push(textOf(data)!) === 40) forty.resolve();
    });
    await eventually(() => got.length === 60);
    expect(most).toBe(5);
    expect(byNumber(got)).toEqual(numbers(60));
  });

  it("that handles one event at a time gets them in order", async () => {
    const topic = fresh();
    for (let i = 0; i < 30; i++) await publish(topic, String(i));
    const { got } = await collect(topic, { concurrency: 1 });
    await eventually(() => got.length === 30);
    expect(got).toEqual(numbers(30));
  });
});

describe("stopping a subscription", () => {
  it("lets running handlers finish, acknowledges what was handled, gives the rest to others at once", async () => {
    const topic = fresh();
    await publishAll(topic, 40);
    const release = Promise.withResolvers<void>();
    const begun: string[] = [];
    const leaving = await topics.subscribe(options(topic, { concurrency: 10 }), async ({ data }) => {
      begun.push(textOf(data)!);
      await release.promise;
    });
    await eventually(() => begun.length === 10);
    const stopped = Promise.all([leaving.stop(60_000), leaving.stop(60_000)]);
    const { got } = await collect(topic, { concurrency: 40 });
    await eventually(() => got.length === 30);
    release.resolve();
    await stopped;
    await eventually(async () => (await consumerState(topic)).num_ack_pending === 0);
    expect(byNumber([...begun, ...got])).toEqual(numbers(40));
  });

  it("past its grace: tells the handlers, and their events go to another member at once", async () => {
    const topic = fresh();
    const [begun, aborted] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const release = Promise.withResolvers<void>();
    await publish(topic, "x");
    const leaving = await topics.subscribe(
      options(topic, { ackWaitMs: 60_000, backoffMs: [60_000] }),
      async (_message, signal) => {
        signal.addEventListener("abort", () => aborted.resolve());
        begun.resolve();
        await release.promise;
      },
    );
    await begun.promise;
    await leaving.stop(50);
    await aborted.promise;
    const { got } = await collect(topic);
    await eventually(() => got.length === 1);
    // The late success is not an answer any more.
    release.resolve();
    await eventually(async () => (await consumerState(topic)).num_ack_pending === 0);
    await publish(topic, "y");
    await eventually(() => got.length === 2);
  });

  it("past its grace: a late success does not take the event from who handles it now", async () => {
    const topic = fresh();
    const [late, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const begun = Promise.withResolvers<void>();
    await publish(topic, "x");
    const leaving = await topics.subscribe(options(topic), () => (begun.resolve(), late.promise));
    await begun.promise;
    await leaving.stop(10);
    const seen: number[] = [];
    await topics.subscribe(options(topic, { backoffMs: [10] }), async ({ deliveries }) => {
      seen.push(deliveries);
      if (seen.length > 1) return;
      await second.promise;
      throw new Error("failed");
    });
    await eventually(() => seen.length === 1);
    late.resolve();
    // Goes the same way as the late answer would.
    await publish(`${topic}.other`, "y");
    second.resolve();
    await eventually(() => seen.length === 2);
    expect(seen).toEqual([2, 3]);
  });

  it("that waits for events ends its pull: they go to another member, and not by way of it", async () => {
    const topic = fresh();
    const { subscription } = await collect(topic);
    await eventually(async () => (await consumerState(topic)).num_waiting === 1);
    await subscription.stop(1_000);
    const seen: number[] = [];
    await topics.subscribe(options(topic), async ({ deliveries }) => void seen.push(deliveries));
    await publishAll(topic, 20);
    await eventually(() => seen.length === 20);
    expect(new Set(seen)).toEqual(new Set([1]));
  });

  it("while events are on their way to it gives them to another member at once", async () => {
    const topic = fresh();
    await using proxy = await faultProxy(lab.nats.port);
    const behind = await lab.join("behind", { natsUrls: [proxy.url("nats")] });
    const first = await collect(topic, { ackWaitMs: 60_000 }, await behind.topics(stream));
    await eventually(async () => (await consumerState(topic)).num_waiting === 1);
    proxy.block();
    await publishAll(topic, 5);
    await eventually(async () => (await consumerState(topic)).num_ack_pending === 5);
    const stopped = first.subscription.stop(60_000);
    const { got } = await collect(topic, { ackWaitMs: 60_000 });
    proxy.heal();
    await stopped;
    await eventually(() => got.length === 5);
    expect([first.got, byNumber(got)]).toEqual([[], numbers(5)]);
    await behind.close();
  });

  it("again and again while events flow loses and repeats nothing", async () => {
    const topic = fresh();
    const handled: string[] = [];
    const publishing = (async () => {
      for (let i = 0; i < 300; i++) await publish(topic, String(i));
    })();
    for (let round = 0; round < 8; round++) {
      const before = handled.length;
      const subscription = await topics.subscribe(options(topic), async ({ data }) => {
        await sleep(3);
        handled.push(textOf(data)!);
      });
      await eventually(() => handled.length > before + 5 || handled.length === 300);
      await subscription.stop(5_000);
    }
    await publishing;
    const { got } = await collect(topic);
    await eventually(() => handled.length + got.length >= 300);
    expect(byNumber([...handled, ...got])).toEqual(numbers(300));
  });

  it("with the mesh: handlers are told, timers are gone", async () => {
    const topic = fresh();
    const leaving = await lab.join("leaving");
    const [begun, aborted] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    await (
      await leaving.topics(stream)
    ).subscribe(options(topic), async (_message, signal) => {
      signal.addEventListener("abort", () => aborted.resolve());
      begun.resolve();
      await aborted.promise;
    });
    await publish(topic, "x");
    await begun.promise;
    await leaving.close();
    await aborted.promise;
  });
});

describe("trouble", () => {
  it("a member is killed: another one gets its events after the ack deadline, none is lost", async () => {
    const topic = fresh();
    await using child = await startParticipant(lab.nats.url, "subscribe", "g", topic, "1000", "60000");
    await publishAll(topic, 20);
    await eventually(() => child.logs().split("begun").length - 1 === 8);
    await child.kill("SIGKILL");
    const { got } = await collect(topic, { ackWaitMs: 1_000 });
    // One that is slower than the deadline gets some of them again.
    await eventually(() => expect(byNumber(new Set(got))).toEqual(numbers(20)), { timeoutMs: 20_000 });
  });

  it("a member is asked to end: what it handled is acknowledged, the rest goes on elsewhere", async () => {
    const topic = fresh();
    await using child = await startParticipant(lab.nats.url, "subscribe", "g", topic, "30000", "20");
    await publishAll(topic, 100);
    await eventually(() => child.logs().includes("handled"));
    child.signal("SIGTERM");
    expect(await child.exited).toBe(0);
    const handled = [...child.logs().matchAll(/^handled (\d+) 1$/gm)].map((match) => match[1]!);
    const { got } = await collect(topic, { ackWaitMs: 30_000, concurrency: 32 });
    await eventually(() => got.length + handled.length >= 100);
    expect(byNumber([...handled, ...got])).toEqual(numbers(100));
  });

  it.each([
    ["the group", (topic: string) => `CONSUMER.DELETE.${topics.stream}.g__${topic}`],
    ["the stream", () => `STREAM.DELETE.${topics.stream}`],
  ])(
    "%s is deleted under a running member: made again, events flow",
    { timeout: 120_000 },
    async (_name, subject) => {
      const topic = fresh();
      const { got } = await collect(topic);
      await publish(topic, "before");
      await eventually(() => got.includes("before"));
      const client = await lab.nats.connect();
      for (let round = 0; round < 3; round++) {
        await client.request(`$JS.API.${subject(topic)}`, "", { timeout: 5_000 });
        await publish(topic, `after ${round}`);
        await eventually(() => got.includes(`after ${round}`), { timeoutMs: 30_000 });
      }
    },
  );

  it("a pull got lost on its way: the missing heartbeat is noticed and it is asked for again", async () => {
    const clock = jumpingClock();
    await using proxy = await deafProxy(lab.nats.port);
    const watching = await lab.join("watching", { clock, natsUrls: [proxy.url] });
    const topic = fresh();
    const { got } = await collect(topic, { concurrency: 1, ackWaitMs: 500 }, await watching.topics(stream));
    await eventually(async () => (await consumerState(topic)).num_waiting === 1);
    proxy.mute();
    await publish(topic, "x");
    await eventually(() => got.includes("x"));
    // With the acknowledgement, the next pull is lost.
    await eventually(() => proxy.unheard().includes("CONSUMER.MSG.NEXT") && proxy.unheard().includes("+ACK"));
    proxy.hear();
    expect(await consumerState(topic)).toMatchObject({ num_waiting: 0, num_ack_pending: 1 });
    await publish(topic, "y");
    clock.jump(6_000);
    await eventually(() => got.includes("y"));
    await watching.close();
  });
});
