// Service invocation under load and in trouble: thousands of slow calls at once, a callee that stays frozen, NATS
// restarted under a hundred calls, an app that comes and goes. Each call succeeds or ends with an error that says why,
// nobody crashes, and nothing is left behind.
import { readdirSync } from "node:fs";
import { Agent, request as sendRequest } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Counted, heldBytes, startCounted } from "../../kit/counted.ts";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, Nats, Sidecar } from "../../kit/index.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;
let caller: Sidecar;
let callee: Sidecar;
let counted: readonly Counted[];

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(await startApp({ fallback: ({ body }) => ({ body: `got ${body.length}` }) }));
  const one = await startCounted({ appId: "callee", appPort: app.port, nats });
  callee = stack.use(one.sidecar);
  const other = await startCounted({ appId: "caller", nats });
  caller = stack.use(other.sidecar);
  counted = [other, one];
});

afterAll(() => stack.disposeAsync());

const base = "/v1.0/invoke/callee/method";
const unavailable = "failed to invoke, id: callee, err: rpc error: code = Unavailable desc = ";

function openFiles({ pid }: Sidecar): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

async function heldMb({ counts }: Counted): Promise<number> {
  return heldBytes(await counts()) / 2 ** 20;
}

type Outcome = { readonly status: number; readonly text: string };

/** One call on a connection of its own agent; a broken connection is status 0. */
function call(agent: Agent, sidecar: Sidecar, path: string, method = "GET", body = ""): Promise<Outcome> {
  return new Promise((resolve) => {
    const request = sendRequest(
      { agent, host: "127.0.0.1", port: sidecar.httpPort, path, method },
      (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => (text += chunk));
        response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
      },
    );
    request.on("error", ({ message }) => resolve({ status: 0, text: message }));
    request.end(body);
  });
}

function messageOf({ text }: Outcome): string {
  return (JSON.parse(text) as { message: string }).message;
}

test("2,000 calls at once to an app that takes 3 s: all succeed, and nothing is left of them", async () => {
  const count = 2_000;
  app.on("/slow", async () => {
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    return { body: "slow" };
  });
  await caller.get(`${base}/warm`);
  const before = await Promise.all(
    counted.map(async (it) => ({ files: openFiles(it.sidecar), mb: await heldMb(it) })),
  );
  for (let round = 0; round < 2; round++) {
    const agent = new Agent({ keepAlive: false });
    const outcomes = await Promise.all(
      Array.from({ length: count }, (_, n) => call(agent, caller, `${base}/slow?n=${n}`)),
    );
    const bad = outcomes.filter(({ status, text }) => status !== 200 || text !== "slow");
    expect(bad.slice(0, 3)).toEqual([]);
    agent.destroy();
  }
  expect(new Set(app.requestsTo("/slow").map(({ query }) => query)).size).toBe(count);
  // The app closes what the sidecar keeps for later calls.
  await app.fail("refuse");
  await app.heal();
  for (const [i, it] of counted.entries()) {
    await eventually(() => openFiles(it.sidecar) <= before[i]!.files + 5, { timeoutMs: 20_000 });
    // A leak of bodies, calls or connections would be larger than this.
    await eventually(async () => expect((await heldMb(it)) - before[i]!.mb).toBeLessThan(16));
  }
  expect((await caller.get(`${base}/after`)).text).toBe("got 0");
}, 120_000);

test("a frozen callee: its calls end with Unavailable, others go on, and it works when it thaws", async () => {
  await using other = await startSidecar({ appId: "other", appPort: app.port, nats });
  await using frozen = await startSidecar({ appId: "frozen", appPort: app.port, nats });
  const path = "/v1.0/invoke/frozen/method/x";
  expect((await caller.get(path)).status).toBe(200);
  await frozen.pause();
  const agent = new Agent();
  const calls = Array.from({ length: 50 }, () => call(agent, caller, path, "POST", "x"));
  expect((await caller.get("/v1.0/invoke/other/method/x")).status).toBe(200);
  expect((await other.get(`${base}/x`)).status).toBe(200);
  for (const outcome of await Promise.all(calls)) {
    expect(outcome.status).toBe(500);
    expect(messageOf(outcome)).toMatch(
      /^failed to invoke, id: frozen, err: rpc error: code = Unavailable desc = /,
    );
  }
  frozen.resume();
  await eventually(async () => expect((await caller.get(path)).status).toBe(200), { timeoutMs: 20_000 });
  agent.destroy();
}, 90_000);

test("NATS restarted under calls: they succeed or are Unavailable, no app is asked twice, new ones work", async () => {
  app.on("POST /held", async () => {
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    return { body: "held" };
  });
  const agent = new Agent();
  const calls = Array.from({ length: 100 }, (_, n) =>
    call(agent, caller, `${base}/held?n=${n}`, "POST", "x"),
  );
  await app.received("/held", 100);
  await nats.restart();
  for (const outcome of await Promise.all(calls)) {
    if (outcome.status === 200) expect(outcome.text).toBe("held");
    else expect(messageOf(outcome).startsWith(unavailable)).toBe(true);
  }
  expect(app.requestsTo("/held")).toHaveLength(100);
  await eventually(async () => expect((await caller.get(`${base}/x`)).status).toBe(200), {
    timeoutMs: 20_000,
  });
  agent.destroy();
}, 60_000);

test("an app that comes and goes under load: each call is its answer or says how it failed", async () => {
  const agent = new Agent({ keepAlive: true });
  let running = true;
  const outcomes: Outcome[] = [];
  const clients = Array.from({ length: 20 }, async (_, n) => {
    while (running) {
      const [from, method] = [n % 2 === 0 ? caller : callee, n % 4 < 2 ? "GET" : "POST"] as const;
      const outcome = await call(agent, from, `${base}/load`, method, method === "POST" ? "body" : "");
      outcomes.push(outcome);
    }
  });
  for (let round = 0; round < 5; round++) {
    const good = outcomes.filter(({ status }) => status === 200).length;
    await eventually(() => outcomes.filter(({ status }) => status === 200).length > good + 50);
    await app.fail("refuse");
    const bad = outcomes.filter(({ status }) => status === 500).length;
    await eventually(() => outcomes.filter(({ status }) => status === 500).length > bad + 20);
    await app.heal();
  }
  running = false;
  await Promise.all(clients);
  const failed = outcomes.filter(({ status }) => status !== 200);
  const reasons = failed.map((outcome) => messageOf(outcome).replace(/^.* "http:[^"]*": /, ""));
  const known = new Set([
    `dial tcp 127.0.0.1:${app.port}: connect: connection refused`,
    "EOF",
    "read: connection reset by peer",
  ]);
  expect([...new Set(reasons)].filter((reason) => !known.has(reason))).toEqual([]);
  expect(failed.every(({ status }) => status === 500)).toBe(true);
  expect([caller, callee].map((it) => it.running())).toEqual([true, true]);
  expect((await caller.get(`${base}/x`)).status).toBe(200);
  agent.destroy();
}, 60_000);

test("after all of it both sidecars stop in order", async () => {
  expect(await callee.stop()).toBe(0);
  expect(await caller.stop()).toBe(0);
});
