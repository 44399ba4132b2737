/** The client of gRPC apps against grpc-js servers: unary calls and raw streams. */
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata } from "@grpc/grpc-js";
import { once } from "node:events";
import { createSecureServer, createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { createServer as createTcpServer, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { StatusSchema } from "../../../proto/gen/google/rpc/status_pb.ts";
import { ErrorInfoSchema } from "../../../proto/gen/google/rpc/error_details_pb.ts";
import { encodeFrame, FrameReader } from "../../../src/lib/grpc-wire.ts";
import { eventually } from "../../kit/eventually.ts";
import { freePort } from "../../kit/ports.ts";
import { grpcStatus, startGrpcApp } from "../../kit/grpc-app.ts";
import { testCertificate, testKey } from "./certificate.ts";
import { MiB, never, appClient, failure, byteServer, listen } from "./app-fixture.ts";

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

  test("aborting the signal ends a call that still waits for the connection", async () => {
    const sockets: Socket[] = [];
    const accepted = Promise.withResolvers<void>();
    // Takes the connection and never answers the TLS handshake.
    const silent = createTcpServer((socket) => {
      sockets.push(socket);
      accepted.resolve();
    });
    using client = appClient(await listen(silent), { tls: true });
    const ask = (signal: AbortSignal) =>
      failure(client.unary({ path: "/t.T/Unary", metadata: [], message: Buffer.alloc(1) }, signal));
    expect(await ask(AbortSignal.timeout(50))).toMatchObject({ code: 4 });
    await accepted.promise;
    const abort = new AbortController();
    const pending = ask(abort.signal);
    abort.abort();
    expect(await pending).toMatchObject({ code: 1, message: "context canceled" });
    expect(sockets).toHaveLength(1);
    for (const socket of sockets) socket.destroy();
    silent.close();
  });

  test("an app that is down is Unavailable in Go's words; when it comes back the next call reaches it", async () => {
    const port = await freePort();
    using client = appClient(port);
    const ask = () => client.unary({ path: "/t.T/Unary", metadata: [], message: Buffer.from("x") }, never);
    const dial = `dial tcp 127.0.0.1:${port}: connect: connection refused`;
    const refused = `connection error: desc = "transport: Error while dialing: ${dial}"`;
    for (let i = 0; i < 2; i++) expect(await failure(ask())).toMatchObject({ code: 14, message: refused });
    const first = await byteServer((message) => ({ message }), port);
    expect((await ask()).message).toEqual(Buffer.from("x"));
    await first[Symbol.asyncDispose]();
    expect((await failure(ask())).code).toBe(14);
    await using second = await byteServer((message) => ({ message }), port);
    expect((await ask()).message).toEqual(Buffer.from("x"));
    expect(second.port).toBe(port);
  });

  test("an app behind TLS, whatever its certificate; a plaintext one is Unavailable", async () => {
    const server = createSecureServer({ key: testKey, cert: testCertificate });
    server.on("stream", (stream, headers) => {
      stream.resume();
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(encodeFrame(Buffer.from(String(headers[":scheme"]))));
    });
    const request = { path: "/t.T/X", metadata: [], message: Buffer.alloc(1) };
    {
      using client = appClient(await listen(server), { tls: true });
      expect(Buffer.from((await client.unary(request, never)).message).toString()).toBe("https");
    }
    server.close();
    await using plain = await byteServer((message) => ({ message }));
    using wrong = appClient(plain.port, { tls: true });
    const error = await failure(wrong.unary(request, never));
    expect([error.code, error.message]).toEqual([
      14,
      expect.stringMatching(/^connection error: desc = "transport: /),
    ]);
  });

  test("1,000 calls at once share one connection", async () => {
    let sessions = 0;
    const server = createHttp2Server();
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

  test("an app that takes few streams on a connection gets more connections, for as long as needed", async () => {
    const sessions = new Set<unknown>();
    let most = 0;
    const server = createHttp2Server({ settings: { maxConcurrentStreams: 50 } });
    server.on("session", (session) => {
      sessions.add(session);
      session.on("close", () => sessions.delete(session));
    });
    const open = new Set<ServerHttp2Stream>();
    server.on("stream", (stream) => {
      open.add(stream);
      stream.on("error", () => {});
      stream.on("close", () => open.delete(stream));
      most = Math.max(most, open.size);
      stream.respond({ "content-type": "application/grpc" });
    });
    const port = await listen(server);
    using client = appClient(port);
    const streams = await Promise.all(Array.from({ length: 220 }, () => client.open("/t.T/X", [], never)));
    for (const stream of streams) stream.on("error", () => {});
    await eventually(() => expect(most).toBe(220));
    expect(sessions.size).toBe(5);
    for (const stream of streams) stream.close();
    await eventually(() => expect(sessions.size).toBe(1));
    client.close();
    server.close();
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

  test("what streams leave unsent does not add up until the connection refuses calls", async () => {
    const sessions = new Set<unknown>();
    const server = createHttp2Server();
    server.on("session", (session) => sessions.add(session));
    server.on("stream", (stream) => {
      stream.on("error", () => {});
      stream.respond({ "content-type": "application/grpc", "grpc-status": "8" }, { endStream: true });
      setImmediate(() => stream.close(0));
    });
    const port = await listen(server);
    using client = appClient(port);
    // Without a new connection in between, node would refuse streams after 512 MB.
    for (let i = 0; i < 140; i++) {
      const abort = new AbortController();
      const stream = await client.open("/t.T/Full", [], abort.signal);
      stream.on("error", () => {});
      const closed = new Promise((resolve) => stream.once("close", resolve));
      const answered = once(stream, "response");
      stream.resume();
      stream.write(Buffer.alloc(4 * MiB));
      expect((await answered)[0]["grpc-status"]).toBe("8");
      abort.abort();
      await closed;
    }
    expect(sessions.size).toBeGreaterThan(3);
    client.close();
    server.close();
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
