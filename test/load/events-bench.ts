/**
 * The event lines of `npm run bench`: publishes through one sidecar, delivered to an app by another one, over one
 * topic and over a thousand, with a consumer each and with one for all. The time counts until the last event has
 * reached the app.
 */
import { join } from "node:path";
import { checkout, eventually, freePort, nodeBinary, startProcess, startSidecar } from "../kit/index.ts";
import type { Nats } from "../kit/index.ts";
import { nativeComponents } from "../kit/native-components.ts";
import { httpLoad, type HttpJob } from "./http-load.ts";
import { cpuMs } from "./process-usage.ts";

/** Smallest and wanted ratio to the bare echo. */
export const eventFloor = 0.2;
const kinds: readonly Kind[] = [
  { topics: 1, shared: false },
  { topics: 1000, shared: false },
  { topics: 1000, shared: true },
];

type Kind = { readonly topics: number; readonly shared: boolean };

export type EventRow = Kind & {
  readonly perSecond: number;
  /** To the bare echo of the same round. */
  readonly ratio: number;
  /** CPU per event of each process, microseconds. */
  readonly cpuUs: { readonly publisher: number; readonly subscriber: number; readonly nats: number };
  /** CPU of the subscriber while nothing happens, parts of a core. */
  readonly idle: number;
};

export type EventsOptions = {
  readonly command: readonly [string, ...string[]];
  readonly nats: Nats;
  readonly echoUrl: string;
  readonly connections: number;
  readonly seconds: number;
  readonly rounds: number;
};

type Line = { readonly pid: number; delivered(count: number): Promise<unknown> };

export async function measureEvents(options: EventsOptions): Promise<EventRow[]> {
  const { command, nats, echoUrl, connections, seconds, rounds } = options;
  await using stack = new AsyncDisposableStack();
  const resources = { "components.yaml": nativeComponents };
  const publisher = stack.use(await startSidecar({ appId: "publisher", nats, resources, command }));
  const rows: EventRow[] = [];
  for (const { topics, shared } of kinds) {
    await using line = await startLine(options, { topics, shared });
    const url = (topic: number): string =>
      `${publisher.httpUrl}/v1.0/publish/pubsub/${prefixOf({ topics, shared })}.${topic}`;
    const job = publishJob(Array.from({ length: topics }, (_, topic) => url(topic)));
    const pids = { publisher: publisher.pid, subscriber: line.pid, nats: nats.pid };
    let published = (await httpLoad(job, connections, 1)).requests;
    await line.delivered(published);
    const samples: EventRow[] = [];
    for (let round = 1; round <= rounds; round++) {
      const idle = await idleShare(line.pid);
      const echo = await httpLoad({ url: echoUrl, method: "POST", body: text }, connections, seconds);
      const before = usage(pids);
      const startMs = performance.now();
      const { requests } = await httpLoad(job, connections, seconds);
      await line.delivered((published += requests));
      const perSecond = (requests * 1000) / (performance.now() - startMs);
      const after = usage(pids);
      const cpuUs = Object.fromEntries(
        Object.entries(after).map(([name, ms]) => [name, ((ms - before[name]!) * 1000) / requests]),
      ) as EventRow["cpuUs"];
      samples.push({ topics, shared, perSecond, ratio: perSecond / echo.perSecond, cpuUs, idle });
    }
    rows.push(samples.toSorted((a, b) => a.ratio - b.ratio)[samples.length >> 1]!);
  }
  return rows;
}

const text = "x".repeat(256);

/** Before the number of the topic; each line has topics of its own. */
function prefixOf({ topics, shared }: Kind): string {
  return `bench.${topics}${shared ? "shared" : ""}`;
}

function publishJob(urls: readonly string[]): HttpJob {
  return {
    url: urls[0]!,
    urls,
    method: "POST",
    body: JSON.stringify({ text: "x".repeat(245) }),
    headers: { "content-type": "application/json" },
  };
}

/** A subscriber of so many topics with its app. */
async function startLine(options: EventsOptions, kind: Kind): Promise<Line & AsyncDisposable> {
  const { command, nats } = options;
  const { topics, shared } = kind;
  await using stack = new AsyncDisposableStack();
  const appPort = await freePort();
  stack.use(
    await startProcess({
      name: "event app",
      command: nodeBinary(),
      args: [
        join(checkout, "test", "load", "event-app.mjs"),
        String(appPort),
        String(topics),
        prefixOf(kind),
      ],
    }),
  );
  const metadata = `  metadata:\n  - { name: sharedConsumer, value: "${shared}" }\n`;
  const resources = { "components.yaml": nativeComponents + metadata };
  const appId = `subscriber-${topics}${shared ? "-shared" : ""}`;
  const sidecar = stack.use(await startSidecar({ appId, appPort, nats, resources, command }));
  const opened = (): boolean => sidecar.logs().split("app is subscribed to topic").length > topics;
  await eventually(opened, { timeoutMs: 120_000, everyMs: 100, what: `${topics} subscriptions` });
  const kept = stack.move();
  return {
    pid: sidecar.pid,
    delivered: (count) => fetch(`http://127.0.0.1:${appPort}/after/${count}`),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function usage(pids: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, cpuMs(pid)]));
}

async function idleShare(pid: number): Promise<number> {
  const idleMs = 2_000;
  const before = cpuMs(pid);
  await new Promise((resolve) => setTimeout(resolve, idleMs));
  return (cpuMs(pid) - before) / idleMs;
}

export function printEvents(rows: readonly EventRow[]): void {
  console.log(
    "\nevents from an app's publish to another app, two sidecars; ratio to a bare node:http echo, at least " +
      `${eventFloor}`,
  );
  console.log(
    "topics  consumers  events/s   ratio   CPU us an event: publisher  subscriber  nats-server   idle CPU",
  );
  for (const { topics, shared, perSecond, ratio, cpuUs, idle } of rows) {
    console.log(
      [
        String(topics).padStart(6),
        (shared ? "shared" : "own").padStart(10),
        perSecond.toFixed(0).padStart(9),
        ratio.toFixed(3).padStart(7),
        cpuUs.publisher.toFixed(0).padStart(28),
        cpuUs.subscriber.toFixed(0).padStart(11),
        cpuUs.nats.toFixed(0).padStart(12),
        `${(idle * 100).toFixed(1)} %`.padStart(10),
      ].join(" "),
    );
  }
  const [one, own, shared] = rows;
  if (one === undefined || own === undefined || shared === undefined) return;
  const total = ({ cpuUs }: EventRow): number => cpuUs.publisher + cpuUs.subscriber + cpuUs.nats;
  const ratio = (row: EventRow): string => (total(row) / total(one)).toFixed(2);
  const both = `${ratio(shared)} with a shared consumer, ${ratio(own)} with one each`;
  console.log(`CPU per event of all three, 1,000 topics to 1: ${both}`);
}
