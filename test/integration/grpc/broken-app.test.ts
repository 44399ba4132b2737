/** The client of gRPC apps against apps that reset, refuse, go away, or are no gRPC server at all. */
import { createServer as createHttpServer } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { createServer as createTcpServer } from "node:net";
import { describe, expect, test } from "vitest";
import { encodeFrame } from "../../../src/lib/grpc-wire.ts";
import { never, appClient, failure, listen } from "./app-fixture.ts";

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
