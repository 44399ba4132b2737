// WebSockets through service invocation: a real server and real clients, two sidecars between them.
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { createServer, type IncomingMessage, request as sendRequest } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { connect, type AddressInfo, type Socket } from "node:net";
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { certificateAuthority } from "../../kit/certificates.ts";
import { eventually, startGrpcApp, startNats, startSidecar } from "../../kit/index.ts";
import type { Nats, Sidecar } from "../../kit/index.ts";

/** An app: echoes messages under /echo, tells what it was asked, refuses under /refused. */
async function startSocketApp(keys?: { cert: string; key: string }) {
  const requests: IncomingMessage[] = [];
  const sockets: WebSocket[] = [];
  const closes: number[] = [];
  const sockets2 = new Set<Socket>();
  const server = keys === undefined ? createServer() : createTlsServer(keys);
  server.on("connection", (socket: Socket) => {
    sockets2.add(socket);
    socket.once("close", () => sockets2.delete(socket));
  });
  const webSockets = new WebSocketServer({
    noServer: true,
    handleProtocols: (offered) => [...offered][0] ?? false,
  });
  server.on("request", (_request, response) => void response.end("plain"));
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    requests.push(request);
    if (request.url === "/refused") {
      return void socket.end("HTTP/1.1 403 Forbidden\r\nX-App: 1\r\nContent-Length: 2\r\n\r\nno");
    }
    webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      sockets.push(webSocket);
      webSocket.on("error", () => {});
      webSocket.on("close", (code) => closes.push(code));
      webSocket.on("message", (data, binary) => webSocket.send(data as Buffer, { binary }));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    sockets,
    closes,
    /** Connections that are open. */
    open: sockets2,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets2) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

type SocketApp = Awaited<ReturnType<typeof startSocketApp>>;

let stack: AsyncDisposableStack;
let nats: Nats;
let app: SocketApp;
let caller: Sidecar;
let callee: Sidecar;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(await startSocketApp());
  const env = { APP_API_TOKEN: "app token" };
  callee = stack.use(await startSidecar({ appId: "callee", appPort: app.port, nats, env }));
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
});

afterAll(() => stack.disposeAsync());

function open(sidecar: Sidecar, path = "/echo", protocols: string[] = [], headers = {}): WebSocket {
  const url = `ws://127.0.0.1:${sidecar.httpPort}/v1.0/invoke/callee/method${path}`;
  const webSocket = new WebSocket(url, protocols, { headers });
  webSocket.on("error", () => {});
  return webSocket;
}

async function message(webSocket: WebSocket): Promise<string> {
  const [data] = (await once(webSocket, "message")) as [Buffer];
  return data.toString();
}

function openFiles({ pid }: Sidecar): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** The head and body of an answer to a handshake that is no 101. */
async function refused(
  sidecar: Sidecar,
  path: string,
  headers = {},
): Promise<{ status: number; text: string }> {
  const handshake = {
    connection: "Upgrade",
    upgrade: "websocket",
    "sec-websocket-key": "AQIDBAUGBwgJCgsMDQ4PEA==",
    "sec-websocket-version": "13",
    ...headers,
  };
  const request = sendRequest({ host: "127.0.0.1", port: sidecar.httpPort, path, headers: handshake });
  request.end();
  const [answer] = (await once(request, "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of answer as AsyncIterable<Buffer>) text += chunk.toString();
  return { status: answer.statusCode ?? 0, text };
}

describe("a WebSocket", () => {
  test("of another app and of the own one: messages both ways, the handshake as the client wrote it", async () => {
    for (const sidecar of [caller, callee]) {
      const webSocket = open(sidecar, "/echo?room=1", ["chat", "other"], { "X-One": "1" });
      await once(webSocket, "open");
      expect(webSocket.protocol).toBe("chat");
      const { url, headers } = app.requests.at(-1)!;
      expect(url).toBe("/echo?room=1");
      expect(headers).toMatchObject({
        "x-one": "1",
        connection: "Upgrade",
        upgrade: "websocket",
        host: `127.0.0.1:${app.port}`,
        "sec-websocket-version": "13",
        "dapr-api-token": "app token",
      });
      expect(headers["weft-upgrade"]).toBeUndefined();
      expect(headers["dapr-caller-app-id"]).toBe(sidecar === caller ? "caller" : undefined);
      for (const text of ["one", "", "x".repeat(100_000)]) {
        webSocket.send(text);
        expect(await message(webSocket)).toBe(text);
      }
      webSocket.close(4_001, "enough");
      const [code, reason] = (await once(webSocket, "close")) as [number, Buffer];
      expect([code, reason.toString()]).toEqual([4_001, "enough"]);
      await eventually(() => app.closes.at(-1) === 4_001 && app.open.size === 0);
    }
  });

  test("by the header dapr-app-id, with node's own client", async () => {
    const webSocket = new WebSocket(`ws://127.0.0.1:${caller.httpPort}/echo`, {
      headers: { "dapr-app-id": "callee" },
    });
    await once(webSocket, "open");
    webSocket.terminate();
    const own = new globalThis.WebSocket(`ws://127.0.0.1:${caller.httpPort}/v1.0/invoke/callee/method/echo`);
    const echoed = new Promise((resolve) => own.addEventListener("message", ({ data }) => resolve(data)));
    own.addEventListener("open", () => own.send("héllo"));
    expect(await echoed).toBe("héllo");
    own.close(1_000);
    await eventually(() => app.closes.includes(1_000));
  });

  test("the app speaks first, pings, and closes with a code of its own", async () => {
    const webSocket = open(caller);
    await once(webSocket, "open");
    const server = app.sockets.at(-1)!;
    server.ping("p");
    await once(server, "pong");
    server.send("from the app");
    expect(await message(webSocket)).toBe("from the app");
    server.close(1_012, "restart");
    const [code, reason] = (await once(webSocket, "close")) as [number, Buffer];
    expect([code, reason.toString()]).toEqual([1_012, "restart"]);
  });

  test("100 at once, each with its own messages in order; nothing is left of them", async () => {
    await eventually(() => app.open.size === 0);
    const before = [caller, callee].map(openFiles);
    const all = await Promise.all(
      Array.from({ length: 100 }, async (_, n) => {
        const webSocket = open(caller);
        await once(webSocket, "open");
        const got: string[] = [];
        webSocket.on("message", (data: Buffer) => got.push(data.toString()));
        for (let i = 0; i < 20; i++) webSocket.send(`${n}-${i}`);
        await eventually(() => got.length === 20);
        webSocket.close();
        return got.every((text, i) => text === `${n}-${i}`);
      }),
    );
    expect(all).toEqual(all.map(() => true));
    await eventually(() => app.open.size === 0);
    await eventually(() => [caller, callee].every((sidecar, i) => openFiles(sidecar) <= before[i]! + 2));
  });

  test("a large message goes through a slow reader, who slows the app", { timeout: 120_000 }, async () => {
    const webSocket = open(caller);
    await once(webSocket, "open");
    const server = app.sockets.at(-1)!;
    webSocket.pause();
    const piece = randomBytes(1024 * 1024);
    for (let i = 0; i < 64; i++) server.send(piece);
    // What the kernel and the credit hold is a fraction of the 64 MB; the rest waits in the app.
    await eventually(() => server.bufferedAmount > 0);
    await expect.poll(() => server.bufferedAmount > 32 * 1024 * 1024, { timeout: 5_000 }).toBe(true);
    let got = 0;
    webSocket.on("message", (data: Buffer) => (got += data.length));
    webSocket.resume();
    await eventually(() => got === 64 * piece.length, { timeoutMs: 60_000 });
    webSocket.close();
  });
});

describe("ends", () => {
  test("the client is gone: the app sees its connection end", async () => {
    for (const how of ["terminate", "reset"] as const) {
      const webSocket = open(caller);
      await once(webSocket, "open");
      const server = app.sockets.at(-1)!;
      if (how === "terminate") webSocket.terminate();
      else (webSocket as unknown as { _socket: Socket })._socket.resetAndDestroy();
      const [code] = (await once(server, "close")) as [number];
      expect(code).toBe(1_006);
    }
    await eventually(() => app.open.size === 0);
  });

  test("the app is gone: the client sees its connection end", async () => {
    const webSocket = open(caller);
    await once(webSocket, "open");
    app.sockets.at(-1)!.terminate();
    const [code] = (await once(webSocket, "close")) as [number];
    expect(code).toBe(1_006);
  });

  test("a sidecar is killed: both ends see it", async () => {
    await using second = await startSidecar({ appId: "killed", appPort: app.port, nats });
    const url = `ws://127.0.0.1:${caller.httpPort}/v1.0/invoke/killed/method/echo`;
    const webSocket = new WebSocket(url);
    webSocket.on("error", () => {});
    await once(webSocket, "open");
    const server = app.sockets.at(-1)!;
    const ended = Promise.all([once(webSocket, "close"), once(server, "close")]);
    await second.kill();
    await ended;
  }, 60_000);

  test("a sidecar is frozen: the other side is told within its liveness", async () => {
    await using frozen = await startSidecar({ appId: "frozen", appPort: app.port, nats });
    const webSocket = new WebSocket(`ws://127.0.0.1:${caller.httpPort}/v1.0/invoke/frozen/method/echo`);
    webSocket.on("error", () => {});
    await once(webSocket, "open");
    const server = app.sockets.at(-1)!;
    await frozen.pause();
    await once(webSocket, "close");
    frozen.resume();
    if (server.readyState !== WebSocket.CLOSED) await once(server, "close");
  }, 90_000);

  test("a stop of either sidecar ends its WebSockets and takes no grace period", async () => {
    for (const which of ["callee", "caller"]) {
      await using one = await startSidecar({ appId: "leaving", appPort: app.port, nats });
      await using two = await startSidecar({ appId: "asking", nats });
      const webSocket = new WebSocket(`ws://127.0.0.1:${two.httpPort}/v1.0/invoke/leaving/method/echo`);
      webSocket.on("error", () => {});
      await once(webSocket, "open");
      const closed = once(webSocket, "close");
      expect(await (which === "callee" ? one : two).stop()).toBe(0);
      await closed;
    }
    await eventually(() => app.open.size === 0);
  });
});

describe("no WebSocket", () => {
  test("the app refuses: its answer", async () => {
    for (const sidecar of [caller, callee]) {
      const path = "/v1.0/invoke/callee/method";
      expect(await refused(sidecar, `${path}/refused`)).toEqual({ status: 403, text: "no" });
    }
  });

  test("an unknown app, an app that is down, one on gRPC or h2c, a route of ours, a missing token", async () => {
    expect((await refused(caller, "/v1.0/invoke/nobody/method/x")).text).toContain(
      "couldn't find service: nobody",
    );
    await using grpcApp = await startGrpcApp();
    const options = { appPort: grpcApp.port, nats };
    await using grpc = await startSidecar({ ...options, appId: "grpc", appProtocol: "grpc" });
    await using h2c = await startSidecar({ ...options, appId: "clear", appProtocol: "h2c" });
    for (const from of [grpc, caller])
      expect((await refused(from, "/v1.0/invoke/grpc/method/x")).text).toContain(
        "a gRPC app takes no WebSocket",
      );
    expect((await refused(h2c, "/v1.0/invoke/clear/method/x")).text).toContain(
      "an app on h2c takes no WebSocket",
    );
    await grpcApp[Symbol.asyncDispose]();
    expect((await refused(caller, "/v1.0/invoke/clear/method/x")).status).toBe(500);
    expect(await refused(caller, "/v1.0/metadata")).toMatchObject({ status: 200 });
    expect((await refused(caller, "/x")).status).toBe(404);
    await using guarded = await startSidecar({ appId: "guarded", nats, env: { DAPR_API_TOKEN: "open" } });
    expect((await refused(guarded, "/v1.0/invoke/callee/method/echo")).status).toBe(401);
  });

  test("a client cannot make one by the name that sidecars use, nor by halves", async () => {
    const plain = await caller.get("/v1.0/invoke/callee/method/x", { "weft-upgrade": "websocket" });
    expect(plain).toMatchObject({ status: 200, text: "plain" });
    const socket = connect(caller.httpPort, "127.0.0.1");
    socket.write("GET /v1.0/invoke/callee/method/x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n");
    const [chunk] = (await once(socket, "data")) as [Buffer];
    expect(chunk.toString()).toMatch(/^HTTP\/1\.1 200 /);
    socket.destroy();
  });
});

test("a server outside, named by its URL", async () => {
  const webSocket = new WebSocket(`ws://127.0.0.1:${caller.httpPort}/echo`, {
    headers: { "dapr-app-id": `http://127.0.0.1:${app.port}` },
  });
  await once(webSocket, "open");
  expect(app.requests.at(-1)!.headers["dapr-caller-app-id"]).toBeUndefined();
  webSocket.send("outside");
  expect(await message(webSocket)).toBe("outside");
  webSocket.close(1_000);
  await once(webSocket, "close");
});

test("a WebSocket holds its slot of --app-max-concurrency until its end", async () => {
  const flags = ["--app-max-concurrency=1"];
  await using narrow = await startSidecar({ appId: "narrow", appPort: app.port, nats, flags });
  const url = `ws://127.0.0.1:${narrow.httpPort}/v1.0/invoke/narrow/method/echo`;
  const first = new WebSocket(url);
  await once(first, "open");
  const before = app.requests.length;
  const second = new WebSocket(url);
  first.send("still alone");
  expect(await message(first)).toBe("still alone");
  expect(app.requests).toHaveLength(before);
  first.close();
  await once(second, "open");
  second.close();
  await once(second, "close");
});

test("an https app is spoken to over TLS", async () => {
  await using authority = await certificateAuthority();
  const { certificate: cert, privateKey: key } = await authority.issue("app", ["elsewhere.test"]);
  await using secure = await startSocketApp({ cert, key });
  await using sidecar = await startSidecar({
    appId: "tls",
    appPort: secure.port,
    appProtocol: "https",
    nats,
  });
  const webSocket = new WebSocket(`ws://127.0.0.1:${sidecar.httpPort}/v1.0/invoke/tls/method/echo`);
  await once(webSocket, "open");
  webSocket.send("over TLS");
  expect(await message(webSocket)).toBe("over TLS");
  webSocket.close();
  await once(webSocket, "close");
});
