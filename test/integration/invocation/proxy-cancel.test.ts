// A call that is given up while its requests are open: the app is told of a cancel, never of the end of the requests.
// Read from the wire, hundreds of times at every stage of a call.
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { encodeFrame } from "../../../src/lib/grpc-wire.ts";
import { eventually, nodeBinary, startNats, startProcess, startSidecar } from "../../kit/index.ts";
import type { Nats, Sidecar } from "../../kit/index.ts";
import {
  callHeaders,
  dial,
  endHeaders,
  FrameSplit,
  FrameType,
  http2Frame,
  preface,
  reset,
  settings,
} from "../grpc/http2-frames.ts";
import { cancelCode, type RawApp, startRawApp } from "./raw-grpc.ts";
import { type AppWire, appWire } from "./wire.ts";

const stack = new AsyncDisposableStack();
const count = 200;
let nats: Nats;
let app: RawApp;
let wire: AppWire;
let caller: Sidecar;
let callee: Sidecar;

beforeAll(async () => {
  nats = stack.use(await startNats());
  app = stack.use(await startRawApp());
  wire = stack.use(await appWire(app.port));
  callee = stack.use(await startSidecar({ appId: "callee", appPort: wire.port, appProtocol: "grpc", nats }));
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
});
afterAll(() => stack.disposeAsync());

const ways = ["through two sidecars", "through the own sidecar"] as const;
const portOf = (way: (typeof ways)[number]): number => (way === ways[0] ? caller : callee).grpcPort;

/** Frames of a call of the echo, with one message and no end. */
function begin(id: number, more: readonly string[] = []): Buffer {
  const headers = callHeaders("/t.T/Echo", ["dapr-app-id", "callee", ...more]);
  return Buffer.concat([
    http2Frame(FrameType.headers, endHeaders, id, headers),
    http2Frame(FrameType.data, 0, id, encodeFrame(Buffer.from("hello"))),
  ]);
}

type FrameClient = Disposable & { readonly socket: Socket; answered(id: number): boolean };

async function frameClient(port: number): Promise<FrameClient> {
  const socket = await dial(port);
  const split = new FrameSplit(0);
  const answered = new Set<number>();
  socket.on("data", (chunk: Buffer) => {
    for (const { type, stream } of split.push(chunk)) if (type === FrameType.data) answered.add(stream);
  });
  socket.write(Buffer.concat([preface, settings]));
  return { socket, answered: (id) => answered.has(id), [Symbol.dispose]: () => socket.destroy() };
}

/** `least` calls or more have reached the app after `from`, and it has been told that each is cancelled. */
async function allCancelled(from: number, least: number): Promise<void> {
  await eventually(
    () => {
      expect(wire.calls.length - from).toBeGreaterThanOrEqual(least);
      // The rest are those that a client cancelled before they reached the app.
      for (const call of wire.calls.slice(from))
        expect(call).toEqual({ completed: false, reset: cancelCode });
      expect(app.open()).toBe(0);
    },
    { timeoutMs: 30_000 },
  );
}

/** So many calls of one client, each with an answer. */
async function conversations(client: FrameClient, calls: number): Promise<void> {
  for (let i = 0; i < calls; i++) client.socket.write(begin(2 * i + 1));
  await eventually(() => {
    for (let i = 0; i < calls; i++) expect(client.answered(2 * i + 1)).toBe(true);
  });
}

describe.each(ways)("%s", (way) => {
  test.each<[string, number, (client: FrameClient, id: number) => Promise<unknown>]>([
    ["at once", 0, () => Promise.resolve()],
    ["within milliseconds", 1, (_, id) => sleep(id % 13)],
    ["after an answer", count, (client, id) => eventually(() => client.answered(id), { everyMs: 1 })],
  ])("the client resets its streams %s", async (_, least, ripe) => {
    using client = await frameClient(portOf(way));
    const from = wire.calls.length;
    for (let i = 0; i < count; i++) {
      const id = 2 * i + 1;
      client.socket.write(begin(id));
      await ripe(client, id);
      client.socket.write(reset(id));
    }
    await allCancelled(from, least);
  });

  test("a deadline passes", async () => {
    using client = await frameClient(portOf(way));
    const from = wire.calls.length;
    for (let i = 0; i < count; i++) client.socket.write(begin(2 * i + 1, ["grpc-timeout", `${4_000 + i}m`]));
    await allCancelled(from, count);
  });

  test.each<[string, (socket: Socket) => unknown]>([
    ["is closed", (socket) => socket.end()],
    ["is reset", (socket) => socket.resetAndDestroy()],
  ])("the client's connection %s", async (_, end) => {
    for (let round = 0; round < 10; round++) {
      using client = await frameClient(portOf(way));
      const from = wire.calls.length;
      await conversations(client, 20);
      end(client.socket);
      await allCancelled(from, 20);
    }
  });

  test("the client is killed", async () => {
    const from = wire.calls.length;
    const frames = [preface, settings, ...Array.from({ length: 20 }, (_, i) => begin(2 * i + 1))];
    const program = `require("node:net").connect(${portOf(way)}, "127.0.0.1")
      .resume().write(Buffer.from("${Buffer.concat(frames).toString("base64")}", "base64"))`;
    await using client = await startProcess({ name: "client", command: nodeBinary(), args: ["-e", program] });
    await eventually(() => expect(wire.calls.length - from).toBeGreaterThanOrEqual(20));
    await client.kill("SIGKILL");
    await allCancelled(from, 20);
  });
});

test("the caller's sidecar is killed", async () => {
  await using mortal = await startSidecar({ appId: "mortal", nats });
  using client = await frameClient(mortal.grpcPort);
  const from = wire.calls.length;
  await conversations(client, 20);
  await mortal.kill("SIGKILL");
  await allCancelled(from, 20);
});
