/**
 * Events through one broker to two replicas while the broker, the sidecars and the apps are killed and come back, in an
 * order that a seed gives. Every acknowledged publish must be handled; per key in order where the broker promises it.
 */
import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  checkout,
  eventually,
  freePort,
  type Nats,
  nodeBinary,
  type RunningProcess,
  type Sidecar,
  startNats,
  startProcess,
  startSidecar,
  tempDir,
} from "../kit/index.ts";
import { startKafka } from "../kit/servers/kafka.ts";
import { startRedis } from "../kit/servers/redis.ts";
import { seededRandom } from "./random.ts";

/** pubsub.nats: `nats-ordered` is asked for order per key; `nats-shared` has a topic per key, all on one consumer. */
export type Broker = "nats" | "nats-ordered" | "nats-shared" | "redis" | "kafka";

export type EventsOptions = {
  readonly broker: Broker;
  /** Acknowledged publishes. */
  readonly events: number;
  /** Kills of each kind. */
  readonly rounds: number;
  readonly seed: number;
  /** Longest time for all publishes and kills, ms. */
  readonly timeoutMs: number;
  readonly say?: (line: string) => void;
};

export type EventsResult = {
  readonly broker: Broker;
  readonly acknowledged: number;
  /** Publishes that failed or whose answer was lost: these may have arrived as well. */
  readonly doubts: number;
  /** Different events that were handled. */
  readonly handled: number;
  /** Events that were handled more than once, each further time. */
  readonly duplicates: number;
  /** Acknowledged, but not handled; the first few by name. */
  readonly lost: readonly string[];
  /** Events that were first handled after a later one of their key; undefined where no order was asked for. */
  readonly disordered: readonly string[] | undefined;
  readonly kills: Readonly<Record<string, number>>;
};

/** Publishers, each of one key: it publishes the next event when it knows what became of the last. */
const keys = 24;
/** Every so manyth event fails at first. */
const failEvery = 97;
/** Longest time that a publish may take, and that the last events may take to arrive, ms. */
const publishMs = 120_000;
const settleMs = 180_000;
const shown = 5;

type Way = {
  /** Undefined for the NATS server that all sidecars share. */
  readonly start?: () => Promise<Awaited<ReturnType<typeof startRedis>>>;
  readonly type: string;
  /** Publish metadata that carries the key; undefined where no order is asked for. */
  readonly key?: string;
  /** True: each key has a topic of its own. */
  readonly topics?: true;
  /** Metadata of the subscription and of the component. */
  readonly subscribe?: Readonly<Record<string, string>>;
  readonly metadata: Readonly<Record<string, string>>;
};

const brokers: Readonly<Record<Broker, Way>> = {
  nats: { type: "pubsub.nats", metadata: { ackWait: "3s" } },
  "nats-ordered": {
    type: "pubsub.nats",
    key: "orderingKey",
    subscribe: { ordered: "true" },
    metadata: { ackWait: "3s" },
  },
  "nats-shared": {
    type: "pubsub.nats",
    topics: true,
    metadata: { ackWait: "3s", sharedConsumer: "true" },
  },
  redis: {
    start: () => startRedis(),
    type: "pubsub.redis",
    metadata: { processingTimeout: "3s", redeliverInterval: "500ms", concurrency: "32" },
  },
  kafka: {
    start: () => startKafka(),
    type: "pubsub.kafka",
    key: "partitionKey",
    metadata: {
      authType: "none",
      initialOffset: "oldest",
      backOffDuration: "100ms",
      heartbeatInterval: "500ms",
      sessionTimeout: "6s",
    },
  },
};

/** Rejects when something does not come back, or the publishes do not end. */
export async function soakEvents(options: EventsOptions): Promise<EventsResult> {
  const { broker, events, seed } = options;
  await using stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  const way = brokers[broker];
  const server = way.start === undefined ? nats : stack.use(await way.start());
  const folder = stack.use(tempDir("events"));
  const file = folder.join("handled");
  appendFileSync(file, "");
  const resources = { "all.yaml": resourcesOf(way, `127.0.0.1:${server.port}`) };
  const replica = async (): Promise<Replica> => {
    const appPort = await freePort();
    const app = new App(appPort, file);
    await app.start();
    stack.use(app);
    return { app, sidecar: stack.use(await startSidecar({ appId: "taker", appPort, nats, resources })) };
  };
  const replicas = [await replica(), await replica()];
  const publisher = stack.use(await startSidecar({ appId: "giver", nats, resources }));
  for (const { sidecar } of replicas) await sidecar.logged(/app is subscribed to topic soak/, 60_000);
  const progress: Progress = { acknowledged: [], doubts: 0, limit: 0 };
  const { acknowledged } = progress;
  const late = AbortSignal.timeout(options.timeoutMs);
  const over = (): boolean => {
    late.throwIfAborted();
    return acknowledged.length >= events;
  };
  const publishing = Promise.all(
    Array.from({ length: keys }, (_, at) => publishKey(publisher, at, way, progress, over)),
  );
  const random = seededRandom(seed);
  const killing = killAtRandom(options, { server, publisher, replicas, random }, progress, late);
  const [kills] = await Promise.all([killing, publishing]);
  options.say?.(`${broker}: all ${acknowledged.length} are published`);
  const missing = (): string[] => {
    const handled = new Set(linesOf(file));
    return acknowledged.filter((name) => !handled.has(name));
  };
  await eventually(() => missing().length === 0, { timeoutMs: settleMs, everyMs: 500 }).catch(() => {});
  return {
    broker,
    acknowledged: acknowledged.length,
    doubts: progress.doubts,
    ...judged(linesOf(file), way.key !== undefined),
    lost: missing().slice(0, shown),
    kills,
  };
}

/** Topic of the events of a publisher. */
function topicOf({ topics }: Way, at: number): string {
  return topics === true ? `soak.${at}` : "soak";
}

function resourcesOf(way: Way, address: string): string {
  const { type, metadata, subscribe } = way;
  const server = { "pubsub.redis": { redisHost: address }, "pubsub.kafka": { brokers: address } }[type];
  const fields = Object.entries({ ...metadata, ...server });
  const component = {
    apiVersion: "dapr.io/v1alpha1",
    kind: "Component",
    metadata: { name: "bus" },
    spec: {
      type,
      version: "v1",
      initTimeout: "60s",
      metadata: fields.map(([name, value]) => ({ name, value })),
    },
  };
  const topics = new Set(Array.from({ length: keys }, (_, at) => topicOf(way, at)));
  const subscriptions = [...topics].map((topic) => ({
    apiVersion: "dapr.io/v2alpha1",
    kind: "Subscription",
    metadata: { name: topic },
    scopes: ["taker"],
    spec: {
      pubsubname: "bus",
      topic,
      routes: { default: "/event" },
      metadata: subscribe ?? {},
    },
  }));
  return [component, ...subscriptions].map((resource) => JSON.stringify(resource)).join("\n---\n");
}

type Progress = {
  readonly acknowledged: string[];
  doubts: number;
  /** Publishers wait here until the kill that is due has been made. */
  limit: number;
};

async function publishKey(
  publisher: Sidecar,
  at: number,
  way: Way,
  progress: Progress,
  over: () => boolean,
): Promise<void> {
  const key = `k${at}`;
  const query = way.key === undefined ? "" : `?metadata.${way.key}=${key}`;
  const path = `/v1.0/publish/bus/${topicOf(way, at)}${query}`;
  const headers = { "content-type": "application/json" };
  for (let n = 1; ; n++) {
    while (!over() && progress.acknowledged.length >= progress.limit) await sleep(10);
    if (over()) return;
    const init = { method: "POST", headers, body: JSON.stringify({ key, n }), timeoutMs: publishMs };
    const answer = await publisher.http(path, init).catch(() => undefined);
    if (answer?.status === 204) progress.acknowledged.push(`${key} ${n}`);
    else {
      progress.doubts++;
      await sleep(50);
    }
  }
}

type Replica = { readonly app: App; readonly sidecar: Sidecar };
type Victims = {
  readonly server: Nats | Awaited<ReturnType<typeof startRedis>>;
  readonly publisher: Sidecar;
  readonly replicas: readonly Replica[];
  readonly random: () => number;
};

/** Kills one after the other, spread over the events; lets all be published in the end. */
async function killAtRandom(
  { broker, events, rounds, say }: EventsOptions,
  { server, publisher, replicas, random }: Victims,
  progress: Progress,
  late: AbortSignal,
): Promise<Record<string, number>> {
  const any = (): Replica => replicas[Math.floor(random() * replicas.length)]!;
  const away = (): Promise<void> => sleep(random() * 1_000);
  const back = async (sidecar: Sidecar): Promise<void> => {
    await sidecar.kill("SIGKILL");
    await away();
    await sidecar.restart();
  };
  const kinds: Record<string, () => Promise<void>> = {
    [`${broker} server`]: async () => {
      await server.kill();
      await away();
      await server.restart();
    },
    subscriber: () => back(any().sidecar),
    publisher: () => back(publisher),
    app: async () => {
      const { app } = any();
      await app.kill();
      await away();
      await app.start();
    },
  };
  const order = Object.keys(kinds).flatMap((kind) => Array.from({ length: rounds }, () => kind));
  const shuffled = order.map((kind) => ({ kind, at: random() })).sort((a, b) => a.at - b.at);
  const kills: Record<string, number> = {};
  const share = events / shuffled.length;
  for (const [index, { kind }] of shuffled.entries()) {
    progress.limit = (index + 1) * share;
    const due = (index + random() * 0.8) * share;
    while (progress.acknowledged.length < due) await sleep(5, undefined, { signal: late });
    await kinds[kind]!();
    kills[kind] = (kills[kind] ?? 0) + 1;
    say?.(`${broker}: ${kind} killed and back at ${progress.acknowledged.length} of ${events}`);
  }
  progress.limit = Number.POSITIVE_INFINITY;
  return kills;
}

/** One app process after another on the same port. */
class App implements AsyncDisposable {
  readonly #port: number;
  readonly #file: string;
  #process: RunningProcess | undefined;

  constructor(port: number, file: string) {
    this.#port = port;
    this.#file = file;
  }

  async start(): Promise<void> {
    const program = join(checkout, "test", "soak", "event-app.mjs");
    const args = [program, String(this.#port), this.#file, String(failEvery)];
    this.#process = await startProcess({ name: "event app", command: nodeBinary(), args });
    await eventually(() => fetch(`http://127.0.0.1:${this.#port}/`));
  }

  async kill(): Promise<void> {
    await this.#process?.[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

function linesOf(file: string): string[] {
  return readFileSync(file, "utf8").split("\n").slice(0, -1);
}

/** What the file of handled events says. */
function judged(
  lines: readonly string[],
  ordered: boolean,
): Pick<EventsResult, "handled" | "duplicates" | "disordered"> {
  const seen = new Set<string>();
  const highest = new Map<string, number>();
  const disordered: string[] = [];
  for (const line of lines) {
    if (seen.has(line)) continue;
    seen.add(line);
    const [key, n] = line.split(" ") as [string, string];
    if (Number(n) < (highest.get(key) ?? 0)) disordered.push(line);
    else highest.set(key, Number(n));
  }
  const counts = { handled: seen.size, duplicates: lines.length - seen.size };
  return { ...counts, disordered: ordered ? disordered.slice(0, shown) : undefined };
}
