/**
 * What every pub/sub component must do, as one suite over the port (src/blocks/pubsub/port.ts). A component joins by
 * one call of `pubsubContract` in pubsub.test.ts. Topics are fresh for each test, so components may keep events.
 */
// oxlint-disable vitest/no-conditional-tests -- what a broker does not promise is no case of its suite
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type {
  BrokerMessage,
  MessageHandler,
  PublishMessage,
  PubSub,
  SubscribeRequest,
  Subscription,
} from "../../src/blocks/pubsub/port.ts";
import { eventually } from "../kit/eventually.ts";

export type PubSubFixture = {
  /** A component as one app opens it. Components of the same group share events where the broker knows groups. */
  open(group: string): Promise<PubSub>;
  close(): Promise<void>;
};

export type PubSubContractOptions = {
  /** Handlers that run at once in one subscription; undefined where the broker decides. */
  readonly concurrency: number | undefined;
  /** A pattern for all topics that begin with a prefix, and a topic that fits it and one that does not. */
  readonly wildcard?: (prefix: string) => { pattern: string; fits: string; other: string };
  /** What of the publisher's metadata arrives. */
  readonly metadata: "exactly" | "among others" | "nothing";
  /** Whether a topic may be called so; any may when not given. */
  readonly takesTopic?: (topic: string) => boolean;
  /** Members of one group share its events. */
  readonly shares: boolean;
  /** Events wait for groups that begin later. */
  readonly keepsForNewGroups: boolean;
  /** Events wait for a group while none of it is there. */
  readonly keepsForAbsent: boolean;
  /** An event that failed comes again by itself. */
  readonly redelivers: boolean;
  /** An event whose handler was stopped goes to another member. */
  readonly handsOver: boolean;
  /** A publish with the id of an earlier one is dropped. */
  readonly dropsRepeated: boolean;
  /** Events after one that fails are handled meanwhile. */
  readonly passesFailures: boolean;
  /** After how long the broker gives an event to another member when it hears nothing, as the fixture sets it. */
  readonly ackWaitMs?: number;
};

/** What a broker promises that keeps events until they are handled. */
export const durable = {
  metadata: "exactly",
  shares: true,
  keepsForNewGroups: true,
  keepsForAbsent: true,
  redelivers: true,
  handsOver: true,
  passesFailures: true,
} as const;

type Suite = { readonly open: (group?: string) => Promise<PubSub>; readonly options: PubSubContractOptions };

const never = new AbortController().signal;
const graceMs = 2_000;

export function pubsubContract(
  name: string,
  options: PubSubContractOptions,
  start: () => Promise<PubSubFixture>,
): void {
  describe(`pub/sub component ${name}`, () => {
    let fixture: PubSubFixture | undefined;
    beforeAll(async () => {
      fixture = await start();
    }, 150_000);
    afterAll(async () => {
      await fixture?.close();
    });
    const suite: Suite = {
      options,
      async open(group = "g") {
        const port = await fixture!.open(group);
        onTestFinished(() => port.close());
        return port;
      },
    };
    messages(suite);
    metadata(suite);
    topics(suite);
    sharing(suite);
    durability(suite);
    repeats(suite);
    failures(suite);
    flow(suite);
    ends(suite);
  });
}

/** A subscription that keeps what it gets. */
async function collect(
  port: PubSub,
  request: Partial<SubscribeRequest> & { topic: string },
  handler: MessageHandler = async () => {},
): Promise<{ got: BrokerMessage[]; subscription: Subscription }> {
  const got: BrokerMessage[] = [];
  const whole = { metadata: {}, rawPayload: false, batch: 1, ...request };
  const subscription = await port.subscribe(whole, (message, signal) => {
    got.push(message);
    return handler(message, signal);
  });
  onTestFinished(() => subscription.stop(0));
  return { got, subscription };
}

function publish(port: PubSub, topic: string, message: Partial<PublishMessage> = {}): Promise<void> {
  const envelope = {
    data: Buffer.from('{"id":"1"}'),
    contentType: "application/cloudevents+json",
    metadata: {},
  };
  return port.publish({ ...envelope, id: randomUUID(), ...message, topic }, never);
}

async function arrived(got: readonly BrokerMessage[], count: number): Promise<readonly BrokerMessage[]> {
  await eventually(() => expect(got.length).toBeGreaterThanOrEqual(count), { timeoutMs: 30_000 });
  return got;
}

const newTopic = (): string => `t-${randomUUID()}`;
const texts = (got: readonly BrokerMessage[]): string[] =>
  got.map(({ data }) => Buffer.from(data).toString());

function messages({ open }: Suite): void {
  describe("messages", () => {
    it.each([
      ["an envelope", '{"id":"1","data":"\\u0000 \u2028"}'],
      ["an envelope with blanks", '{ "id" : 1.0 }\n'],
    ])("keep the bytes of %s", async (_, text) => {
      const [port, topic] = [await open(), newTopic()];
      const { got } = await collect(port, { topic });
      await publish(port, topic, { data: Buffer.from(text) });
      expect(texts(await arrived(got, 1))).toEqual([text]);
    });

    it("keep raw bytes, for raw subscriptions and others", async () => {
      const port = await open();
      const data = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
      for (const rawPayload of [true, false]) {
        const topic = newTopic();
        const { got } = await collect(port, { topic, rawPayload });
        await publish(port, topic, { data, contentType: undefined, id: undefined });
        expect(Buffer.from((await arrived(got, 1))[0]!.data)).toEqual(data);
      }
    });

    it("keep nothing at all", async () => {
      const [port, topic] = [await open(), newTopic()];
      const { got } = await collect(port, { topic, rawPayload: true });
      await publish(port, topic, { data: Buffer.alloc(0), contentType: undefined });
      expect((await arrived(got, 1))[0]!.data.length).toBe(0);
    });

    it("do not change when the publisher uses its buffer again", async () => {
      const [port, topic] = [await open(), newTopic()];
      let release = (): void => {};
      const busy = new Promise<void>((resolve) => (release = resolve));
      const { got } = await collect(port, { topic }, () => busy);
      const data = Buffer.from('{"id":"1"}');
      await publish(port, topic, { data });
      data.fill(0);
      release();
      expect(texts(await arrived(got, 1))).toEqual(['{"id":"1"}']);
    });
  });
}

function metadata({ open, options }: Suite): void {
  if (options.metadata === "nothing") return;
  describe("metadata", () => {
    it("of any name and text arrive", async () => {
      const [port, topic] = [await open(), newTopic()];
      const metadata = {
        plain: "value",
        camelCase: "Kept",
        empty: "",
        "with blanks: and ümlaut": " leading, trailing ",
        "a%20b": "100%",
        lines: "a\r\nb: c\0",
        emoji: "🙂",
      };
      const { got } = await collect(port, { topic });
      await publish(port, topic, { metadata });
      const [message] = await arrived(got, 1);
      if (options.metadata === "exactly") expect(message!.metadata).toEqual(metadata);
      else expect(message!.metadata).toMatchObject(metadata);
    });
  });
}

function topics({ open, options }: Suite): void {
  describe("topics", () => {
    const names: readonly (readonly [string, (base: string) => string])[] = [
      ["with blanks", (base: string) => `${base} a  b `],
      ["in any script", (base: string) => `${base}-grün-日本-🙂`],
      ["with empty parts", (base: string) => `${base}..a.`],
      ["beginning with a dot", (base: string) => `.${base}`],
      ["with slashes", (base: string) => `/${base}/a//b/`],
      ["with signs", (base: string) => `${base}=%20+:;,"'<>&|\\`],
      ["of 200 characters", (base: string) => base + "x".repeat(200 - base.length)],
      ["with a tab and a line break", (base: string) => `${base}\t\r\n`],
      ["with dots", (base: string) => `${base}.a.b`],
    ];
    const taken = names.filter(([, make]) => options.takesTopic?.(make("t-1")) ?? true);
    it.each(taken)("may be %s", async (_, make) => {
      const [port, topic] = [await open(), make(newTopic())];
      const { got } = await collect(port, { topic });
      await publish(port, topic);
      await publish(port, `${topic}x`);
      expect((await arrived(got, 1)).map((message) => message.topic)).toEqual([topic]);
    });

    it("are kept apart, letter by letter", async () => {
      const [port, topic] = [await open(), newTopic()];
      const { got } = await collect(port, { topic });
      for (const other of [topic.toUpperCase(), `${topic}.a`, topic.slice(0, -1)]) await publish(port, other);
      await publish(port, topic, { data: Buffer.from('{"id":"mine"}') });
      expect(texts(await arrived(got, 1))).toEqual(['{"id":"mine"}']);
    });

    const { wildcard } = options;
    if (wildcard !== undefined)
      it("may be taken by a wildcard, which sees the actual topic", async () => {
        const port = await open();
        const { pattern, fits, other } = wildcard(newTopic());
        const { got } = await collect(port, { topic: pattern });
        await publish(port, other);
        await publish(port, fits);
        expect((await arrived(got, 1)).map((message) => message.topic)).toEqual([fits]);
      });

    it("need no subscriber", async () => {
      await publish(await open(), newTopic());
    });
  });
}

function sharing({ open, options }: Suite): void {
  describe("groups", () => {
    const ids = Array.from({ length: 40 }, (_, at) => `{"id":"${at}"}`);

    it("each get every event", async () => {
      const topic = newTopic();
      const first = await open("a");
      const { got: one } = await collect(first, { topic });
      const second = options.shares || options.keepsForAbsent ? await open("b") : first;
      const { got: two } = await collect(second, { topic });
      for (const text of ids) await publish(first, topic, { data: Buffer.from(text) });
      expect(texts(await arrived(one, 40)).sort()).toEqual([...ids].sort());
      expect(texts(await arrived(two, 40)).sort()).toEqual([...ids].sort());
    });
  });
}

/** What only brokers promise that store events. */
function durability({ open, options }: Suite): void {
  const { shares, keepsForNewGroups, keepsForAbsent, redelivers, handsOver } = options;
  if (![shares, keepsForNewGroups, keepsForAbsent, redelivers, handsOver].includes(true)) return;
  const ids = Array.from({ length: 40 }, (_, at) => `{"id":"${at}"}`);
  describe("a stored event", () => {
    if (shares)
      it("is shared by the members of a group", async () => {
        const topic = newTopic();
        const [one, two] = [await open("shared"), await open("shared")];
        const slowly = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
        const { got: first } = await collect(one, { topic }, slowly);
        const { got: second } = await collect(two, { topic }, slowly);
        await Promise.all(ids.map((text) => publish(one, topic, { data: Buffer.from(text) })));
        // Each at least once: a group that shares anew may hand over what is not acknowledged yet.
        await eventually(() => expect(new Set(texts([...first, ...second]))).toEqual(new Set(ids)), {
          timeoutMs: 30_000,
        });
      });

    if (keepsForNewGroups)
      it("waits for a group that begins later", async () => {
        const [port, topic] = [await open("late"), newTopic()];
        await publish(port, topic);
        const { got } = await collect(port, { topic });
        await arrived(got, 1);
      });

    if (keepsForAbsent)
      it("waits for a group while nobody of it is there", async () => {
        const [port, topic] = [await open("away"), newTopic()];
        const { got, subscription } = await collect(port, { topic });
        await publish(port, topic, { data: Buffer.from('{"id":"before"}') });
        await arrived(got, 1);
        await subscription.stop(graceMs);
        await publish(port, topic, { data: Buffer.from('{"id":"meanwhile"}') });
        const { got: later } = await collect(port, { topic });
        expect(texts(await arrived(later, 1))).toEqual(['{"id":"meanwhile"}']);
      });

    if (redelivers)
      it("comes again until it is handled, with the same bytes and metadata", async () => {
        const [port, topic] = [await open(), newTopic()];
        let failuresLeft = 2;
        const { got } = await collect(port, { topic }, async () => {
          if (failuresLeft-- > 0) throw new Error("not yet");
        });
        const message = { data: Buffer.from('{"id":"1"}'), metadata: { a: "b" } };
        await publish(port, topic, message);
        const seen = (await arrived(got, 3)).map(({ data, metadata }) => ({
          data: Buffer.from(data),
          metadata,
        }));
        const again = options.metadata === "nothing" ? { ...message, metadata: {} } : message;
        expect(seen).toMatchObject([again, again, again]);
        await publish(port, topic, { data: Buffer.from('{"id":"2"}') });
        await arrived(got, 4);
        expect(texts(got)).toEqual(['{"id":"1"}', '{"id":"1"}', '{"id":"1"}', '{"id":"2"}']);
      });

    const { ackWaitMs } = options;
    if (ackWaitMs !== undefined)
      it("is not handed over a second time while its handler runs", { timeout: 90_000 }, async () => {
        const topic = newTopic();
        const [one, two] = [await open("slow"), await open("slow")];
        let done = 0;
        const slowly: MessageHandler = async ({ data }) => {
          if (data.length > 0) await sleep(ackWaitMs * 2.5);
          done++;
        };
        const raw = { topic, rawPayload: true };
        const { got: first } = await collect(one, raw, slowly);
        const { got: second } = await collect(two, raw, slowly);
        await publish(one, topic, { data: Buffer.from("slow"), contentType: undefined });
        await eventually(() => expect(done).toBeGreaterThan(0), { timeoutMs: 50_000 });
        await publish(one, topic, { data: Buffer.alloc(0), contentType: undefined, id: undefined });
        await eventually(() => expect(done).toBeGreaterThan(1), { timeoutMs: 20_000 });
        expect(texts([...first, ...second]).sort()).toEqual(["", "slow"]);
      });

    if (handsOver)
      it("goes to the others when its handler is stopped", async () => {
        const topic = newTopic();
        const [one, two] = [await open("leaving"), await open("leaving")];
        const { got, subscription } = await collect(one, { topic }, (_message, signal) => {
          return new Promise((_, reject) =>
            signal.addEventListener("abort", () => reject(new Error("stopped"))),
          );
        });
        await publish(one, topic, { data: Buffer.from('{"id":"left"}') });
        await arrived(got, 1);
        await subscription.stop(50);
        const { got: taken } = await collect(two, { topic });
        expect(texts(await arrived(taken, 1))).toEqual(['{"id":"left"}']);
      });
  });
}

function repeats({ open, options }: Suite): void {
  if (!options.dropsRepeated) return;
  describe("a repeated publish", () => {
    it.each(["6ba7b810-9dad-41d1-80b4-00c04fd430c8", '"source""7"'])(
      "with the id %s is stored once per topic",
      async (id) => {
        const [port, topic] = [await open(), newTopic()];
        const { got } = await collect(port, { topic });
        const { got: other } = await collect(port, { topic: `${topic}-2` });
        await publish(port, topic, { id, data: Buffer.from('{"id":"first"}') });
        await publish(port, topic, { id, data: Buffer.from('{"id":"again"}') });
        await publish(port, topic, { data: Buffer.from('{"id":"last"}') });
        expect(texts(await arrived(got, 2)).sort()).toEqual(['{"id":"first"}', '{"id":"last"}']);
        if (id.startsWith('"')) {
          await publish(port, `${topic}-2`, { id });
          await arrived(other, 1);
        }
      },
    );

    it("without id is stored each time", async () => {
      const [port, topic] = [await open(), newTopic()];
      const { got } = await collect(port, { topic });
      for (let times = 0; times < 3; times++)
        await publish(port, topic, { id: undefined, contentType: undefined });
      await arrived(got, 3);
    });
  });
}

function failures({ open, options }: Suite): void {
  if (!options.passesFailures) return;
  describe("an event that fails", () => {
    it("does not stop the ones after it", async () => {
      const [port, topic] = [await open(), newTopic()];
      const done: string[] = [];
      await collect(port, { topic }, async (message) => {
        const [text] = texts([message]);
        if (text === '{"id":"bad"}') throw new Error("not this one");
        done.push(text!);
      });
      await publish(port, topic, { data: Buffer.from('{"id":"bad"}') });
      await publish(port, topic, { data: Buffer.from('{"id":"good"}') });
      await eventually(() => expect(done).toEqual(['{"id":"good"}']), { timeoutMs: 20_000 });
    });
  });
}

function flow({ open, options }: Suite): void {
  describe("many events", () => {
    it("are all delivered: 1,000 publishes, none lost", async () => {
      const [port, topic] = [await open(), newTopic()];
      const seen = new Set<string>();
      await collect(port, { topic }, async (message) => {
        seen.add(texts([message])[0]!);
      });
      const all = Array.from({ length: 1_000 }, (_, at) => `{"id":"${at}"}`);
      await Promise.all(all.map((text) => publish(port, topic, { data: Buffer.from(text) })));
      await eventually(() => expect(seen.size).toBe(1_000), { timeoutMs: 45_000 });
    });

    const { concurrency } = options;
    if (concurrency === undefined) return;
    it(`are handled ${concurrency} at once, no more`, async () => {
      const [port, topic] = [await open(), newTopic()];
      let running = 0;
      let most = 0;
      let done = 0;
      let release = (): void => {};
      const gate = new Promise<void>((resolve) => (release = resolve));
      await collect(port, { topic }, async () => {
        most = Math.max(most, ++running);
        if (running >= concurrency) release();
        await gate;
        running--;
        done++;
      });
      const count = concurrency * 3;
      await Promise.all(Array.from({ length: count }, () => publish(port, topic)));
      await eventually(() => expect(done).toBe(count), { timeoutMs: 20_000 });
      expect(most).toBe(concurrency);
    });
  });
}

function ends({ open, options }: Suite): void {
  describe("stop", () => {
    it("waits for the handler that runs, and hands over nothing more", async () => {
      const [port, topic] = [await open(), newTopic()];
      let release = (): void => {};
      const gate = new Promise<void>((resolve) => (release = resolve));
      let handled = false;
      const { got, subscription } = await collect(port, { topic }, async () => {
        await gate;
        handled = true;
      });
      await publish(port, topic);
      await arrived(got, 1);
      let stopped = false;
      const stopping = subscription.stop(10_000).then(() => (stopped = true));
      await publish(port, topic);
      expect(stopped).toBe(false);
      release();
      await stopping;
      expect(handled).toBe(true);
      await publish(port, topic);
      expect(got).toHaveLength(1);
      if (!options.keepsForAbsent || !options.shares) return;
      // What it handled last does not come again.
      const { got: later } = await collect(port, { topic });
      expect(await arrived(later, 2)).toHaveLength(2);
    });

    it("ends within its grace although a handler does not, and tells the handler", async () => {
      const [port, topic] = [await open(), newTopic()];
      let told = false;
      const { got, subscription } = await collect(port, { topic }, (_message, signal) => {
        return new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            told = true;
            reject(new Error("told to end"));
          });
        });
      });
      await publish(port, topic);
      await arrived(got, 1);
      await subscription.stop(50);
      expect(told).toBe(true);
    });

    it("may come twice", async () => {
      const { subscription } = await collect(await open(), { topic: newTopic() });
      await Promise.all([subscription.stop(0), subscription.stop(0)]);
      await subscription.stop(0);
    });
  });
}
