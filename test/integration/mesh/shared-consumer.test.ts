// Many topics of a group on one consumer: nothing is skipped, whatever joins, leaves or dies.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JoinedMesh, TopicStream, TopicSubscribeOptions } from "../../../mesh/index.ts";
import { deafProxy, eventually } from "../../kit/index.ts";
import { type Lab, bytes, startLab, textOf } from "./lab.ts";

const times = { lookMs: 400, askMs: 200, answerMs: 300, unwantedMs: 600 };

let lab: Lab;
let count = 0;
beforeAll(async () => {
  lab = await startLab();
});
afterAll(() => lab[Symbol.asyncDispose]());

const names = (amount: number, prefix = "t"): string[] =>
  Array.from({ length: amount }, (_, i) => `${prefix}${i}`);
const waitLong = { timeoutMs: 30_000 };

type Member = {
  readonly mesh: JoinedMesh;
  readonly topics: TopicStream;
  /** Topic and text of what was handled, in the order in which it came. */
  readonly got: string[];
  /** Subscribes to all at once; gives what ends each. */
  join(wanted: readonly string[], more?: More): Promise<{ stop(graceMs: number): Promise<void> }[]>;
};

/** What the tests read of NATS' answers about consumers. */
type Answer = {
  readonly consumers?: readonly string[];
  readonly num_ack_pending: number;
  readonly num_pending: number;
  readonly config: {
    readonly filter_subjects: readonly string[];
    readonly metadata: Readonly<Record<string, string>>;
  };
};

/** A stream of its own, its state by NATS itself, and members of the group `g`. */
function scene() {
  const name = ["default", `shared${count++}`];
  const stream = `weft__topics__default__${name[1]}`;
  const base = `weft.default.topic.${name[1]}`;
  const ask = async (subject: string, body?: unknown) => {
    await using client = await connected();
    const payload = body === undefined ? "" : JSON.stringify(body);
    return (await client.nc.request(`$JS.API.${subject}`, payload, { timeout: 10_000 })).json<Answer>();
  };
  return {
    stream,
    ask,
    async member(
      own: Partial<typeof times> = {},
      lines: string[] = [],
      natsUrls: readonly string[] = [lab.nats.url],
    ): Promise<Member> {
      const log = (level: string, text: string): void => void lines.push(`${level} ${text}`);
      const mesh = await lab.join("m", { log, natsUrls });
      const sharedTimes = { ...times, ...own };
      const topics = await mesh.topics({ name, maxAgeMs: 3_600_000, maxBytes: -1, sharedTimes });
      const got: string[] = [];
      return {
        mesh,
        topics,
        got,
        join: (wanted, more = {}) =>
          Promise.all(
            wanted.map((topic) =>
              topics.subscribe(options(topic, more), async (event) => {
                got.push(`${event.topic} ${textOf(event.data)}`);
              }),
            ),
          ),
      };
    },
    async publish(...events: readonly string[]): Promise<void> {
      await using client = await connected();
      for (const event of events) {
        const [topic, text] = event.split(" ");
        await client.nc.request(`${base}.${topic}`, bytes(text!), { timeout: 10_000 });
      }
    },
    consumers: async (): Promise<string[]> =>
      ((await ask(`CONSUMER.NAMES.${stream}`)).consumers ?? []).toSorted(),
    filters: async (): Promise<string[]> =>
      ((await ask(`CONSUMER.INFO.${stream}.g___shared`)).config.filter_subjects ?? [])
        .map((filter: string) => filter.slice(`weft.default.*.${name[1]}.`.length))
        .toSorted(),
    /** How many of these events are not acknowledged. */
    underWay: async (): Promise<number> => {
      const info = await ask(`CONSUMER.INFO.${stream}.g___shared`);
      return info.num_ack_pending + info.num_pending;
    },
  };
}

async function connected() {
  const nc = await lab.nats.connect();
  return { nc, [Symbol.asyncDispose]: () => nc.close() };
}

type More = Partial<TopicSubscribeOptions> & { readonly alone?: boolean };
const alone: More = { alone: true };

const options = (topic: string, { alone: own = false, ...more }: More): TopicSubscribeOptions => ({
  topic,
  group: "g",
  deliver: "all",
  ...(own ? {} : { shared: "join" }),
  ackWaitMs: 30_000,
  concurrency: 32,
  backoffMs: [50],
  maxDeliver: -1,
  ...more,
});

describe("one consumer", () => {
  it("has a thousand topics by a few changes, and hands each event to the handler of its topic", async () => {
    const { member, publish, consumers, filters, stream } = scene();
    const one = await member();
    await using client = await connected();
    let changes = 0;
    client.nc.subscribe(`$JS.API.CONSUMER.CREATE.${stream}.>`, { callback: () => void changes++ });
    await client.nc.flush();
    await one.join(names(1_000));
    await client.nc.flush();
    expect(changes).toBeGreaterThan(0);
    expect(changes).toBeLessThan(10);
    expect(await consumers()).toEqual(["g___shared"]);
    expect(await filters()).toHaveLength(1_000);
    await publish("t7 a", "t999 b", "t0 c");
    await eventually(() => expect(one.got.toSorted()).toEqual(["t0 c", "t7 a", "t999 b"]));
  });

  it("is shared by the members of the group, and begins with the oldest event", async () => {
    const { member, publish, consumers } = scene();
    const [one, two] = [await member(), await member()];
    const events = names(100).flatMap((topic) => [`${topic} 1`, `${topic} 2`]);
    await one.topics.publish("other", bytes(""), { timeoutMs: 5_000 });
    await publish(...events);
    await Promise.all([one.join(names(100)), two.join(names(100))]);
    await eventually(() => expect([...one.got, ...two.got].toSorted()).toEqual(events.toSorted()));
    const more = names(100).flatMap((topic) => [`${topic} 3`, `${topic} 4`]);
    await publish(...more);
    await eventually(() =>
      expect([...one.got, ...two.got].toSorted()).toEqual([...events, ...more].toSorted()),
    );
    expect(one.got.length).toBeGreaterThan(20);
    expect(two.got.length).toBeGreaterThan(20);
    expect(await consumers()).toEqual(["g___shared"]);
  });

  it("takes no filters that overlap, no topic with a consumer of its own, nothing else that is special", async () => {
    const { member, publish, consumers, filters } = scene();
    const one = await member();
    await one.join(["old"], alone);
    await one.join(["a", "b.*", "old"]);
    await one.join(["b.>", "*", "b.c"]);
    await one.join(["o"], { ...alone, ordered: true });
    expect(await filters()).toEqual(["a", "b.*"]);
    const own = (await consumers()).filter((name) => !/^g__o__\d+$/.test(name));
    expect(own).toEqual(["g___2A", "g___shared", "g__b_2E_3E", "g__b_2Ec", "g__o", "g__old"]);
    await publish("old 1");
    await eventually(() => expect(one.got).toContain("old 1"));
    await publish("b.c 1");
    await eventually(() => expect(one.got.filter((it) => it === "b.c 1")).toHaveLength(3));
  });

  it("is not made where all topics have consumers of their own", async () => {
    const { member, publish, consumers } = scene();
    const one = await member();
    await one.join(["a", "b"], alone);
    const lines: string[] = [];
    const two = await member({}, lines);
    await two.join(["a", "b"]);
    await publish("a 1", "b 1");
    await eventually(() => expect([...one.got, ...two.got].toSorted()).toEqual(["a 1", "b 1"]));
    await two.join(["c"]);
    expect(await consumers()).toEqual(["g___shared", "g__a", "g__b"]);
    expect(lines.filter((line) => line.startsWith("warn"))).toEqual([]);
  });

  it("gives an event to the wildcard of another member, also where a topic of that name has its own", async () => {
    const { member, publish } = scene();
    const one = await member({ lookMs: 60_000 });
    const [before] = await one.join(["w.x"], alone);
    await before!.stop(0);
    await one.join(["a", "w.x"]);
    const two = await member({ lookMs: 60_000 });
    await two.join(["w.*"]);
    const events = names(10, "w.x ");
    await publish(...events);
    for (const { got } of [one, two])
      await eventually(() => expect(got.toSorted()).toEqual(events), waitLong);
  }, 60_000);
});

describe("a topic that joins later", () => {
  it("gets a consumer of its own when it has events that the shared one has passed", async () => {
    const { member, publish, consumers, filters } = scene();
    const one = await member();
    await one.join(["a"]);
    await publish("a 1", "x 1", "x 2", "a 2");
    await eventually(() => expect(one.got).toEqual(["a 1", "a 2"]));
    await one.join(["x", "y"]);
    await publish("x 3", "y 1");
    await eventually(() => expect(one.got.slice(2).toSorted()).toEqual(["x 1", "x 2", "x 3", "y 1"]));
    expect(await consumers()).toEqual(["g___shared", "g__x"]);
    expect(await filters()).toEqual(["a", "y"]);
  });

  it("begins with the next event where that is asked for", async () => {
    const { member, publish, consumers } = scene();
    const one = await member();
    await one.join(["a"], { deliver: "new" });
    await publish("x 1", "a 1");
    await eventually(() => expect(one.got).toEqual(["a 1"]));
    await publish("z 1");
    await one.join(["x", "y", "z"], { deliver: "new" });
    await publish("x 2", "y 2", "z 2");
    await eventually(() => expect(one.got.slice(1).toSorted()).toEqual(["x 2", "y 2", "z 2"]));
    expect(await consumers()).toEqual(["g___shared", "g__z"]);
  });

  it("loses no event that comes between the look at the stream and the change of the consumer", async () => {
    const { member, publish, consumers, stream } = scene();
    await using proxy = await deafProxy(lab.nats.port);
    const one = await member({}, [], [proxy.url]);
    await one.join(["a"]);
    await publish("a 1");
    await eventually(() => expect(one.got).toEqual(["a 1"]));
    const change = proxy.hold(`CONSUMER.CREATE.${stream}.g___shared`);
    const joined = one.join(["x"]);
    await change.begun;
    await publish("x 1", "a 2");
    change.release();
    await joined;
    await publish("x 2");
    await eventually(() => expect(new Set(one.got.slice(1))).toEqual(new Set(["a 2", "x 1", "x 2"])));
    expect(await consumers()).toEqual(["g___shared", "g__x"]);
  });

  it("loses nothing that is published while topics join, by two members with different ones", async () => {
    const { member, publish } = scene();
    const [one, two] = [await member(), await member()];
    const mine = names(60, "m");
    const theirs = names(60, "n");
    await one.join(["first"]);
    let stop = false;
    const published: string[] = [];
    const publishing = (async () => {
      for (let n = 0; !stop; n++) {
        const events = [...mine, ...theirs].map((topic) => `${topic} ${n}`);
        await publish(...events);
        published.push(...events);
      }
    })();
    for (let i = 0; i < 60; i += 20)
      await Promise.all([one.join(mine.slice(i, i + 20)), two.join(theirs.slice(i, i + 20))]);
    stop = true;
    await publishing;
    await eventually(() => {
      const all = [new Set(one.got), new Set(two.got)] as const;
      expect(published.filter((it) => !all[it.startsWith("m") ? 0 : 1].has(it))).toEqual([]);
    }, waitLong);
    expect(one.got.every((it) => it.startsWith("m"))).toBe(true);
    expect(two.got.every((it) => it.startsWith("n"))).toBe(true);
  }, 90_000);
});

describe("members with different topics", () => {
  it("each handle their own, and give back the others'", async () => {
    const { member, publish, consumers } = scene();
    const [one, two] = [await member({ unwantedMs: 60_000 }), await member({ unwantedMs: 60_000 })];
    await Promise.all([one.join(["a", "both"]), two.join(["b", "both"])]);
    const events = ["a", "b", "both"].flatMap((topic) => names(30, `${topic} `));
    await publish(...events);
    await eventually(() => {
      expect([...one.got, ...two.got].toSorted()).toEqual(events.toSorted());
    }, waitLong);
    expect(one.got.some((it) => it.startsWith("b "))).toBe(false);
    expect(two.got.some((it) => it.startsWith("a "))).toBe(false);
    expect(await consumers()).toEqual(["g___shared"]);
  }, 60_000);

  it("a topic that nobody handles any more waits in a consumer of its own, where the next one goes on", async () => {
    const { member, publish, consumers, filters, underWay } = scene();
    const [one, two] = [await member(), await member()];
    await one.join(["a"]);
    const [gone] = await two.join(["gone"]);
    await publish("gone 1", "a 1");
    await eventually(() => expect(two.got).toEqual(["gone 1"]));
    await gone!.stop(0);
    await publish("gone 2", "a 2", "gone 3");
    await eventually(async () => expect(await filters()).toEqual(["a"]), waitLong);
    expect(await consumers()).toEqual(["g___shared", "g__gone"]);
    await eventually(async () => expect(await underWay()).toBe(0), waitLong);
    await publish("gone 4", "a 3");
    await eventually(() => expect(one.got.toSorted()).toEqual(["a 1", "a 2", "a 3"]));
    const three = await member();
    await three.join(["gone"]);
    await eventually(() => {
      const rest = three.got.filter((it) => it !== "gone 1");
      expect(rest.toSorted()).toEqual(["gone 2", "gone 3", "gone 4"]);
    });
    expect(one.got).toHaveLength(3);
  }, 60_000);

  it("a topic that some member handles stays, however long others get its events", async () => {
    const { member, publish, filters, stream } = scene();
    const [one, two] = [await member(), await member()];
    let open = false;
    await one.join(["a"]);
    await two.topics.subscribe(options("slow", { backoffMs: [300] }), async () => {
      if (!open) throw new Error("not yet");
    });
    await using client = await connected();
    let asked = 0;
    client.nc.subscribe(stream.replace(/^.*__(.*)$/, "weft.default.group.$1.g"), {
      callback: () => void asked++,
    });
    await publish("slow 1");
    await eventually(() => expect(asked).toBeGreaterThan(6), waitLong);
    expect(await filters()).toEqual(["a", "slow"]);
    open = true;
  }, 60_000);
});

describe("what was lost", () => {
  it("a filter that vanished is put back, and what it missed is delivered", async () => {
    const { member, publish, stream, ask } = scene();
    const one = await member();
    await one.join(["a", "b"], { deliver: "new" });
    await publish("b 1");
    await eventually(() => expect(one.got).toEqual(["b 1"]));
    const { config } = await ask(`CONSUMER.INFO.${stream}.g___shared`);
    const less = config.filter_subjects.filter((filter: string) => filter.endsWith(".a"));
    const changed = await ask(`CONSUMER.CREATE.${stream}.g___shared`, {
      stream_name: stream,
      config: { ...config, filter_subjects: less },
    });
    expect(changed.config.filter_subjects).toEqual(less);
    await publish("b 2", "a 1", "b 3");
    await eventually(() => expect(new Set(one.got)).toEqual(new Set(["b 1", "a 1", "b 2", "b 3"])));
  });

  it("a consumer that was deleted is made again with the topics of all members", async () => {
    const { member, publish, stream, ask, filters } = scene();
    const [one, two] = [await member(), await member()];
    await one.join(["a"], { deliver: "new" });
    await two.join(["b"], { deliver: "new" });
    await ask(`CONSUMER.DELETE.${stream}.g___shared`);
    await eventually(async () => expect(await filters()).toEqual(["a", "b"]), waitLong);
    await eventually(async () => {
      await publish("a x", "b x");
      expect([one.got.length > 0, two.got.length > 0]).toEqual([true, true]);
    }, waitLong);
  }, 60_000);

  it("a member that died while it added topics is made good by the next one", async () => {
    const { member, publish, stream, ask, filters } = scene();
    const one = await member();
    await one.join(["a"]);
    await publish("a 1", "late 1");
    await eventually(() => expect(one.got).toEqual(["a 1"]));
    // What it leaves behind: its filter and the mark, while the consumer has passed the first event already.
    const { config } = await ask(`CONSUMER.INFO.${stream}.g___shared`);
    const filter = config.filter_subjects[0]!.replace(/a$/, "late");
    const metadata = { ...config.metadata, "weft-joining": "1" };
    await ask(`CONSUMER.CREATE.${stream}.g___shared`, {
      stream_name: stream,
      config: { ...config, filter_subjects: [...config.filter_subjects, filter], metadata },
    });
    const two = await member();
    await two.join(["late"]);
    await eventually(() => expect(two.got).toEqual(["late 1"]), waitLong);
    const after = await ask(`CONSUMER.INFO.${stream}.g___shared`);
    expect(after.config.metadata["weft-joining"]).toBeUndefined();
    expect(await filters()).toEqual(["a", "late"]);
  }, 60_000);
});

describe("off again", () => {
  it("keeps the topics of the shared consumer there, and gives others their own", async () => {
    const { member, publish, consumers } = scene();
    const one = await member();
    const first = await one.join(["a", "b"]);
    await publish("a 1", "b 1");
    await eventually(() => expect(one.got).toHaveLength(2));
    await Promise.all(first.map((it) => it.stop(1_000)));
    await publish("a 2");
    const two = await member();
    await two.join(["a", "b", "c"], { shared: "keep" });
    await publish("b 2", "c 1");
    await eventually(() => expect(two.got.toSorted()).toEqual(["a 2", "b 2", "c 1"]));
    expect(await consumers()).toEqual(["g___shared", "g__c"]);
  });

  it("a subscription that cannot share takes its topic out, and the others follow", async () => {
    const { member, publish, consumers, filters } = scene();
    const [one, two] = [await member(), await member()];
    await one.join(["a", "b"]);
    await publish("a 1");
    await eventually(() => expect(one.got).toEqual(["a 1"]));
    await two.join(["a"], { ...alone, deliver: { sequence: 1 } });
    expect([await consumers(), await filters()]).toEqual([["g___shared", "g__a"], ["b"]]);
    await eventually(async () => {
      await publish("a x");
      expect([one, two].map(({ got }) => got.includes("a x"))).toEqual([true, true]);
    }, waitLong);
  }, 60_000);
});

describe("one member", () => {
  it("may subscribe twice, and leave one by one while handlers run", async () => {
    const { member, publish, underWay } = scene();
    const one = await member();
    let release = (): void => {};
    const gate = new Promise<void>((resolve) => (release = resolve));
    const seen: string[] = [];
    const slow = await one.topics.subscribe(options("slow", {}), async ({ data }) => {
      seen.push(textOf(data)!);
      if (seen.length === 1) await gate;
    });
    const [fast, twin] = [...(await one.join(["fast"])), ...(await one.join(["fast"]))];
    await publish("slow 1", "fast 1", "fast 2");
    await eventually(() => expect([seen, one.got.length]).toEqual([["1"], 2]));
    await fast!.stop(0);
    await publish("fast 3");
    await eventually(() => expect(one.got).toHaveLength(3));
    const stopped = slow.stop(10_000);
    release();
    await stopped;
    await twin!.stop(0);
    await eventually(async () => expect(await underWay()).toBe(0));
  });

  it("gives back at once what still runs when its grace is over, and counts deliveries itself", async () => {
    const { member, publish, underWay } = scene();
    const [one, two] = [await member(), await member()];
    const [begun, aborted] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const hanging = await one.topics.subscribe(options("hang", {}), (_event, signal) => {
      signal.addEventListener("abort", () => aborted.resolve());
      begun.resolve();
      return new Promise(() => {});
    });
    await one.join(["other"]);
    await publish("hang 1");
    await begun.promise;
    expect(await underWay()).toBe(1);
    const tries: number[] = [];
    await two.topics.subscribe(options("hang", { maxDeliver: 4 }), async ({ deliveries }) => {
      tries.push(deliveries);
      throw new Error("no");
    });
    await hanging.stop(100);
    await aborted.promise;
    await eventually(async () => expect(await underWay()).toBe(0), waitLong);
    expect(tries.at(-1)).toBeGreaterThanOrEqual(4);
  }, 60_000);
});
