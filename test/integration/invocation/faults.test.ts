// What breaks between two sidecars while calls and streams are under way, with real processes killed, paused and
// restarted: each call ends in a defined error or succeeds, in bounded time, and nothing of it stays behind.
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Counted, type Counts, startCounted } from "../../kit/counted.ts";
import { eventually, startNats, startSidecar } from "../../kit/index.ts";
import type { Nats } from "../../kit/index.ts";

const MB = 1024 * 1024;
/** Longest time until who waits is told, ms: for a slow machine, and less than the limit of 16 s for silence. */
const soonMs = 15_000;

let stack: AsyncDisposableStack;
let nats: Nats;
let appPort: number;
let caller: Counted;
let callee: Counted;
let before: readonly Counts[];
/** Requests that reached the app and have not ended. */
const open = new Set<IncomingMessage>();
/** Answers that a test gives. */
const held: ServerResponse[] = [];

const handlers: Readonly<Record<string, (request: IncomingMessage, response: ServerResponse) => void>> = {
  "/echo": (request, response) => void request.pipe(response),
  "/never": () => {},
  "/second": (_request, response) => void setTimeout(() => response.end("done"), 1_000),
  "/held": (_request, response) => void held.push(response),
  "/endless": (_request, response) => pour(response, Number.MAX_SAFE_INTEGER),
  "/sink": (request, response) => void request.resume().on("end", () => response.end("taken")),
  "/slow": (request) =>
    void request.on("data", () => {
      request.pause();
      setTimeout(() => request.resume(), 5);
    }),
};

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  const app = createServer((request, response) => {
    const handle = handlers[request.url ?? ""];
    if (handle === undefined) return void response.writeHead(404).end();
    open.add(request);
    response.once("close", () => open.delete(request));
    request.on("error", () => {});
    response.on("error", () => {});
    handle(request, response);
  });
  await new Promise<void>((resolve) => app.listen(0, "127.0.0.1", resolve));
  stack.defer(() => {
    app.closeAllConnections();
    app.close();
  });
  appPort = (app.address() as AddressInfo).port;
  const flags = ["--max-body-size=200Mi"];
  callee = await startCounted({ appId: "callee", appPort, nats, flags });
  stack.use(callee.sidecar);
  caller = await startCounted({ appId: "caller", nats, flags });
  stack.use(caller.sidecar);
  for (let i = 0; i < 20; i++) await call("callee", "/echo", "warm");
  before = [await caller.counts(), await callee.counts()];
});
afterAll(() => stack.disposeAsync());

afterEach(nothingIsLeft);

/** Of a test: calls, streams, handles, memory. */
async function nothingIsLeft(): Promise<void> {
  for (const [i, { counts }] of [caller, callee].entries()) {
    await eventually(
      async () => {
        const { mesh } = await counts();
        return mesh.pendingRequests === 0 && mesh.servedCalls === 0 && mesh.streams === 0;
      },
      { timeoutMs: 20_000, what: "calls and streams to be gone" },
    );
    await eventually(async () => {
      const { handles, memory } = await counts();
      // Idle connections to the app are kept for the next calls; timers come and go.
      expect(handles["TCPServerWrap"]).toBe(before[i]!.handles["TCPServerWrap"]);
      expect(memory.heapUsed - before[i]!.memory.heapUsed).toBeLessThan(16 * MB);
      expect(memory.arrayBuffers - before[i]!.memory.arrayBuffers).toBeLessThan(8 * MB);
    });
  }
  await eventually(() => open.size === 0, { what: "the app to be left alone" });
  expect((await call("callee", "/echo", "still here")).text).toBe("still here");
}

type Outcome = { readonly status: number; readonly text: string; readonly ms: number };

/** A whole call; rejects when the answer is cut off. */
async function call(id: string, path: string, body = "", from = caller.sidecar): Promise<Outcome> {
  const startMs = performance.now();
  const url = `${from.httpUrl}/v1.0/invoke/${id}/method${path}`;
  const response = await fetch(url, { method: "POST", body });
  return { status: response.status, text: await response.text(), ms: performance.now() - startMs };
}

function begin(
  id: string,
  path: string,
  from = caller.sidecar,
): { request: ReturnType<typeof httpRequest>; answer: Promise<IncomingMessage> } {
  const url = `${from.httpUrl}/v1.0/invoke/${id}/method${path}`;
  const request = httpRequest(url, { method: "POST", agent: false });
  const answer = new Promise<IncomingMessage>((resolve, reject) => {
    request.once("response", resolve).once("error", reject);
  });
  answer.catch(() => {});
  request.on("error", () => {});
  return { request, answer };
}

function pour(sink: NodeJS.WritableStream, bytes: number): void {
  const piece = Buffer.alloc(65_536, "w");
  let left = bytes;
  let gone = false;
  sink.once("close", () => (gone = true));
  const step = (): void => {
    while (left > 0 && !gone) {
      left -= piece.length;
      if (!sink.write(piece)) return void sink.once("drain", step);
    }
    if (!gone) sink.end();
  };
  step();
}

/** Bytes of an answer; rejects when it is cut off. */
function read(answer: IncomingMessage): Promise<number> {
  const reading = (async () => {
    let size = 0;
    for await (const piece of answer) size += (piece as Buffer).length;
    return size;
  })();
  reading.catch(() => {});
  return reading;
}

test.each([
  ["young", 0],
  ["a second old", 1_000],
])("the callee's sidecar is killed while a call is under way (%s): Unavailable, soon", async (_what, age) => {
  await using doomed = await startSidecar({ appId: "doomed", appPort, nats });
  const answer = call("doomed", "/never");
  await eventually(() => open.size === 1);
  await new Promise((resolve) => setTimeout(resolve, age));
  const startMs = performance.now();
  await doomed.kill("SIGKILL");
  expect(await answer).toMatchObject({
    status: 500,
    text: expect.stringContaining("failed to invoke, id: doomed, err: rpc error: code = Unavailable"),
  });
  expect(performance.now() - startMs).toBeLessThan(soonMs);
});

test("the callee's sidecar is killed during an upload of 100 MB and during a download: told at once", async () => {
  await using doomed = await startSidecar({ appId: "doomed", appPort, nats });
  const up = begin("doomed", "/slow");
  pour(up.request, 100 * MB);
  const down = begin("doomed", "/endless");
  down.request.end();
  const reading = read(await down.answer);
  await eventually(() => open.size === 2);
  const startMs = performance.now();
  await doomed.kill("SIGKILL");
  expect((await up.answer).statusCode).toBe(500);
  await read(await up.answer);
  await expect(reading).rejects.toThrow();
  expect(performance.now() - startMs).toBeLessThan(soonMs);
});

test("the caller's sidecar is killed during an upload, a download and a call: the app's requests end", async () => {
  await using doomed = await startSidecar({ appId: "doomed-caller", nats });
  pour(begin("callee", "/slow", doomed).request, 100 * MB);
  const down = begin("callee", "/endless", doomed);
  down.request.end();
  const reading = read(await down.answer);
  const asking = call("callee", "/never", "", doomed);
  asking.catch(() => {});
  await eventually(() => open.size === 3);
  const startMs = performance.now();
  await doomed.kill("SIGKILL");
  await expect(reading).rejects.toThrow();
  await expect(asking).rejects.toThrow();
  await eventually(() => open.size === 0, { timeoutMs: soonMs });
  expect(performance.now() - startMs).toBeLessThan(soonMs);
});

test("the caller's app goes away during an upload, a download and a call: the app's requests end", async () => {
  const up = begin("callee", "/slow");
  pour(up.request, 100 * MB);
  const down = begin("callee", "/endless");
  down.request.end();
  (await down.answer).on("error", () => {}).resume();
  const asking = begin("callee", "/never");
  asking.request.end();
  await eventually(() => open.size === 3);
  for (const { request } of [up, down, asking]) request.destroy();
  await eventually(() => open.size === 0, { timeoutMs: soonMs });
});

test("NATS restarts in the midst of a call, an upload and a download: each ends, and new calls work", async () => {
  const asking = call("callee", "/held");
  const up = begin("callee", "/slow");
  pour(up.request, 100 * MB);
  const down = begin("callee", "/endless");
  down.request.end();
  const reading = read(await down.answer);
  await eventually(() => open.size === 3);
  const startMs = performance.now();
  await nats.restart();
  expect(await asking).toMatchObject({ status: 500, text: expect.stringContaining("code = Unavailable") });
  held.pop()!.end("done");
  expect((await up.answer).statusCode).toBe(500);
  await read(await up.answer);
  await expect(reading).rejects.toThrow();
  expect(performance.now() - startMs).toBeLessThan(soonMs);
  await eventually(async () => (await call("callee", "/echo", "again")).text === "again");
});

test("the callee's sidecar is paused for three seconds: the call and the stream go on unharmed", async () => {
  const asking = call("callee", "/held");
  await eventually(() => held.length === 1);
  const { request, answer } = begin("callee", "/echo");
  pour(request, 30 * MB);
  const size = read(await answer);
  process.kill(callee.sidecar.pid, "SIGSTOP");
  held.pop()!.end("done");
  try {
    // Longer than anything takes that notices the dead.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
  } finally {
    process.kill(callee.sidecar.pid, "SIGCONT");
  }
  expect(await asking).toMatchObject({ status: 200, text: "done" });
  expect(await size).toBe(30 * MB);
});

test("500 slow calls at once all succeed", async () => {
  const outcomes = await Promise.all(Array.from({ length: 500 }, () => call("callee", "/second")));
  expect(outcomes.filter(({ status, text }) => status !== 200 || text !== "done")).toEqual([]);
});
