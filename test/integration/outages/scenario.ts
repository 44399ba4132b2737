/**
 * A server that is away at the start of a sidecar and goes away again later, under a client that goes on sending. What
 * the sidecar promises: it serves meanwhile, says what is away, refuses in bounded time, comes back by itself, and what
 * it acknowledged reaches the app.
 */
import { setTimeout as sleep } from "node:timers/promises";
import {
  type App,
  eventually,
  type HttpReply,
  type Nats,
  type Sidecar,
  startSidecar,
} from "../../kit/index.ts";
import { binding } from "../bindings/resources.ts";
import { subscription } from "../pubsub/resources.ts";
import type { Broker } from "./brokers.ts";

/** Longest time until a refusal, ms: what RabbitMQ's three tries take, with room for a slow machine. */
const maxRefusalMs = 60_000;
const waitMs = 90_000;

/** A component named `pubsub` or `loop`, whatever its category: the text is the same. */
export function component(name: string, type: string, { metadata }: Broker, direction?: string): string {
  const given = direction === undefined ? metadata : { ...metadata, direction };
  return `${binding(name, type, given)}  ignoreErrors: true\n`;
}

export type Outcome = {
  readonly acked: number;
  readonly refused: number;
  readonly lost: readonly number[];
  readonly slowestMs: number;
};

type Setting = { readonly nats: Nats; readonly app: App; readonly broker: Broker; readonly outageMs: number };

/** An app that subscribes to what it publishes. */
export function pubsubOutage(setting: Setting, type: string): Promise<Outcome> {
  const resources = {
    "c.yaml": component("pubsub", type, setting.broker),
    "s.yaml": subscription("orders", "/orders"),
  };
  const send = (sidecar: Sidecar, n: number): Promise<HttpReply> =>
    sidecar.http("/v1.0/publish/pubsub/orders", { ...post({ n }), timeoutMs: maxRefusalMs });
  return run(setting, "pubsub", resources, send, (body) => (body as { data: { n: number } }).data.n);
}

/** An app that gets what it sends through one binding. */
export function loopOutage(setting: Setting, type: string): Promise<Outcome> {
  const resources = { "c.yaml": component("orders", type, setting.broker, "input, output") };
  const send = (sidecar: Sidecar, n: number): Promise<HttpReply> =>
    sidecar.http("/v1.0/bindings/orders", {
      ...post({ operation: "create", data: { n } }),
      timeoutMs: maxRefusalMs,
    });
  return run(setting, "orders", resources, send, (body) => (body as { n: number }).n);
}

export function post(body: unknown): { method: string; body: string; headers: Record<string, string> } {
  return { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
}

async function run(
  { nats, app, broker, outageMs }: Setting,
  name: string,
  resources: Readonly<Record<string, string>>,
  send: (sidecar: Sidecar, n: number) => Promise<HttpReply>,
  numberOf: (body: unknown) => number,
): Promise<Outcome> {
  const seen = new Set<number>();
  app.on("POST /orders", (request) => {
    seen.add(numberOf(request.json()));
    return {};
  });
  await broker.away();
  await using sidecar = await startSidecar({ appId: "shop", appPort: app.port, nats, resources });
  await told(sidecar, name, /^not open, tried since 2/);
  await broker.back();
  await works(sidecar, name);
  // The first ones, until one has come: the reader may begin later than the writer.
  let next = 0;
  await eventually(
    async () => {
      await send(sidecar, next++);
      if (seen.size === 0) throw new Error("nothing has come yet");
    },
    { timeoutMs: waitMs, everyMs: 200 },
  );

  const outcome = { acked: [] as number[], refused: 0, slowestMs: 0 };
  const stop = new AbortController();
  const one = async (): Promise<void> => {
    const n = next++;
    const startMs = performance.now();
    const { status } = await send(sidecar, n);
    outcome.slowestMs = Math.max(outcome.slowestMs, performance.now() - startMs);
    if (status < 300) outcome.acked.push(n);
    else outcome.refused += 1;
  };
  const sending = Promise.all(
    Array.from({ length: 4 }, async () => {
      while (!stop.signal.aborted) {
        await one();
        await sleep(20);
      }
    }),
  );
  await eventually(() => outcome.acked.length >= 10, { timeoutMs: waitMs });
  const [beginMs, begun] = [performance.now(), outcome.acked.length];
  await broker.away();
  await told(sidecar, name, /^away since 2/);
  await sleep(Math.max(0, outageMs - (performance.now() - beginMs)));
  await broker.back();
  await works(sidecar, name);
  await eventually(() => outcome.acked.length >= begun + 20, { timeoutMs: waitMs });
  stop.abort();
  await sending;
  const missing = (): number[] => outcome.acked.filter((n) => !seen.has(n));
  await eventually(() => missing().length === 0, { timeoutMs: waitMs }).catch(() => {});
  return { ...outcome, acked: outcome.acked.length, lost: missing() };
}

/** Health and metadata say that a component does not work; the sidecar itself is well. */
export async function told(sidecar: Sidecar, name: string, text: RegExp): Promise<void> {
  const attempt = async (): Promise<void> => {
    const { extended } = (await sidecar.get("/v1.0/metadata")).json<{ extended: Record<string, string> }>();
    if (!text.test(extended[`weft.component.${name}`] ?? "")) throw new Error(JSON.stringify(extended));
    const health = await sidecar.get("/v1.0/healthz/components");
    if (health.status !== 500 || !health.text.includes(`[${name}]`)) throw new Error(health.text);
  };
  await eventually(attempt, { timeoutMs: waitMs, what: `${name} to be told as away` });
  const healthz = await sidecar.get("/v1.0/healthz");
  if (healthz.status !== 204) throw new Error(`healthz says ${healthz.text}`);
}

/** Nothing is away any more. */
export async function works(sidecar: Sidecar, name: string): Promise<void> {
  const attempt = async (): Promise<void> => {
    const health = await sidecar.get("/v1.0/healthz/components");
    if (health.status !== 204) throw new Error(health.text);
    const metadata = (await sidecar.get("/v1.0/metadata")).json<{
      extended: Record<string, string>;
      components: { name: string }[];
    }>();
    if (`weft.component.${name}` in metadata.extended) throw new Error(metadata.extended[name]);
    if (!metadata.components.some((it) => it.name === name)) throw new Error(`${name} is not listed`);
  };
  await eventually(attempt, { timeoutMs: waitMs, what: `${name} to work` });
}
