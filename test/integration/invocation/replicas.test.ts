// Several instances of one app, each with a sidecar: calls are spread over those that live, and none fails while they
// are restarted one after the other.
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, Nats, Sidecar } from "../../kit/index.ts";

type Replica = { readonly app: App; readonly sidecar: Sidecar };

let stack: AsyncDisposableStack;
let nats: Nats;
let caller: Sidecar;
let replicas: Replica[];

const url = "/v1.0/invoke/shop/method/who";

async function startReplica(name: string): Promise<Replica> {
  // A little work, so that calls are under way whenever a sidecar is told to stop.
  const answer = async ({ method }: { method: string }): Promise<{ body: string }> => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return { body: `${name} ${method}` };
  };
  const app = stack.use(await startApp({ fallback: answer }));
  return { app, sidecar: stack.use(await startSidecar({ appId: "shop", appPort: app.port, nats })) };
}

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
  replicas = [];
  for (const name of ["a", "b", "c"]) replicas.push(await startReplica(name));
});

afterAll(() => stack.disposeAsync());

/** Answers of `count` calls, at most 16 at once. */
async function calls(count: number): Promise<string[]> {
  const answers: string[] = [];
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) {
      const answer = await caller.get(url);
      answers.push(`${answer.status} ${answer.text}`);
    }
  };
  await Promise.all(Array.from({ length: 16 }, worker));
  return answers;
}

function tally(answers: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const answer of answers) counts[answer] = (counts[answer] ?? 0) + 1;
  return counts;
}

test("calls are spread over all instances", async () => {
  const counts = tally(await calls(300));
  expect(Object.keys(counts).toSorted()).toEqual(["200 a GET", "200 b GET", "200 c GET"]);
  // NATS picks at random: fewer than 50 of 300 is less likely than one in a million.
  for (const count of Object.values(counts)) expect(count).toBeGreaterThan(50);
});

test("one that is stopped gets no more, and no call fails while it stops", async () => {
  const load = calls(300);
  await replicas[0]!.sidecar.stop();
  expect(Object.keys(tally(await load)).every((answer) => answer.startsWith("200 "))).toBe(true);
  const before = replicas[0]!.app.requests.length;
  expect(Object.keys(tally(await calls(150))).toSorted()).toEqual(["200 b GET", "200 c GET"]);
  expect(replicas[0]!.app.requests).toHaveLength(before);
  await replicas[0]!.sidecar.restart();
});

test("one that is killed gets no more", async () => {
  const { sidecar, app } = replicas[1]!;
  const monitor = await nats.connect();
  await sidecar.kill();
  // The server has noticed when it has answered a round trip after closing the socket.
  await monitor.flush();
  await nats.connect().then((it) => it.close());
  const before = app.requests.length;
  expect(Object.keys(tally(await calls(150))).toSorted()).toEqual(["200 a GET", "200 c GET"]);
  expect(app.requests).toHaveLength(before);
  await sidecar.restart();
});

test("a rolling restart of all under load: no call fails", async () => {
  const stop = new AbortController();
  const answers: string[] = [];
  const failures: string[] = [];
  const load = async (method: "GET" | "POST"): Promise<void> => {
    while (!stop.signal.aborted) {
      const answer = await caller.http(url, { method, ...(method === "POST" ? { body: "x" } : {}) });
      answers.push(answer.text);
      if (answer.status !== 200) failures.push(`${answer.status} ${answer.text}`);
    }
  };
  const loads = Array.from({ length: 12 }, (_, i) => load(i % 2 === 0 ? "GET" : "POST"));
  for (const { sidecar } of replicas) {
    expect(await sidecar.stop()).toBe(0);
    await sidecar.restart();
  }
  const restarted = answers.length;
  await eventually(() => answers.length >= restarted + 200, { timeoutMs: 30_000 });
  stop.abort();
  await Promise.all(loads);
  expect(failures).toEqual([]);
  expect(answers.length).toBeGreaterThan(500);
  const last = new Set(answers.slice(restarted).map((text) => text.split(" ")[0]));
  expect(last).toEqual(new Set(["a", "b", "c"]));
});
