/** Whatever arrives on the gRPC port, the server lives, answers others, and forgets the connection. */
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { GrpcCode } from "../../../src/api/errors.ts";
import { streaming } from "../../../src/api/grpc.ts";
import type { ServerCall } from "../../../src/ingress/grpc.ts";
import { encodeFrame } from "../../../src/lib/grpc-wire.ts";
import { eventually } from "../../kit/eventually.ts";
import { aborted, echo, getState, type ServerFixture, startServer } from "./fixture.ts";
import {
  callHeaders,
  dial,
  endHeaders,
  endStream,
  FrameType,
  http2Frame,
  preface,
  reset,
  settings,
} from "./http2-frames.ts";

/** Sends bytes and waits until the server has ended the connection; resolves with what it said. */
async function sendUntilClosed(port: number, bytes: Buffer): Promise<Buffer> {
  const socket = await dial(port);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  const closed = once(socket, "close");
  socket.write(bytes);
  await closed;
  return Buffer.concat(chunks);
}

async function stillServes(server: ServerFixture): Promise<void> {
  expect((await server.client.unary(Dapr.method.getState, { key: "alive" })).etag).toBe("alive");
}

function methods() {
  return [getState(async ({ key }) => ({ etag: key })), echo()];
}

test("garbage, an HTTP/1 request and a broken preface end the connection only", async () => {
  await using server = await startServer(methods());
  await sendUntilClosed(server.port, Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  await sendUntilClosed(server.port, Buffer.alloc(4096, 0xa5));
  await sendUntilClosed(server.port, Buffer.concat([preface, Buffer.alloc(64, 0xff)]));
  await sendUntilClosed(
    server.port,
    Buffer.concat([preface, settings, http2Frame(FrameType.continuation, 0, 1, Buffer.alloc(3))]),
  );
  // A header block that is no HPACK.
  await sendUntilClosed(
    server.port,
    Buffer.concat([preface, settings, http2Frame(FrameType.headers, endHeaders, 1, Buffer.alloc(20, 0xff))]),
  );
  await stillServes(server);
});

test("a connection cut at every stage of a call leaves nothing behind", async () => {
  await using server = await startServer(methods());
  const path = "/dapr.proto.runtime.v1.Dapr/EncryptAlpha1";
  const whole = Buffer.concat([
    preface,
    settings,
    http2Frame(FrameType.headers, endHeaders, 1, callHeaders(path)),
    http2Frame(FrameType.data, 0, 1, encodeFrame(Buffer.alloc(0))),
    http2Frame(FrameType.data, 0, 1, Buffer.from([0, 0, 0, 1, 0, 1, 2, 3])),
  ]);
  for (let length = 1; length <= whole.length; length += 7) {
    const socket = await dial(server.port);
    await new Promise((resolve) => socket.write(whole.subarray(0, length), resolve));
    socket.destroy();
  }
  await stillServes(server);
  await eventually(() => expect(server.completed.length).toBeGreaterThan(1));
  for (const line of server.completed.slice(0, -1)) expect(line).toMatch(/ (Canceled|OK|Internal)$/);
});

const unaryPath = "/dapr.proto.runtime.v1.Dapr/GetState";
const streamPath = "/dapr.proto.runtime.v1.Dapr/EncryptAlpha1";

test.each([
  ["in the middle of a message", Buffer.from([0, 0, 0, 1, 0, 1, 2, 3])],
  ["after a whole message", encodeFrame(Buffer.alloc(0))],
])("a reset %s aborts the handlers and is no end of the requests", async (_name, message) => {
  const seen: string[] = [];
  const reasons: unknown[] = [];
  const method = streaming(Dapr.method.encryptAlpha1, async function* (requests, call) {
    void aborted(call).then((reason) => reasons.push(reason));
    for await (const request of requests)
      if (request.payload !== undefined) yield { payload: request.payload };
    seen.push("end of requests");
  });
  const unary = getState(async ({ key }) => {
    if (key !== "alive") seen.push("unary handler");
    return { etag: key };
  });
  await using server = await startServer([method, unary]);
  await server.server.warm();
  const socket = await dial(server.port);
  const frames = [preface, settings];
  for (const [i, path] of [streamPath, unaryPath].entries()) {
    const id = 2 * i + 1;
    frames.push(http2Frame(FrameType.headers, endHeaders, id, callHeaders(path)));
    frames.push(http2Frame(FrameType.data, 0, id, message), reset(id));
  }
  socket.write(Buffer.concat(frames));
  await eventually(() =>
    expect(server.completed).toEqual([`${streamPath} Canceled`, `${unaryPath} Canceled`]),
  );
  await stillServes(server);
  expect(reasons).toMatchObject([{ grpcCode: GrpcCode.Canceled }]);
  expect(seen).toEqual([]);
  socket.destroy();
});

test.each([
  ["never half-closes is let go after a status without messages", streamPath, 0, false],
  ["never half-closes is let go after a status that follows messages", streamPath, 1, false],
  ["never half-closes is let go after a refusal of a unary call", unaryPath, 0, false],
  ["is not read to its end leaves no stream behind", streamPath, 1, true],
])("a client that %s", async (_name, path, answers, halfCloses) => {
  const calls: ServerCall[] = [];
  const method = streaming(Dapr.method.encryptAlpha1, async function* (requests) {
    for await (const _ of requests) {
      for (let i = 0; i < answers; i++) yield { payload: { seq: 1n } };
      return;
    }
  });
  await using server = await startServer([method, getState(async () => ({}))], {
    maxMessageBytes: 1000,
    guard: (call) => void calls.push(call),
  });
  const session = connectHttp2(`http://127.0.0.1:${server.port}`);
  const stream = session.request(
    { ":method": "POST", ":path": path, "content-type": "application/grpc" },
    { endStream: false },
  );
  stream.on("error", () => {});
  const closed = once(stream, "close");
  stream.resume();
  // The unary message is too large; the stream's handler reads the first message and leaves the others.
  if (path === unaryPath) stream.write(Buffer.from([0, 0, 0, 255, 255]));
  else for (let i = 0; i < 50; i++) stream.write(encodeFrame(Buffer.alloc(0)));
  if (halfCloses) stream.end();
  await closed;
  await eventually(() => expect(calls.map((call) => call.stream.destroyed)).toEqual([true]));
  session.destroy();
});

test("calls that are no gRPC calls get an HTTP status", async () => {
  await using server = await startServer(methods());
  const session = connectHttp2(`http://127.0.0.1:${server.port}`);
  const ask = async (headers: Record<string, string>): Promise<unknown> => {
    const stream = session.request({ ":path": "/x.Y/Z", ...headers }, { endStream: false });
    stream.end("body");
    const [response] = await once(stream, "response");
    stream.resume();
    return response[":status"];
  };
  expect(await ask({ ":method": "GET" })).toBe(405);
  expect(await ask({ ":method": "POST", "content-type": "application/json" })).toBe(415);
  expect(await ask({ ":method": "POST" })).toBe(415);
  expect(await ask({ ":method": "POST", "content-type": "application/grpcx" })).toBe(415);
  expect(server.completed).toEqual([]);
  session.destroy();
});

test("odd paths are Unimplemented", async () => {
  await using server = await startServer(methods());
  for (const path of [
    "/",
    "/x",
    "//",
    "/a/b/c",
    "/dapr.proto.runtime.v1.Dapr/",
    "/dapr.proto.runtime.v1.Dapr/__proto__",
  ]) {
    const error = await server.client.raw(path, Buffer.alloc(0)).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 12 });
  }
});

test("headers above the limit are refused without hurting other calls", async () => {
  await using server = await startServer(methods(), { maxHeaderBytes: 8 * 1024 });
  const metadata = { "x-large": "x".repeat(20_000) };
  const error = await server.client
    .unary(Dapr.method.getState, {}, { metadata })
    .catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: expect.any(Number) });
  await stillServes(server);
});

test("a client that never reads its answers is bounded, and others are served", async () => {
  await using server = await startServer([
    getState(async ({ key }) => (key === "alive" ? { etag: key } : { data: Buffer.alloc(64 * 1024) })),
  ]);
  const socket = await dial(server.port);
  socket.pause();
  const path = "/dapr.proto.runtime.v1.Dapr/GetState";
  const calls: Buffer[] = [preface, settings];
  for (let i = 0; i < 200; i++) {
    const id = 2 * i + 1;
    calls.push(http2Frame(FrameType.headers, endHeaders, id, callHeaders(path)));
    calls.push(http2Frame(FrameType.data, endStream, id, encodeFrame(Buffer.alloc(0))));
  }
  socket.write(Buffer.concat(calls));
  await eventually(() => expect(server.completed.length).toBe(200));
  await stillServes(server);
  socket.destroy();
});

test("answers that clients give up half read: they are asked to connect anew before calls are refused", async () => {
  await using server = await startServer([
    getState(async ({ key }) => (key === "alive" ? { etag: key } : { data: Buffer.alloc(4_000_000) })),
  ]);
  const dialAnew = () => {
    const session = connectHttp2(`http://127.0.0.1:${server.port}`);
    session.on("error", () => {});
    return session;
  };
  let client = dialAnew();
  let connections = 1;
  // Without a new connection in between, node would refuse streams after 512 MB.
  for (let i = 0; i < 140; i++) {
    if (client.closed || client.destroyed) {
      client = dialAnew();
      connections++;
    }
    const abort = new AbortController();
    const headers = { ":method": "POST", ":path": "/dapr.proto.runtime.v1.Dapr/GetState" };
    const stream = client.request(
      { ...headers, "content-type": "application/grpc", te: "trailers" },
      { signal: abort.signal },
    );
    stream.on("error", () => {});
    stream.end(encodeFrame(Buffer.alloc(0)));
    await once(stream, "readable");
    const closed = new Promise((resolve) => stream.once("close", resolve));
    abort.abort();
    await closed;
  }
  expect(connections).toBeGreaterThan(3);
  await stillServes(server);
  client.destroy();
});
