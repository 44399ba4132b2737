/**
 * Components of each kind that are added, changed and removed again and again while others are under load: no call of
 * those may fail, and nothing may be left behind in the process.
 */
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { eventually, freePort, type Nats, type Sidecar, startApp, startSidecar } from "../kit/index.ts";
import { nativeComponents } from "../kit/native-components.ts";

export type ReloadResult = {
  readonly cycles: number;
  readonly calls: number;
  /** Answers that were none, or not what they had to be; the first few. */
  readonly failures: readonly string[];
  /** Open files of the process after the first tenth of the cycles and at the end. */
  readonly handles: readonly [number, number];
  /** Memory in use at the same moments, after a garbage collection, MB. */
  readonly memoryMb: readonly [number, number];
};

const callers = 4;
const keptFailures = 5;

const component = (name: string, type: string, field: string, value: string): string =>
  `apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: ${name} }\n` +
  `spec: { type: ${type}, version: v1, metadata: [{ name: ${field}, value: "${value}" }] }\n`;

/** Files of one cycle. `round` makes each text another one. */
const changing = (round: string): Readonly<Record<string, string>> => ({
  "memory.yaml": component("memory", "state.in-memory", "maxEntries", String(1000 + round.length)),
  "table.yaml": component("table", "state.nats", "keyPrefix", `p${round}`),
  "secrets.yaml": component("secrets", "secretstores.local.env", "prefix", `P${round}`),
  "events.yaml": component("events", "pubsub.nats", "ackWait", `${20 + round.length}s`),
  "cron.yaml": component("cron", "bindings.cron", "schedule", `@every ${1 + round.length}h`),
  "sub.yaml":
    "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: { name: extra }\n" +
    `spec: { pubsubname: events, topic: extra, routes: { default: "/extra${round.length}" } }\n`,
});

/** Resolves after `cycles` of add, change, remove. Rejects when the sidecar does not follow a change. */
export async function reloadCycles(nats: Nats, cycles: number): Promise<ReloadResult> {
  await using app = await startApp({ fallback: () => ({}) });
  const resources = { "all.yaml": nativeComponents };
  const profilePort = await freePort();
  const flags = ["--enable-profiling=true", `--profile-port=${profilePort}`];
  await using sidecar = await startSidecar({ appId: "reloaded", appPort: app.port, nats, resources, flags });
  const load = new Load(sidecar);
  const early = Math.max(1, Math.floor(cycles / 10));
  let first: Usage | undefined;
  for (let cycle = 1; cycle <= cycles; cycle++) {
    await oneCycle(sidecar);
    if (cycle === early) first = await usage(sidecar, profilePort);
  }
  const { calls, failures } = await load.end();
  const last = await settled(sidecar, profilePort, first!.handles);
  return {
    cycles,
    calls,
    failures,
    handles: [first!.handles, last.handles],
    memoryMb: [first!.memoryMb, last.memoryMb],
  };
}

export async function oneCycle(sidecar: Sidecar): Promise<void> {
  const put = (files: Readonly<Record<string, string>>): void => {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(sidecar.resourcesPath, name), text);
  };
  const updates = (): number => sidecar.logs().split("Component updated: ").length;
  const count = Object.keys(changing("")).length - 1;
  const here = async (wanted: number): Promise<boolean> => {
    const reply = await sidecar.get("/v1.0/metadata");
    const { components = [], subscriptions = [] } = reply.json<{ components?: []; subscriptions?: [] }>();
    return components.length === 2 + wanted && subscriptions.length === Math.min(wanted, 1);
  };
  put(changing(""));
  await eventually(() => here(count), { timeoutMs: 60_000 });
  const before = updates();
  put(changing("x"));
  await eventually(() => updates() >= before + count, { timeoutMs: 60_000 });
  for (const name of Object.keys(changing(""))) rmSync(join(sidecar.resourcesPath, name));
  await eventually(() => here(0), { timeoutMs: 60_000 });
}

type Usage = { readonly handles: number; readonly memoryMb: number };

async function usage({ pid }: Sidecar, profilePort: number): Promise<Usage> {
  const answer = await fetch(`http://127.0.0.1:${profilePort}/debug/pprof/counts`);
  const { memory } = (await answer.json()) as { memory: { heapUsed: number; external: number } };
  const memoryMb = (memory.heapUsed + memory.external) / 1024 ** 2;
  return { handles: readdirSync(`/proc/${pid}/fd`).length, memoryMb };
}

/** What was replaced last may still be closing. */
async function settled(sidecar: Sidecar, profilePort: number, handles: number): Promise<Usage> {
  const isSettled = async (): Promise<boolean> => (await usage(sidecar, profilePort)).handles <= handles;
  await eventually(isSettled, { timeoutMs: 10_000 }).catch(() => {});
  return usage(sidecar, profilePort);
}

/** Clients of the components and the app that nobody touches. */
class Load {
  readonly #sidecar: Sidecar;
  readonly #failures: string[] = [];
  readonly #workers: readonly Promise<void>[];
  #calls = 0;
  #ended = false;

  constructor(sidecar: Sidecar) {
    this.#sidecar = sidecar;
    this.#workers = Array.from({ length: callers }, (_, index) => this.#work(index));
  }

  async end(): Promise<{ calls: number; failures: readonly string[] }> {
    this.#ended = true;
    await Promise.all(this.#workers);
    return { calls: this.#calls, failures: this.#failures };
  }

  async #work(index: number): Promise<void> {
    for (let n = 0; !this.#ended; n++) {
      const key = `k${index}`;
      await this.#expect(204, "POST", "/v1.0/state/statestore", JSON.stringify([{ key, value: n }]));
      await this.#expect(200, "GET", `/v1.0/state/statestore/${key}`, undefined, String(n));
      await this.#expect(204, "POST", "/v1.0/publish/pubsub/untouched", JSON.stringify({ n }));
      await this.#expect(200, "POST", "/v1.0/invoke/reloaded/method/work", "{}");
      await sleep(10);
    }
  }

  async #expect(status: number, method: string, path: string, body?: string, text?: string): Promise<void> {
    const headers = { "content-type": "application/json" };
    const init = body === undefined ? { method } : { method, body, headers };
    const reply = await this.#sidecar.http(path, init).catch((error: Error) => error);
    this.#calls++;
    const said = reply instanceof Error ? reply.message : `${reply.status} ${reply.text}`;
    const fine = !(reply instanceof Error) && reply.status === status && (text ?? reply.text) === reply.text;
    if (!fine && this.#failures.length < keptFailures) this.#failures.push(`${method} ${path}: ${said}`);
  }
}
