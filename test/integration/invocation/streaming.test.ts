// Bodies of any size and of unknown length over HTTP, through two sidecars: live both ways, flat memory, a slow reader
// slows the writer, and whatever breaks on the way is told to both ends and never looks like a whole body.
// Size: one app and two sidecars serve all of these; starting them is what takes time.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HTTPExtension_Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { eventually, grpcClient, startGrpcApp, startNats, startSidecar } from "../../kit/index.ts";
import type { Nats, Sidecar } from "../../kit/index.ts";
import { residentMb } from "../../load/process-usage.ts";

type StreamApp = AsyncDisposable & {
  readonly port: number;
  /** Answers of one path. */
  on(path: string, handler: (request: IncomingMessage, response: ServerResponse) => void): void;
};

/** An app that works on the raw streams; the kit's reads bodies whole. */
async function startStreamApp(): Promise<StreamApp> {
  const handlers = new Map<string, (request: IncomingMessage, response: ServerResponse) => void>();
  const server = createServer((request, response) => {
    request.on("error", () => {});
    response.on("error", () => {});
    (handlers.get(request.url ?? "") ?? echo)(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    on: (path, handler) => void handlers.set(path, handler),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const echo = (request: IncomingMessage, response: ServerResponse): void => void request.pipe(response);

let stack: AsyncDisposableStack;
let nats: Nats;
let app: StreamApp;
let caller: Sidecar;
let callee: Sidecar;
const MB = 1024 * 1024;
/** What may be on its way inside the processes: a window of the mesh, and some reads and writes on either side. */
const inProcesses = 4 * MB;

/**
 * Bytes that the kernel holds in connections with one of these ports. Its buffers grow to tens of megabytes when a
 * reader is slow, which is nothing that we could bound.
 */
function inKernel(ports: readonly number[]): number {
  const wanted = new Set(ports.map((port) => port.toString(16).toUpperCase().padStart(4, "0")));
  let sum = 0;
  for (const line of readFileSync("/proc/net/tcp", "utf8").split("\n").slice(1)) {
    const [, local, remote, , queues] = line.trim().split(/\s+/);
    if (local === undefined || remote === undefined || queues === undefined) continue;
    if (!wanted.has(local.split(":")[1]!) && !wanted.has(remote.split(":")[1]!)) continue;
    for (const queue of queues.split(":")) sum += Number.parseInt(queue, 16);
  }
  return sum;
}

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(await startStreamApp());
  const flags = ["--max-body-size=200Mi"];
  callee = stack.use(await startSidecar({ appId: "callee", appPort: app.port, nats, flags }));
  caller = stack.use(await startSidecar({ appId: "caller", nats, flags }));
});
afterAll(() => stack.disposeAsync());

type Open = {
  readonly request: ReturnType<typeof httpRequest>;
  /** Head of the answer. */
  readonly answer: Promise<IncomingMessage>;
};

/** A request whose body is written by hand. */
function open(sidecar: Sidecar, path: string, headers: Record<string, string> = {}, method = "POST"): Open {
  const request = httpRequest(`${sidecar.httpUrl}${path}`, { method, headers, agent: false });
  const answer = new Promise<IncomingMessage>((resolve, reject) => {
    request.once("response", resolve);
    request.once("error", reject);
  });
  answer.catch(() => {});
  request.on("error", () => {});
  return { request, answer };
}

const invoke = (path: string): string => `/v1.0/invoke/callee/method${path}`;

/** Whole body; rejects when it is cut off. */
async function read(answer: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of answer) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

async function next(answer: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    answer.once("data", (piece: Buffer) => {
      answer.pause();
      resolve(piece.toString());
    });
    answer.once("error", reject);
    answer.once("close", () => reject(new Error("closed")));
    answer.resume();
  });
}

/** Writes `bytes` in pieces as fast as they are taken; stops when the connection is gone. */
async function pour(
  sink: NodeJS.WritableStream,
  bytes: number,
  piece = Buffer.alloc(64 * 1024, "w"),
): Promise<void> {
  let gone = false;
  sink.once("close", () => (gone = true));
  for (let left = bytes; left > 0 && !gone; left -= piece.length) {
    if (sink.write(left >= piece.length ? piece : piece.subarray(0, left))) continue;
    await new Promise<void>((resolve) => {
      sink.once("drain", resolve);
      sink.once("close", resolve);
    });
  }
  if (!gone) sink.end();
}

/** The sidecars live on, and the way through them is free. */
async function working(): Promise<void> {
  const { request, answer } = open(caller, invoke("/echo"));
  request.end("still here");
  expect((await read(await answer)).toString()).toBe("still here");
}

describe("both directions", () => {
  test("64 MB each way at once, unknown length: unchanged, and memory stays flat", async () => {
    await working();
    const before = [residentMb(caller.pid), residentMb(callee.pid)];
    const peak = [0, 0];
    const sampler = setInterval(() => {
      for (const [i, { pid }] of [caller, callee].entries()) peak[i] = Math.max(peak[i]!, residentMb(pid));
    }, 50);
    const { request, answer } = open(caller, invoke("/echo"));
    const sent = createHash("sha256");
    const got = createHash("sha256");
    const piece = Buffer.from(Array.from({ length: 65_536 }, (_, i) => (i * 31) % 251));
    for (let i = 0; i < 1024; i++) sent.update(piece);
    const writing = pour(request, 64 * MB, piece);
    let size = 0;
    for await (const part of await answer) {
      size += (part as Buffer).length;
      got.update(part as Buffer);
    }
    await writing;
    clearInterval(sampler);
    expect(size).toBe(64 * MB);
    expect(got.digest("hex")).toBe(sent.digest("hex"));
    console.log(`resident MB before ${before.map(Math.round).join()}, peak ${peak.map(Math.round).join()}`);
    // Whole bodies on either side would be 64 MB and more in each direction. (test/load/stream.ts does it with 1 GiB.)
    for (const i of [0, 1]) expect(peak[i]! - before[i]!).toBeLessThan(64);
  });

  test("live: each piece comes back before the next is written", async () => {
    const { request, answer } = open(caller, invoke("/echo"));
    request.flushHeaders();
    for (const text of ["one", "two", "three"]) {
      request.write(text);
      expect(await next(await answer)).toBe(text);
    }
    request.end();
    expect((await read(await answer)).length).toBe(0);
  });

  test("self-calls stream without the mesh", async () => {
    const { request, answer } = open(callee, invoke("/echo"));
    for (const text of ["one", "two"]) {
      request.write(text);
      expect(await next(await answer)).toBe(text);
    }
    request.end();
    await read(await answer);
  });

  test.each([1, 65_536, 262_143, 262_144, 262_145, 1_048_576, 3_000_001])(
    "%d bytes of known length keep it",
    async (size) => {
      app.on("/length", (incoming, response) => {
        let taken = 0;
        incoming.on("data", (piece: Buffer) => (taken += piece.length));
        incoming.on("end", () => response.end(`${incoming.headers["content-length"]} ${taken}`));
      });
      const { request, answer } = open(caller, invoke("/length"), { "content-length": String(size) });
      await pour(request, size);
      expect((await read(await answer)).toString()).toBe(`${size} ${size}`);
    },
  );

  test("an answer of known length is whole when short, in chunks when long", async () => {
    for (const size of [0, 10, 100_000, 5_000_000]) {
      app.on(
        "/bytes",
        (_incoming, response) =>
          void response.writeHead(200, { "content-length": size }).end(Buffer.alloc(size)),
      );
      const { request, answer } = open(caller, invoke("/bytes"), {}, "GET");
      request.end();
      expect((await read(await answer)).length).toBe(size);
      const { headers } = await answer;
      expect(headers["content-length"] ?? headers["transfer-encoding"]).toBe(
        size > 262_144 ? "chunked" : String(size),
      );
    }
  });

  test("a slow reader slows the app; a slow app slows the client", async () => {
    let written = 0;
    app.on("/flood", (_incoming, response) => {
      const piece = Buffer.alloc(65_536);
      const step = (): void => {
        while (!response.destroyed) {
          written += piece.length;
          if (!response.write(piece)) return void response.once("drain", step);
        }
      };
      step();
    });
    const down = open(caller, invoke("/flood"), {}, "GET");
    down.request.end();
    (await down.answer).pause();
    const ports = [app.port, nats.port, caller.httpPort];
    expect((await standsStill(() => written)) - inKernel(ports)).toBeLessThan(inProcesses);
    down.request.destroy();

    app.on("/deaf", (incoming) => void incoming.pause());
    const up = open(caller, invoke("/deaf"));
    let sent = 0;
    const fill = (): void => {
      while (!up.request.destroyed) {
        sent += 65_536;
        if (!up.request.write(Buffer.alloc(65_536))) return void up.request.once("drain", fill);
      }
    };
    fill();
    expect((await standsStill(() => sent)) - inKernel(ports)).toBeLessThan(inProcesses);
    up.request.destroy();
    await working();
  });

  /** The value once it has not changed for a while. */
  async function standsStill(value: () => number): Promise<number> {
    let last = -1;
    let sinceMs = performance.now();
    await eventually(
      () => {
        if (value() !== last) {
          last = value();
          sinceMs = performance.now();
        }
        return last > 0 && performance.now() - sinceMs > 700;
      },
      { timeoutMs: 30_000 },
    );
    return last;
  }
});

describe("an answer", () => {
  test("server-sent events are relayed one by one with the headers that make them live", async () => {
    const more = Promise.withResolvers<void>();
    app.on("/events", (_incoming, response) => {
      response.writeHead(200, { "content-type": "text/plain", "x-app": "1" });
      response.write("data: 1\n\n");
      void more.promise.then(() => response.end("data: 2\n\n"));
    });
    const headers = { accept: "text/event-stream", connection: "keep-alive" };
    const { request, answer } = open(caller, invoke("/events"), headers, "GET");
    request.end();
    expect((await answer).headers).toMatchObject({
      "content-type": "text/event-stream",
      "cache-control": "no-cache",
      connection: "keep-alive",
      "x-app": "1",
    });
    expect(await next(await answer)).toBe("data: 1\n\n");
    more.resolve();
    expect((await read(await answer)).toString()).toBe("data: 2\n\n");
  });

  test("server-sent events that the app refuses are an error of the sidecar; of a self-call the app's", async () => {
    app.on("/refused", (_incoming, response) => void response.writeHead(403).end("no"));
    const headers = { accept: "text/event-stream" };
    const remote = await caller.get(invoke("/refused"), headers);
    expect(remote.status).toBe(500);
    expect(remote.json()).toEqual({
      errorCode: "ERR_DIRECT_INVOKE",
      message:
        "failed to invoke, id: callee, err: rpc error: code = Internal desc = " +
        "error invoking app channel: no response received from stream",
    });
    expect((await callee.get(invoke("/refused"), headers)).status).toBe(403);
  });

  test("1xx of the app stay behind; 100 Continue comes from the sidecar", async () => {
    app.on("/early", (incoming, response) => {
      response.writeProcessing();
      response.writeEarlyHints({ link: "</a>; rel=preload" });
      echo(incoming, response);
    });
    const { request, answer } = open(caller, invoke("/early"), { expect: "100-continue" });
    const seen: number[] = [];
    request.on("information", ({ statusCode }) => seen.push(statusCode));
    request.flushHeaders();
    await new Promise((resolve) => request.once("continue", resolve));
    request.end("body");
    expect((await read(await answer)).toString()).toBe("body");
    expect(seen.filter((status) => status !== 100)).toEqual([]);
  });

  test("that comes before the body is read arrives, and the client may stop", async () => {
    app.on("/teapot", (_incoming, response) => void response.writeHead(418).end("short and stout"));
    const { request, answer } = open(caller, invoke("/teapot"));
    void pour(request, 150 * MB);
    expect((await answer).statusCode).toBe(418);
    expect((await read(await answer)).toString()).toBe("short and stout");
    request.destroy();
    await working();
  });

  test.each([
    ["chunked", "Transfer-Encoding: chunked", invoke("/teapot"), 418],
    ["of a known length", `Content-Length: ${100 * MB}`, invoke("/teapot"), 418],
    ["above the limit", `Content-Length: ${300 * MB}`, invoke("/echo"), 500],
    ["that nobody reads", "Transfer-Encoding: chunked", "/v1.0/nothing", 404],
  ])(
    "ends a connection for writing only while a body %s still comes",
    async (_name, framing, path, status) => {
      app.on("/teapot", (_incoming, response) => void response.writeHead(418).end("short and stout"));
      const piece = `ffff\r\n${"w".repeat(0xffff)}\r\n`;
      const head = `POST ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${framing}\r\n\r\n`;
      /** Goes on writing after the answer; resolves with what that came to, and with how long all of it took. */
      const attempt = async (): Promise<{ failed: Error | undefined; tookMs: number }> => {
        const socket = connect({ port: caller.httpPort, host: "127.0.0.1", allowHalfOpen: true });
        using _socket = { [Symbol.dispose]: () => void socket.destroy() };
        let failed: Error | undefined;
        socket.on("error", (error) => (failed = error));
        const startMs = performance.now();
        socket.write(head + piece);
        let got = "";
        socket.on("data", (data: Buffer) => (got += data.toString()));
        await once(socket, "end");
        expect(got).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
        for (let i = 0; i < 5; i++) {
          await new Promise((resolve) => socket.write(piece, resolve));
          await working();
        }
        const closed = socket.closed ? undefined : new Promise((resolve) => socket.once("close", resolve));
        socket.end("0\r\n\r\n");
        await closed;
        return { failed, tookMs: performance.now() - startMs };
      };
      // The body may pass by for 2 s. A machine that needs longer has shown nothing.
      let shown = await attempt();
      for (let i = 0; i < 5 && shown.tookMs > 1_500; i++) shown = await attempt();
      expect(shown.failed).toBeUndefined();
    },
  );

  test("behind another one on its connection lets a body pass by for a while only", async () => {
    const first = Promise.withResolvers<ServerResponse>();
    app.on("/late", (_incoming, response) => first.resolve(response));
    const socket = connect({ port: caller.httpPort, host: "127.0.0.1" });
    using _socket = { [Symbol.dispose]: () => void socket.destroy() };
    socket.on("error", () => {});
    const head = (path: string): string =>
      `POST ${path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n`;
    socket.write(`${head(invoke("/late"))}0\r\n\r\n${head("/v1.0/nothing")}`);
    let got = "";
    let closed = false;
    socket.on("data", (data: Buffer) => (got += data.toString()));
    socket.on("close", () => (closed = true));
    (await first.promise).end("late");
    await eventually(() => expect(got).toMatch(/^HTTP\/1.1 200 [^]*HTTP\/1.1 404 /));
    await eventually(
      () => {
        socket.write("5\r\nhello\r\n");
        expect(closed).toBe(true);
      },
      { timeoutMs: 30_000 },
    );
  });

  test("without Content-Type is given one from its first bytes, also when it streams", async () => {
    const more = Promise.withResolvers<void>();
    app.on("/untyped", (_incoming, response) => {
      response.write("text first");
      void more.promise.then(() => response.end("\u0000binary later"));
    });
    const { request, answer } = open(caller, invoke("/untyped"), {}, "GET");
    request.end();
    expect((await answer).headers["content-type"]).toBe("text/plain; charset=utf-8");
    more.resolve();
    expect((await read(await answer)).toString()).toBe("text first\u0000binary later");
  });
});

describe("a body above --max-body-size", () => {
  let small: Sidecar;
  beforeAll(async () => {
    small = stack.use(
      await startSidecar({ appId: "small", appPort: app.port, nats, flags: ["--max-body-size=1Mi"] }),
    );
  });
  const failure = (id: string, reason: string): unknown => ({
    errorCode: "ERR_DIRECT_INVOKE",
    message: `failed to invoke, id: ${id}, err: ${reason}`,
  });
  const url = (): string => `"http://127.0.0.1:${app.port}/sink"`;
  beforeAll(() =>
    app.on("/sink", (incoming, response) => void incoming.resume().on("end", () => response.end("taken"))),
  );

  test.each([
    ["another app, chunked", "callee", false, () => "stream too large"],
    [
      "another app, known length",
      "callee",
      true,
      () =>
        `rpc error: code = Internal desc = error invoking app channel: Post ${url()}: net/http: HTTP/1.x ` +
        `transport connection broken: http: ContentLength=${3 * MB} with Body length ${MB}`,
    ],
    ["its own app, chunked", "small", false, () => `Post ${url()}: stream too large`],
    ["its own app, known length", "small", true, () => `Post ${url()}: stream too large`],
  ])(
    "to %s: 500 with the words of the contract, then the connection closes",
    async (_name, id, known, reason) => {
      const headers: Record<string, string> = known ? { "content-length": String(3 * MB) } : {};
      const { request, answer } = open(small, `/v1.0/invoke/${id}/method/sink`, headers);
      void pour(request, 3 * MB);
      const got = await answer;
      expect(got.statusCode).toBe(500);
      expect(got.headers.connection).toBe("close");
      expect(JSON.parse((await read(got)).toString())).toEqual(failure(id, reason()));
    },
  );

  test("that just fits passes; the limit of the callee does not matter", async () => {
    for (const [sidecar, id] of [
      [small, "callee"],
      [caller, "small"],
    ] as const) {
      const { request, answer } = open(sidecar, `/v1.0/invoke/${id}/method/sink`);
      await pour(request, sidecar === small ? MB : 2 * MB);
      expect((await read(await answer)).toString()).toBe("taken");
    }
  });
});

describe("what breaks", () => {
  test("the client goes away while it sends: the app's request is aborted", async () => {
    const [begun, aborted] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    app.on("/upload", (incoming) => {
      incoming.once("data", () => begun.resolve());
      incoming.once("close", () => incoming.complete || aborted.resolve());
    });
    const { request } = open(caller, invoke("/upload"));
    request.write("begun");
    await begun.promise;
    request.destroy();
    await aborted.promise;
    await working();
  });

  test("the client goes away while it reads: the app's answer is aborted", async () => {
    const closed = Promise.withResolvers<void>();
    app.on("/endless", (_incoming, response) => {
      void pour(response, Number.MAX_SAFE_INTEGER);
      response.once("close", () => closed.resolve());
    });
    const { request, answer } = open(caller, invoke("/endless"), {}, "GET");
    request.end();
    await next(await answer);
    request.destroy();
    await closed.promise;
    await working();
  });

  test.each(["chunked", "known length", "SSE"])(
    "the app dies in the midst of its answer (%s): never a clean end",
    async (kind) => {
      let die: (() => void) | undefined;
      app.on("/dies", (_incoming, response) => {
        response.writeHead(200, kind === "known length" ? { "content-length": 5_000_000 } : {});
        response.write(Buffer.alloc(400_000));
        die = () => void response.destroy();
      });
      const headers: Record<string, string> = kind === "SSE" ? { accept: "text/event-stream" } : {};
      for (const sidecar of [caller, callee]) {
        const { request, answer } = open(sidecar, invoke("/dies"), headers, "GET");
        request.end();
        const reading = read(await answer);
        die!();
        await expect(reading).rejects.toThrow();
      }
    },
  );

  test("to an HTTP/1.0 client, which knows the end by the close, the connection is reset", async () => {
    let die: (() => void) | undefined;
    app.on("/dies", (_incoming, response) => {
      response.write("part");
      die = () => void response.destroy();
    });
    const outcome = await new Promise<string>((resolve) => {
      const socket = connect(caller.httpPort, "127.0.0.1", () =>
        socket.write(`GET ${invoke("/dies")} HTTP/1.0\r\n\r\n`),
      );
      let got = "";
      socket.on("data", (data: Buffer) => {
        got += data.toString();
        if (got.endsWith("part")) die!();
      });
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
      socket.once("end", () => resolve("clean end"));
    });
    expect(outcome).toBe("ECONNRESET");
  });

  test("the callee's sidecar is killed during a 100 MB upload: a defined error at once", async () => {
    await using doomed = await startSidecar({ appId: "doomed", appPort: app.port, nats });
    const reached = Promise.withResolvers<void>();
    app.on("/slow", (incoming) => {
      let taken = 0;
      incoming.on("data", (piece: Buffer) =>
        (taken += piece.length) > 2_000_000 ? (incoming.pause(), reached.resolve()) : 0,
      );
    });
    const { request, answer } = open(caller, "/v1.0/invoke/doomed/method/slow");
    void pour(request, 100 * MB);
    await reached.promise;
    const startMs = performance.now();
    await doomed.kill("SIGKILL");
    const got = await answer;
    expect(got.statusCode).toBe(500);
    expect((await read(got)).toString()).toContain(
      "failed to invoke, id: doomed, err: rpc error: code = Unavailable",
    );
    // Before the limit of 16 s for silence.
    expect(performance.now() - startMs).toBeLessThan(14_000);
    await working();
  });

  test("NATS restarts in the midst of a stream: the client is cut off, and new calls work", async () => {
    app.on("/tick", (_incoming, response) => {
      const timer = setInterval(() => response.write("tick"), 20);
      response.once("close", () => clearInterval(timer));
    });
    const { request, answer } = open(caller, invoke("/tick"), {}, "GET");
    request.end();
    await next(await answer);
    await nats.restart();
    await expect(read(await answer)).rejects.toThrow();
    await eventually(working, { timeoutMs: 30_000 });
  });
});

test("a concurrency slot is held until the answer has been read", async () => {
  await using one = await startSidecar({
    appId: "one",
    appPort: app.port,
    nats,
    flags: ["--app-max-concurrency=1"],
  });
  const finish = Promise.withResolvers<void>();
  app.on("/first", (_incoming, response) => {
    response.write("begun");
    void finish.promise.then(() => response.end());
  });
  let second = false;
  app.on("/second", (_incoming, response) => {
    second = true;
    response.end("second");
  });
  const first = open(caller, "/v1.0/invoke/one/method/first", {}, "GET");
  first.request.end();
  await next(await first.answer);
  const other = caller.get("/v1.0/invoke/one/method/second");
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(second).toBe(false);
  finish.resolve();
  await read(await first.answer);
  expect((await other).text).toBe("second");
  void one;
});

test("gRPC callers and apps have whole messages, also above NATS' max_payload", async () => {
  const flags = ["--max-body-size=16Mi"];
  await using grpcApp = await startGrpcApp({
    onInvoke: ({ data, contentType }) => ({ data: { value: data?.value ?? new Uint8Array(0) }, contentType }),
  });
  await using grpcCallee = await startSidecar({
    appId: "grpc",
    appPort: grpcApp.port,
    appProtocol: "grpc",
    nats,
    flags,
  });
  await using grpcCaller = await startSidecar({ appId: "gcaller", nats, flags });
  const body = Buffer.alloc(5 * MB, "g");
  const { request, answer } = open(grpcCaller, "/v1.0/invoke/grpc/method/echo");
  void pour(request, body.length, Buffer.alloc(65_536, "g"));
  expect((await read(await answer)).equals(body)).toBe(true);
  using client = grpcClient(grpcCaller.grpcPort);
  for (const id of ["grpc", "callee"]) {
    const message = {
      method: "echo",
      data: { value: body },
      httpExtension: { verb: HTTPExtension_Verb.POST },
    };
    const reply = await client.unary(Dapr.method.invokeService, { id, message });
    expect(Buffer.from(reply.data!.value).equals(body)).toBe(true);
  }
  void grpcCallee;
});
