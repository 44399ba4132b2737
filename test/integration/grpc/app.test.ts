/** The client of gRPC apps against grpc-js servers, and against what is no gRPC server at all. */
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Metadata, Server, ServerCredentials } from "@grpc/grpc-js";
import type { sendUnaryData, ServerDuplexStream, ServerUnaryCall } from "@grpc/grpc-js";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { createServer as createTcpServer, type AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { systemClock } from "../../../mesh/index.ts";
import { StatusSchema } from "../../../proto/gen/google/rpc/status_pb.ts";
import { ErrorInfoSchema } from "../../../proto/gen/google/rpc/error_details_pb.ts";
import { grpcCallerHeaders, readDataType } from "../../../src/api/grpc-caller.ts";
import { statusJson } from "../../../src/api/status-proto.ts";
import { GrpcStatusError } from "../../../src/app/channel.ts";
import { createGrpcAppClient, type GrpcAppClient, invokeGrpcApp } from "../../../src/app/grpc.ts";
import { encodeFrame, FrameReader } from "../../../src/lib/grpc-wire.ts";
import { freePort } from "../../kit/ports.ts";
import { grpcStatus, startGrpcApp } from "../../kit/grpc-app.ts";
import { recorder } from "./fixture.ts";

const MiB = 1024 * 1024;
const never = new AbortController().signal;

function appClient(
  port: number,
  extra: { apiToken?: string; maxMessageBytes?: number } = {},
): GrpcAppClient & Disposable {
  const client = createGrpcAppClient({
    host: "127.0.0.1",
    port,
    tls: false,
    maxMessageBytes: 4 * MiB,
    clock: systemClock,
    log: recorder().log,
    ...extra,
  });
  return { ...client, [Symbol.dispose]: () => client.close() };
}

async function failure(promise: Promise<unknown>): Promise<GrpcStatusError> {
  const error = await promise.then(
    () => new Error("the call succeeded"),
    (reason: unknown) => reason,
  );
  if (!(error instanceof GrpcStatusError)) throw error;
  return error;
}

type Handler = (
  message: Buffer,
  metadata: Metadata,
) => { message?: Buffer; headers?: Metadata; trailers?: Metadata };

/** A grpc-js server whose `/t.T/Unary` is the handler and `/t.T/Echo` echoes a stream of bytes. */
async function byteServer(
  handle: Handler,
  port?: number,
): Promise<AsyncDisposable & { readonly port: number }> {
  const server = new Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
  const same = (bytes: Buffer): Buffer => bytes;
  const common = {
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
  server.addService(
    {
      unary: { path: "/t.T/Unary", requestStream: false, responseStream: false, ...common },
      echo: { path: "/t.T/Echo", requestStream: true, responseStream: true, ...common },
    },
    {
      unary: (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => {
        const { message, headers, trailers } = handle(call.request, call.metadata);
        if (headers !== undefined) call.sendMetadata(headers);
        if (message !== undefined) callback(null, message, trailers);
      },
      echo: (call: ServerDuplexStream<Buffer, Buffer>): void => {
        call.on("data", (bytes: Buffer) => {
          if (!call.write(bytes)) call.pause().once("drain", () => call.resume());
        });
        call.on("end", () => call.end());
      },
    },
  );
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${port ?? 0}`, ServerCredentials.createInsecure(), (error, at) =>
      error === null ? resolve(at) : reject(error),
    ),
  );
  return {
    port: bound,
    [Symbol.asyncDispose]: () => {
      server.forceShutdown();
      return Promise.resolve();
    },
  };
}

describe("unary", () => {
  test("bytes, metadata, headers and trailers pass both ways", async () => {
    let seen: Metadata | undefined;
    await using server = await byteServer((message, metadata) => {
      seen = metadata;
      const headers = new Metadata();
      headers.set("x-head", "h");
      const trailers = new Metadata();
      trailers.set("x-tail-bin", Buffer.from([0, 255]));
      return { message: Buffer.concat([message, Buffer.from("!")]), headers, trailers };
    });
    using client = appClient(server.port, { apiToken: "app-token" });
    const metadata = [
      "X-One",
      "1",
      "x-one",
      "2",
      "x-bin",
      "AP8",
      "connection",
      "close",
      "dapr-api-token",
      "forged",
    ];
    const answer = await client.unary({ path: "/t.T/Unary", metadata, message: Buffer.from("hello") }, never);
    expect(Buffer.from(answer.message).toString()).toBe("hello!");
    expect(answer.headers.join()).toContain("x-head,h");
    expect(answer.trailers).toEqual(["x-tail-bin", "AP8="]);
    expect(seen!.get("x-one")).toEqual(["1, 2"]);
    expect(seen!.get("x-bin")).toEqual([Buffer.from([0, 255])]);
    expect(seen!.get("dapr-api-token")).toEqual(["app-token"]);
  });

  test("statuses with text, details and trailers", async () => {
    const status = create(StatusSchema, {
      code: 5,
      message: "weg – ü",
      details: [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "R", domain: "d" }))],
    });
    await using app = await startGrpcApp({
      onInvoke: () => {
        const trailers = new Metadata();
        trailers.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)));
        trailers.set("x-t", "1");
        throw grpcStatus(5, "weg – ü", trailers);
      },
    });
    using client = appClient(app.port);
    const path = "/dapr.proto.runtime.v1.AppCallback/OnInvoke";
    const error = await failure(client.unary({ path, metadata: [], message: Buffer.alloc(0) }, never));
    expect([error.code, error.message]).toEqual([5, "weg – ü"]);
    expect(Buffer.from(error.details!).equals(toBinary(StatusSchema, status))).toBe(true);
    expect(error.trailers.join()).toContain("x-t,1");
    const unknown = await failure(
      client.unary({ path: "/no.Such/Method", metadata: [], message: Buffer.alloc(0) }, never),
    );
    expect(unknown.code).toBe(12);
  });

  test("message limits both ways; 20 MB when allowed", async () => {
    await using server = await byteServer((message) => ({ message: Buffer.alloc(message.length * 2, 1) }));
    using client = appClient(server.port);
    const ask = (bytes: number) =>
      client.unary({ path: "/t.T/Unary", metadata: [], message: Buffer.alloc(bytes) }, never);
    expect((await failure(ask(5 * MiB))).message).toBe(
      `grpc: trying to send message larger than max (${5 * MiB} vs. ${4 * MiB})`,
    );
    const received = await failure(ask(3 * MiB));
    expect([received.code, received.message]).toEqual([
      8,
      `grpc: received message larger than max (${6 * MiB} vs. ${4 * MiB})`,
    ]);
    expect((await ask(2 * MiB)).message.length).toBe(4 * MiB);
    using large = appClient(server.port, { maxMessageBytes: 64 * MiB });
    const answer = await large.unary(
      { path: "/t.T/Unary", metadata: [], message: Buffer.alloc(20 * MiB) },
      never,
    );
    expect(answer.message.length).toBe(40 * MiB);
  });

  test("aborting the signal ends the call with Canceled or DeadlineExceeded", async () => {
    await using server = await byteServer(() => ({}));
    using client = appClient(server.port);
    const ask = (signal: AbortSignal) =>
      failure(client.unary({ path: "/t.T/Unary", metadata: [], message: Buffer.alloc(1) }, signal));
    expect(await ask(AbortSignal.timeout(50))).toMatchObject({
      code: 4,
      message: "context deadline exceeded",
    });
    const abort = new AbortController();
    const pending = ask(abort.signal);
    abort.abort();
    expect(await pending).toMatchObject({ code: 1, message: "context canceled" });
    expect(await ask(AbortSignal.abort())).toMatchObject({ code: 1 });
  });

  test("an app that is down is Unavailable in Go's words; when it comes back the next call reaches it", async () => {
    const port = await freePort();
    using client = appClient(port);
    const ask = () => client.unary({ path: "/t.T/Unary", metadata: [], message: Buffer.from("x") }, never);
    const refused = `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:${port}: connect: connection refused"`;
    for (let i = 0; i < 2; i++) expect(await failure(ask())).toMatchObject({ code: 14, message: refused });
    const first = await byteServer((message) => ({ message }), port);
    expect((await ask()).message).toEqual(Buffer.from("x"));
    await first[Symbol.asyncDispose]();
    expect((await failure(ask())).code).toBe(14);
    await using second = await byteServer((message) => ({ message }), port);
    expect((await ask()).message).toEqual(Buffer.from("x"));
    expect(second.port).toBe(port);
  });

  test("1,000 calls at once share one connection", async () => {
    let sessions = 0;
    const server = createHttp2Server({ settings: { maxConcurrentStreams: 100 } });
    server.on("session", () => sessions++);
    server.on("stream", (stream) => {
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", () => {
        stream.respond({ "content-type": "application/grpc" }, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
        stream.end(Buffer.concat(chunks));
      });
    });
    const port = await listen(server);
    using client = appClient(port);
    const answers = await Promise.all(
      Array.from({ length: 1000 }, (_, i) =>
        client.unary({ path: "/t.T/X", metadata: [], message: Buffer.from(String(i)) }, never),
      ),
    );
    expect(answers.map(({ message }) => Number(Buffer.from(message).toString()))).toEqual(
      Array.from({ length: 1000 }, (_, i) => i),
    );
    expect(sessions).toBe(1);
    client.close();
    server.close();
  });
});

describe("broken apps", () => {
  /** Ends each call as the test says; sees how many calls have come. */
  async function brokenApp(act: (stream: ServerHttp2Stream, call: number) => void) {
    const server = createHttp2Server();
    let calls = 0;
    server.on("sessionError", () => {});
    server.on("stream", (stream) => {
      stream.on("error", () => {});
      stream.resume();
      act(stream, ++calls);
    });
    const port = await listen(server);
    const client = appClient(port);
    return {
      calls: () => calls,
      ask: () => client.unary({ path: "/t.T/X", metadata: [], message: Buffer.alloc(1) }, never),
      [Symbol.dispose]() {
        client.close();
        server.close();
      },
    };
  }

  const grpcHeaders = { ":status": 200, "content-type": "application/grpc" };

  test.each([
    ["a reset with INTERNAL_ERROR", (stream: ServerHttp2Stream) => stream.close(2), 13, "INTERNAL_ERROR"],
    ["a reset with CANCEL", (stream: ServerHttp2Stream) => stream.close(8), 1, "CANCEL"],
    [
      "a reset with ENHANCE_YOUR_CALM",
      (stream: ServerHttp2Stream) => stream.close(11),
      8,
      "ENHANCE_YOUR_CALM",
    ],
    [
      "a connection cut before the answer",
      (stream: ServerHttp2Stream) => stream.session!.destroy(),
      14,
      "error reading",
    ],
    [
      "a connection cut inside the answer",
      (stream: ServerHttp2Stream) => {
        stream.respond(grpcHeaders);
        stream.write(Buffer.from([0, 0, 0, 0, 9, 1]), () => stream.session!.destroy());
      },
      14,
      "error reading",
    ],
    [
      "an answer without status",
      (stream: ServerHttp2Stream) => {
        stream.respond(grpcHeaders);
        stream.end(encodeFrame(Buffer.alloc(1)));
      },
      14,
      "error reading from server: EOF",
    ],
    [
      "an answer of a web server",
      (stream: ServerHttp2Stream) => {
        stream.respond({ ":status": 404, "content-type": "text/html" });
        stream.end("no");
      },
      12,
      "unexpected HTTP status code received from server: 404",
    ],
    [
      "OK without message",
      (stream: ServerHttp2Stream) =>
        stream.respond({ ...grpcHeaders, "grpc-status": "0" }, { endStream: true }),
      13,
      "without a message",
    ],
    [
      "a status that is no number",
      (stream: ServerHttp2Stream) =>
        stream.respond({ ...grpcHeaders, "grpc-status": "x" }, { endStream: true }),
      2,
      "",
    ],
    [
      "a huge length",
      (stream: ServerHttp2Stream) => {
        stream.respond(grpcHeaders);
        stream.write(Buffer.from([0, 255, 255, 255, 255]));
      },
      8,
      "grpc: received message larger than max (4294967295",
    ],
    [
      "a damaged gzip message",
      (stream: ServerHttp2Stream) => {
        stream.respond({ ...grpcHeaders, "grpc-encoding": "gzip" }, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
        stream.end(Buffer.from([1, 0, 0, 0, 1, 7]));
      },
      13,
      "failed to decompress",
    ],
  ])("%s", async (_name, act, code, text) => {
    using app = await brokenApp(act);
    const error = await failure(app.ask());
    expect(error.code).toBe(code);
    expect(error.message).toContain(text);
    expect(app.calls()).toBe(1);
  });

  test("a refused stream is sent once more, and only once", async () => {
    using lucky = await brokenApp((stream, call) => {
      if (call === 1) return stream.close(7);
      stream.respond(grpcHeaders, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(encodeFrame(Buffer.from("ok")));
    });
    expect(Buffer.from((await lucky.ask()).message).toString()).toBe("ok");
    expect(lucky.calls()).toBe(2);
    using unlucky = await brokenApp((stream) => stream.close(7));
    expect((await failure(unlucky.ask())).code).toBe(14);
    expect(unlucky.calls()).toBe(2);
  });

  test("after GOAWAY the next call takes a new connection", async () => {
    const sessions = new Set<unknown>();
    using app = await brokenApp((stream) => {
      sessions.add(stream.session);
      const { session } = stream;
      stream.respond(grpcHeaders, { waitForTrailers: true });
      stream.on("wantTrailers", () => {
        stream.sendTrailers({ "grpc-status": "0" });
        session!.close();
      });
      stream.end(encodeFrame(Buffer.from("ok")));
    });
    for (let i = 0; i < 5; i++) expect((await app.ask()).message.length).toBe(2);
    expect(app.calls()).toBe(5);
    expect(sessions.size).toBeGreaterThan(1);
  });

  test("an HTTP/1 server and a port that hangs up are Unavailable", async () => {
    const web = createHttpServer((_request, response) => response.end("web"));
    const rude = createTcpServer((socket) => socket.destroy());
    for (const server of [web, rude]) {
      using client = appClient(await listen(server));
      const ask = () => client.unary({ path: "/t.T/X", metadata: [], message: Buffer.alloc(1) }, never);
      expect((await failure(ask())).code).toBe(14);
      server.close();
    }
  });
});

describe("raw streams", () => {
  test("frames go both ways in order, with a slow reader", async () => {
    await using server = await byteServer((message) => ({ message }));
    using client = appClient(server.port);
    const stream = await client.open("/t.T/Echo", ["x-a", "1"], never);
    stream.on("error", () => {});
    const count = 300;
    const writing = (async () => {
      for (let i = 0; i < count; i++) {
        if (!stream.write(encodeFrame(Buffer.alloc(20_000, i)))) await once(stream, "drain");
      }
      stream.end();
    })();
    const trailers = once(stream, "trailers");
    const frames = new FrameReader(MiB);
    let got = 0;
    for await (const chunk of stream) {
      frames.push(chunk as Buffer);
      for (let frame = frames.next(); frame !== undefined; frame = frames.next()) {
        expect(frame.bytes.equals(Buffer.alloc(20_000, got++))).toBe(true);
      }
    }
    await writing;
    expect(got).toBe(count);
    expect((await trailers)[0]["grpc-status"]).toBe("0");
  });

  test("aborting the signal resets the stream", async () => {
    await using server = await byteServer((message) => ({ message }));
    using client = appClient(server.port);
    const abort = new AbortController();
    const stream = await client.open("/t.T/Echo", [], abort.signal);
    const failed = once(stream, "error");
    abort.abort();
    expect((await failed)[0]).toMatchObject({ name: "AbortError" });
  });
});

describe("service invocation", () => {
  const request = {
    verb: "POST",
    path: "/orders/a%20b",
    query: "x=1&y=2",
    headers: ["Content-Type", "application/json", "X-Custom", "v", "Accept", "*/*", "Connection", "close"],
    body: Buffer.from('{"a":1}'),
  };

  test("an HTTP caller: method, extension, content type and metadata names", async () => {
    await using app = await startGrpcApp({
      onInvoke: () => ({ data: { value: Buffer.from("answer") }, contentType: "text/plain" }),
    });
    using client = appClient(app.port);
    const answer = await invokeGrpcApp(client, request, never);
    expect(answer).toMatchObject({ status: 200, grpc: { code: 0, contentType: "text/plain" } });
    expect(Buffer.from(answer.body).toString()).toBe("answer");
    const { request: got, metadata } = app.invocations[0]!;
    expect(got).toMatchObject({ method: "orders/a b", contentType: "application/json" });
    expect(got.httpExtension).toMatchObject({ verb: 3, querystring: "x=1&y=2" });
    expect(Buffer.from(got.data!.value).toString()).toBe('{"a":1}');
    expect(metadata.get("x-custom")).toEqual(["v"]);
    expect(metadata.get("dapr-accept")).toEqual(["*/*"]);
    expect(metadata.get("dapr-content-type")).toEqual(["application/json"]);
    expect(metadata.get("accept")).toEqual([]);
  });

  test("a gRPC caller: everything as it was sent, without an extension if there was none", async () => {
    await using app = await startGrpcApp({
      onInvoke: () => ({ data: anyPack(StringValueSchema, create(StringValueSchema, { value: "v" })) }),
    });
    using client = appClient(app.port);
    const metadata = new Map([
      [":authority", ["a"]],
      ["content-type", ["application/grpc"]],
      ["accept", ["x"]],
      ["x-bin", ["\x00\xff"]],
      ["user-agent", ["grpc-go"]],
    ]);
    const headers = grpcCallerHeaders(metadata, {
      method: "/a%2Fb c",
      contentType: "text/x",
      dataType: "type.googleapis.com/t.T",
    });
    const answer = await invokeGrpcApp(client, { ...request, verb: "", query: "", headers }, never);
    expect(readDataType(answer.headers)).toBe("type.googleapis.com/google.protobuf.StringValue");
    const { request: got, metadata: seen } = app.invocations[0]!;
    expect(got).toMatchObject({
      method: "/a%2Fb c",
      contentType: "text/x",
      data: { typeUrl: "type.googleapis.com/t.T" },
    });
    expect(got.httpExtension).toBeUndefined();
    expect(seen.get("accept")).toEqual(["x"]);
    expect(seen.get("x-bin")).toEqual([Buffer.from([0, 255])]);
    expect(seen.get("user-agent")).toEqual(["weft"]);
    expect(Object.keys(seen.getMap()).filter((name) => name.startsWith("weft-"))).toEqual([]);
  });

  test("statuses are answers: mapped for HTTP, unchanged for gRPC", async () => {
    await using app = await startGrpcApp({
      onInvoke: () => {
        throw grpcStatus(5, "no order");
      },
    });
    using client = appClient(app.port);
    const answer = await invokeGrpcApp(client, request, never);
    expect(answer).toMatchObject({ status: 404, grpc: { code: 5, message: "no order" } });
    expect(await statusJson(5, "no order", answer.grpc!.details)).toBe('{"code":5,"message":"no order"}');
    using lost = appClient(await freePort());
    const down = await invokeGrpcApp(lost, request, never);
    expect(down).toMatchObject({
      status: 503,
      grpc: { code: 14, message: expect.stringMatching(/^connection error: /) },
    });
    await expect(invokeGrpcApp(client, request, AbortSignal.abort())).rejects.toMatchObject({ code: 1 });
  });

  test("limits in the words of the called sidecar", async () => {
    await using app = await startGrpcApp({ onInvoke: () => ({ data: { value: Buffer.alloc(2 * MiB) } }) });
    using client = appClient(app.port, { maxMessageBytes: MiB });
    const reply = await invokeGrpcApp(client, request, never);
    expect(reply.grpc).toMatchObject({
      code: 8,
      message: expect.stringMatching(/^grpc: trying to send message larger than max/),
    });
    const sent = await invokeGrpcApp(client, { ...request, body: Buffer.alloc(2 * MiB) }, never);
    expect(sent).toMatchObject({ status: 429 });
    expect(sent.grpc).toMatchObject({
      code: 8,
      message: expect.stringMatching(/^grpc: received message larger than max/),
    });
  });

  test("proto-JSON of a status with known and unknown details", async () => {
    const status = create(StatusSchema, {
      code: 3,
      message: "<bad>",
      details: [
        anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "R", domain: "d", metadata: { k: "v" } })),
        { typeUrl: "type.googleapis.com/my.Own", value: Buffer.from([1, 2]) },
      ],
    });
    const text = await statusJson(3, "<bad>", toBinary(StatusSchema, status));
    expect(JSON.parse(text)).toEqual({
      code: 3,
      message: "<bad>",
      details: [
        {
          "@type": "type.googleapis.com/google.rpc.ErrorInfo",
          reason: "R",
          domain: "d",
          metadata: { k: "v" },
        },
        { "@type": "type.googleapis.com/my.Own", value: "AQI=" },
      ],
    });
  });
});

async function listen(server: {
  listen(port: number, host: string, done: () => void): unknown;
  address(): unknown;
}): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}
