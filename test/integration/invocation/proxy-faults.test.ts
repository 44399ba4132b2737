// gRPC proxying when something breaks, is slow, or means harm: every call ends with a status that fits, both sides are
// told, and nothing is left behind.
import { readdirSync } from "node:fs";
import type { ServerHttp2Stream } from "node:http2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Counted, heldBytes, startCounted } from "../../kit/counted.ts";
import { eventually, startNats, startSidecar } from "../../kit/index.ts";
import type { Nats, Sidecar } from "../../kit/index.ts";
import { encodeFrame } from "../../../src/lib/grpc-wire.ts";
import {
  answer,
  cancelCode,
  type RawApp,
  rawClient,
  type RawClient,
  type RawCall,
  startRawApp,
} from "./raw-grpc.ts";

const stack = new AsyncDisposableStack();
const MiB = 1024 * 1024;
let nats: Nats;
let app: RawApp;
let caller: Sidecar;
let callee: Sidecar;
let counted: readonly Counted[];

beforeAll(async () => {
  nats = stack.use(await startNats());
  app = stack.use(await startRawApp());
  const one = await startCounted({ appId: "callee", appPort: app.port, appProtocol: "grpc", nats });
  callee = stack.use(one.sidecar);
  const other = await startCounted({ appId: "caller", nats });
  caller = stack.use(other.sidecar);
  counted = [one, other];
});
afterAll(() => stack.disposeAsync());

const target = { "dapr-app-id": "callee" };
const echoPath = "/t.T/Echo";
const ways = ["through two sidecars", "through the own sidecar"] as const;
const portOf = (way: (typeof ways)[number]): number => (way === ways[0] ? caller : callee).grpcPort;

/** A two-way call with one message there and back. */
async function conversation(client: RawClient, headers: Record<string, string> = target): Promise<RawCall> {
  const call = client.call(echoPath, headers);
  call.send(Buffer.from("hello"));
  await eventually(() => expect(call.messages.map(String)).toEqual(["hello"]));
  return call;
}

/** Resolves with the time that it took, ms. */
async function timed(promise: Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await promise;
  return performance.now() - startMs;
}

describe.each(ways)("%s", (way) => {
  test("the app's connection breaks in the middle: Unavailable at once; the next call dials again", async () => {
    using client = rawClient(portOf(way));
    const calls = await Promise.all(Array.from({ length: 20 }, () => conversation(client)));
    app.break();
    expect(await timed(Promise.all(calls.map((call) => call.ended)))).toBeLessThan(12_000);
    for (const call of calls) expect(await call.ended).toMatchObject({ code: 14 });
    (await conversation(client)).stream.end();
  });

  test.each([
    ["before any message", async (client: RawClient) => client.call(echoPath, target)],
    ["after the first message", conversation],
    [
      "inside a message",
      async (client: RawClient) => {
        const call = await conversation(client);
        call.stream.write(Buffer.from([0, 0, 0, 1]));
        return call;
      },
    ],
    [
      "after its last message, while the app works",
      async (client: RawClient) => {
        app.on("/t.T/Work", (stream) => void stream.resume());
        const call = client.call("/t.T/Work", target);
        call.stream.end(encodeFrame(Buffer.from("m")));
        return call;
      },
    ],
    [
      "while an answer streams in",
      async (client: RawClient) => {
        app.on("/t.T/Pour", (stream) => {
          answer(stream, {});
          const pour = (): void => {
            while (!stream.destroyed && stream.write(encodeFrame(Buffer.alloc(10_000))));
            if (!stream.destroyed) stream.once("drain", pour);
          };
          pour();
        });
        const call = client.call("/t.T/Pour", target, { end: true });
        await eventually(() => expect(call.messages.length).toBeGreaterThan(20));
        return call;
      },
    ],
  ])("the client resets its stream %s: the app's is reset", async (_, begin) => {
    using client = rawClient(portOf(way));
    await eventually(() => expect(app.open()).toBe(0));
    const before = app.resets.length;
    const call = await begin(client);
    await eventually(() => expect(app.open()).toBe(1));
    const completed = app.completed.length;
    call.reset();
    await eventually(() => expect(app.open()).toBe(0));
    expect(app.resets.slice(before).map(({ code }) => code)).toEqual([cancelCode]);
    // An upload that is given up must never look complete, not even for a moment.
    expect(app.completed.length).toBe(completed);
  });

  test.each<[string, (stream: ServerHttp2Stream) => void]>([
    ["resets the stream without an error", (stream) => stream.destroy()],
    ["ends its side without a status", (stream) => stream.end()],
  ])("the app %s while the client sends: Unavailable", async (_, end) => {
    app.on("/t.T/Break", (stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      stream.write(encodeFrame(Buffer.from("m")));
      stream.once("data", () => end(stream));
    });
    using client = rawClient(portOf(way));
    const calls = Array.from({ length: 20 }, () => {
      const call = client.call("/t.T/Break", target);
      // More than the app's window takes.
      call.send(Buffer.alloc(300_000));
      return call;
    });
    for (const call of calls) expect(await call.ended).toMatchObject({ code: 14 });
    await eventually(() => expect(app.open()).toBe(0));
  });

  test("the client's connection breaks: all its calls end at the app", async () => {
    const client = rawClient(portOf(way));
    await Promise.all(Array.from({ length: 30 }, () => conversation(client)));
    expect(app.open()).toBe(30);
    client.break();
    await eventually(() => expect(app.open()).toBe(0));
  });

  test("a client that does not read holds the app back, and gets everything when it reads", async () => {
    const size = 100_000;
    const count = 400;
    let written = 0;
    app.on("/t.T/Much", (stream) => {
      answer(stream, {});
      const pour = (): void => {
        while (written < count) {
          if (!stream.write(encodeFrame(Buffer.alloc(size, written++))))
            return void stream.once("drain", pour);
        }
        stream.end();
      };
      pour();
    });
    using client = rawClient(portOf(way));
    const call = client.call("/t.T/Much", target, { end: true, read: false });
    let last = -1;
    await eventually(
      () => {
        const still = written === last;
        last = written;
        return still && written > 0;
      },
      { everyMs: 500 },
    );
    // 40 MB are to come; what is under way lies in windows and buffers of four hops.
    expect(written * size).toBeLessThan(12 * MiB);
    let bytes = 0;
    for await (const chunk of call.stream) bytes += (chunk as Buffer).length;
    expect(bytes).toBe(count * (size + 5));
    expect((await call.ended).code).toBe(0);
  });

  test("an app that does not read holds the client back", async () => {
    app.on("/t.T/Deaf", (stream) => {
      answer(stream, {});
      stream.write(encodeFrame(Buffer.from("m")));
    });
    using client = rawClient(portOf(way));
    const call = client.call("/t.T/Deaf", target);
    let sent = 0;
    while (sent < 40 * MiB && call.stream.write(encodeFrame(Buffer.alloc(100_000)))) sent += 100_000;
    let drained = 0;
    call.stream.on("drain", () => {
      drained++;
      while (sent < 40 * MiB && call.stream.write(encodeFrame(Buffer.alloc(100_000)))) sent += 100_000;
    });
    let last = -1;
    await eventually(
      () => {
        const still = drained === last;
        last = drained;
        return still;
      },
      { everyMs: 500 },
    );
    expect(sent).toBeLessThan(12 * MiB);
    call.stream.close(cancelCode);
    await eventually(() => expect(app.open()).toBe(0));
  });

  test("frames that are none end the call, and nothing else", async () => {
    using client = rawClient(portOf(way));
    const bad = client.call(echoPath, target);
    bad.stream.write(Buffer.from([7, 0, 0, 0, 1, 1]));
    expect(await bad.ended).toMatchObject({
      code: 13,
      message: "grpc: received unexpected payload format 7",
    });
    const torn = client.call(echoPath, target);
    torn.stream.end(Buffer.from([0, 0, 0, 0, 9, 1]));
    expect((await torn.ended).code).toBe(13);
    const later = await conversation(client);
    later.stream.write(Buffer.from([255]));
    expect(await later.ended).toMatchObject({ code: 13 });
    const empty = client.call(echoPath, target, { end: true });
    expect(await empty.ended).toMatchObject({ code: 0, bytes: 0 });
    await eventually(() => expect(app.open()).toBe(0));
  });
});

test(
  "thousands of calls, cancelled at every moment, leave nothing behind",
  { timeout: 120_000 },
  async () => {
    app.on("/t.T/Work", (stream) => void stream.resume());
    const handles = (): number => readdirSync(`/proc/${caller.pid}/fd`).length;
    const storm = async (): Promise<void> => {
      using client = rawClient(caller.grpcPort);
      for (let round = 0; round < 10; round++) {
        const calls = Array.from({ length: 150 }, (_, i) => {
          const call = client.call(i % 3 === 0 ? "/t.T/Work" : echoPath, target);
          call.send(Buffer.alloc(i * 50));
          if (i % 5 === 0) call.stream.end();
          if (i % 4 === 0) call.stream.close(cancelCode);
          else if (i % 4 === 1) setImmediate(() => call.stream.close(cancelCode));
          else if (i % 4 === 2) call.stream.once("data", () => call.stream.close(cancelCode));
          else setTimeout(() => call.stream.close(cancelCode), i % 40);
          if (i % 3 === 0) setTimeout(() => call.stream.close(cancelCode), 50);
          return call.ended;
        });
        await Promise.all(calls);
      }
      await eventually(() => expect(app.open()).toBe(0));
    };
    await storm();
    const held = (): Promise<number[]> =>
      Promise.all(counted.map(async ({ counts }) => heldBytes(await counts())));
    const [before, memory] = [handles(), await held()];
    await storm();
    await storm();
    await eventually(() => expect(handles()).toBeLessThanOrEqual(before + 2));
    await eventually(async () => {
      for (const [i, bytes] of (await held()).entries()) expect(bytes - memory[i]!).toBeLessThan(16 * MiB);
    });
  },
);

test("an app that answers large uploads unread leaves no place of its connection taken", async () => {
  await using few = await startRawApp({ maxConcurrentStreams: 4 });
  few.on("/t.T/Full", (stream) => {
    const status = { "grpc-status": "8", "grpc-message": "full" };
    stream.respond({ ":status": 200, "content-type": "application/grpc", ...status }, { endStream: true });
  });
  await using sidecar = await startSidecar({ appId: "few", appPort: few.port, appProtocol: "grpc", nats });
  for (let i = 0; i < 12; i++) {
    using client = rawClient(sidecar.grpcPort);
    const call = client.call("/t.T/Full", { "dapr-app-id": "few" });
    call.send(Buffer.alloc(4 * MiB - 5));
    expect(await call.ended).toMatchObject({ code: 8, message: "full" });
  }
  await eventually(() => expect(few.open()).toBe(0));
  expect(few.sessions()).toBe(1);
});

test("a callee's sidecar that is killed: streams end Unavailable within seconds", async () => {
  const second = await startSidecar({ appId: "mortal", appPort: app.port, appProtocol: "grpc", nats });
  stack.use(second);
  using client = rawClient(caller.grpcPort);
  const calls = await Promise.all(
    Array.from({ length: 20 }, () => conversation(client, { "dapr-app-id": "mortal" })),
  );
  app.on("/t.T/Drip", (stream) => {
    answer(stream, {});
    const drip = setInterval(() => stream.write(encodeFrame(Buffer.from("."))), 50);
    stream.once("close", () => clearInterval(drip));
  });
  const listening = client.call("/t.T/Drip", { "dapr-app-id": "mortal" }, { end: true });
  app.on("/t.T/Work", (stream) => void stream.resume());
  const before = app.calls.length;
  const working = client.call("/t.T/Work", { "dapr-app-id": "mortal" });
  working.stream.end(encodeFrame(Buffer.from("m")));
  await eventually(() => expect(app.calls.slice(before).map(({ path }) => path)).toContain("/t.T/Work"));
  await eventually(() => expect(listening.messages.length).toBeGreaterThan(3));
  await second.kill();
  const all = [...calls, listening, working];
  expect(await timed(Promise.all(all.map((call) => call.ended)))).toBeLessThan(14_000);
  for (const call of all) expect(await call.ended).toMatchObject({ code: 14 });
});

test("a callee's sidecar that stops in order finishes calls, then ends streams Unavailable", async () => {
  const flags = ["--dapr-graceful-shutdown-seconds=5"];
  const leaving = await startSidecar({
    appId: "leaving",
    appPort: app.port,
    appProtocol: "grpc",
    nats,
    flags,
  });
  stack.use(leaving);
  const headers = { "dapr-app-id": "leaving" };
  using client = rawClient(caller.grpcPort);
  let release: (() => void) | undefined;
  app.on("/t.T/Brief", (stream) => {
    stream.resume();
    release = () => {
      answer(stream, {});
      stream.end(encodeFrame(Buffer.from("done")));
    };
  });
  const brief = client.call("/t.T/Brief", headers);
  brief.stream.end(encodeFrame(Buffer.from("m")));
  const endless = await conversation(client, headers);
  await eventually(() => expect(release).toBeDefined());
  const stopped = leaving.stop(30_000);
  await leaving.logged(/shut|stop/i).catch(() => {});
  release!();
  expect(await brief.ended).toMatchObject({ code: 0 });
  expect(await endless.ended).toMatchObject({ code: 14 });
  expect([0, 1]).toContain(await stopped);
});

test("two replicas are restarted one after the other under load: no unary call fails", async () => {
  const replica = { appId: "twice", appPort: app.port, appProtocol: "grpc", nats };
  await using first = await startSidecar(replica);
  await using second = await startSidecar(replica);
  using client = rawClient(caller.grpcPort);
  const codes = new Map<number | undefined, number>();
  let restarting = true;
  const worker = async (): Promise<void> => {
    while (restarting) {
      const call = client.call(echoPath, { "dapr-app-id": "twice" });
      call.stream.end(encodeFrame(Buffer.from("m")));
      const { code } = await call.ended;
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
  };
  const load = Promise.all(Array.from({ length: 8 }, worker));
  await first.restart();
  await second.restart();
  restarting = false;
  await load;
  expect([...codes.keys()]).toEqual([0]);
  expect(codes.get(0)).toBeGreaterThan(50);
});

test("NATS restarts: streams end Unavailable, and calls work again", async () => {
  using client = rawClient(caller.grpcPort);
  const call = await conversation(client);
  await nats.restart();
  expect(await call.ended).toMatchObject({ code: 14 });
  await eventually(() => expect(app.open()).toBe(0));
  await eventually(
    async () => {
      const again = client.call(echoPath, target);
      again.stream.end(encodeFrame(Buffer.from("m")));
      expect((await again.ended).code).toBe(0);
    },
    { timeoutMs: 30_000 },
  );
});
