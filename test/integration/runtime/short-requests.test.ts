// HTTP/1.1 connections whose requests are short: answered without node's HTTP server until something else comes.
// What a client sees must be the same on both sides of that change.
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, AppRequest, Nats, Sidecar } from "../../kit/index.ts";
import { nativeComponents } from "./resources.ts";

let nats: Nats;
let app: App;
let sidecar: Sidecar;

beforeAll(async () => {
  nats = await startNats();
  app = await startApp({
    fallback: (request) => ({
      status: request.path === "/none" ? 204 : 200,
      headers: { "x-seen": "yes", "x-two": ["a", "b"] },
      body: `${request.method} ${request.path} ${request.body.length}`,
    }),
  });
  const resources = { "c.yaml": nativeComponents };
  sidecar = await startSidecar({ appId: "short", appPort: app.port, nats, resources });
});

afterAll(async () => {
  await sidecar[Symbol.asyncDispose]();
  await app[Symbol.asyncDispose]();
  await nats[Symbol.asyncDispose]();
});

const head = (line: string, headers: readonly string[] = []): string =>
  [`${line} HTTP/1.1`, "Host: x", ...headers, "", ""].join("\r\n");
const post = (path: string, body: string, ...headers: string[]): string =>
  head(`POST ${path}`, [`Content-Length: ${body.length}`, "Content-Type: application/json", ...headers]) +
  body;
const invoke = (body: string, ...headers: string[]): string =>
  post("/v1.0/invoke/short/method/x", body, ...headers);
const health = head("GET /v1.0/healthz");
/** A header that says nothing to us, and makes the connection node's. */
const byNode = "Proxy-Connection: keep-alive";

/** One connection whose answers are read one by one. */
class Client {
  readonly socket: Socket;
  #seen = "";

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => (this.#seen += chunk.toString("latin1")));
  }

  /** An answer with Content-Length, or none of a body. */
  async answer(): Promise<string> {
    for (;;) {
      const end = this.#seen.indexOf("\r\n\r\n");
      const length = Number(/^content-length: (\d+)/im.exec(this.#seen.slice(0, Math.max(0, end)))?.[1] ?? 0);
      if (end >= 0 && this.#seen.length >= end + 4 + length) {
        const text = this.#seen.slice(0, end + 4 + length);
        this.#seen = this.#seen.slice(text.length);
        return text;
      }
      await once(this.socket, "data");
    }
  }

  async ask(text: string): Promise<string> {
    this.socket.write(text, "latin1");
    return this.answer();
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

async function open(port = sidecar.httpPort): Promise<Client> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  return new Client(socket);
}

describe("the same answer as from node, byte by byte", () => {
  test.each([
    ["a 204", health],
    ["JSON", head("GET /v1.0/metadata")],
    ["plain text", head("GET /v1.0/state/statestore/a%zz")],
    ["an error", post("/v1.0/publish/nowhere/t", "{}")],
    ["a body that is no JSON", post("/v1.0/state/statestore", "{")],
    ["saving", post("/v1.0/state/statestore", '[{"key":"k","value":"v"}]')],
    ["reading", head("GET /v1.0/state/statestore/k")],
    ["reading what is not there", head("GET /v1.0/state/statestore/none")],
    ["removing", head("DELETE /v1.0/state/statestore/none")],
    ["publishing", post("/v1.0/publish/pubsub/t", "{}")],
    ["invocation, with headers of the app", invoke("abc")],
    ["invocation without a body", head("PUT /v1.0/invoke/short/method/x/y?z=%20")],
    ["invocation, answered with a 204", post("/v1.0/invoke/short/method/none", "abc")],
    ["invocation with odd headers", invoke("abc", "X-Odd:\t\u00e4 ", "x-odd: 2", "Cookie: a=1", "cookie: b")],
    ["another app", post("/v1.0/invoke/nobody/method/x", "abc")],
    ["no route", head("GET /nowhere")],
    ["OPTIONS", head("OPTIONS /v1.0/metadata")],
  ])("%s", async (_name, text) => {
    const plain = (answer: string): string =>
      answer
        .replace(/^Date: .*$/m, "Date: …")
        .replace(/traceparent: \S+/gi, "traceparent: …")
        .replace(/"etag":"\d+"|ETag: \S+/gi, "etag")
        .replace(/"activeActorsCount".*/, "");
    using short = await open();
    using node = await open();
    const answer = plain(await short.ask(text));
    expect(answer).toBe(plain(await node.ask(text.replace("Host: x", `Host: x\r\n${byNode}`))));
    expect(answer).toMatch(
      /^HTTP\/1\.1 \d{3} [\s\S]*\r\nConnection: keep-alive\r\nKeep-Alive: timeout=120\r\n/,
    );
    // Both connections go on.
    expect(await short.ask(health)).toMatch(/ 204 /);
    expect(await node.ask(health)).toMatch(/ 204 /);
  });

  test("the app sees the same request", async () => {
    const seen = async (...headers: string[]): Promise<AppRequest> => {
      using client = await open();
      await client.ask(invoke("abc", "X-One: 1", "x-one: 2", ...headers));
      return app.requests.at(-1)!;
    };
    const [short, node] = [await seen(), await seen(byNode)];
    const bare = ({ headers }: AppRequest): unknown => ({ ...headers, traceparent: undefined });
    expect(bare(short)).toEqual(bare(node));
    expect(short.body.toString()).toBe("abc");
  });
});

describe("requests in pieces", () => {
  test("cut in two at every place", async () => {
    const text = invoke("abcdef");
    for (let at = 1; at < text.length; at++) {
      using client = await open();
      client.socket.setNoDelay(true);
      await new Promise((resolve) => client.socket.write(text.slice(0, at), resolve));
      await new Promise((resolve) => setImmediate(resolve));
      expect(await client.ask(text.slice(at))).toMatch(/ 200 [\s\S]*POST \/x 6$/);
    }
  });

  test("a body that comes later, byte by byte, and the next request with its last one", async () => {
    using client = await open();
    const text = invoke("abcdef");
    client.socket.setNoDelay(true);
    for (const byte of text.slice(0, -1)) await new Promise((resolve) => client.socket.write(byte, resolve));
    expect(await client.ask(text.slice(-1) + health)).toMatch(/ 200 [\s\S]*POST \/x 6$/);
    expect(await client.answer()).toMatch(/ 204 /);
    using whole = await open();
    const start = whole.ask(text.slice(0, -6));
    whole.socket.write("abcdef");
    expect(await start).toMatch(/POST \/x 6$/);
  });

  test("a hundred at once are answered in order, and those that go to node too", async () => {
    using client = await open();
    const texts = Array.from({ length: 100 }, (_, i) =>
      i === 60
        ? head("POST /v1.0/invoke/short/method/x", ["Transfer-Encoding: chunked"]) + "3\r\nabc\r\n0\r\n\r\n"
        : invoke("x".repeat(i)),
    );
    client.socket.write(texts.join(""), "latin1");
    for (let i = 0; i < 100; i++)
      expect(await client.answer()).toMatch(new RegExp(` 200 [\\s\\S]*POST /x ${i === 60 ? 3 : i}$`));
  });

  test("a large body makes the connection node's, and it stays whole", async () => {
    using client = await open();
    expect(await client.ask(invoke("abc"))).toMatch(/POST \/x 3$/);
    for (const size of [262_144, 262_145, 1_000_000, 10])
      expect(await client.ask(invoke("x".repeat(size)))).toMatch(new RegExp(`POST /x ${size}$`));
  });
});

describe("what is wrong", () => {
  test.each([
    ["a broken header", health.replace("Host", "Ho st"), 400],
    ["no host", "GET /v1.0/healthz HTTP/1.1\r\nX: y\r\n\r\n", 400],
    ["a length and chunks", invoke("abc", "Transfer-Encoding: chunked"), 400],
    ["nonsense", "\x16\x03\x01\r\n\r\n", 400],
  ])("%s behind good requests", async (_name, text, status) => {
    using client = await open();
    expect(await client.ask(health)).toMatch(/ 204 /);
    const ended = once(client.socket, "close");
    expect(await client.ask(text)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    await ended;
  });

  test("a request in a body is a body", async () => {
    using client = await open();
    const smuggled = head("DELETE /v1.0/state/statestore/kept");
    await client.ask(post("/v1.0/state/statestore", '[{"key":"kept","value":1}]'));
    expect(await client.ask(invoke(smuggled))).toMatch(new RegExp(`POST /x ${smuggled.length}$`));
    expect(await client.ask(head("GET /v1.0/state/statestore/kept"))).toMatch(/\r\n\r\n1$/);
  });

  test("a body that breaks off is never handled; the sidecar goes on", async () => {
    const before = app.requests.length;
    const client = await open();
    client.socket.write(invoke("abcdef").slice(0, -2));
    await new Promise((resolve) => setImmediate(resolve));
    client.socket.destroy();
    expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
    expect(app.requests.length).toBe(before);
  });
});

test("without the token the answer does not wait for the body, and the body is no request", async () => {
  const env = { DAPR_API_TOKEN: "secret" };
  await using closed = await startSidecar({ appId: "closed", nats, env });
  using client = await open(closed.httpPort);
  const text = post("/v1.0/metadata", "x".repeat(100));
  expect(await client.ask(text.slice(0, -50))).toMatch(/ 401 /);
  client.socket.write(text.slice(-50));
  expect(await client.ask(health)).toMatch(/ 204 /);
});

test("a client that goes away ends its call", async () => {
  const entered = Promise.withResolvers<void>();
  const left = Promise.withResolvers<void>();
  const server = createServer((request, response) => {
    if (request.url !== "/wait") return void response.end();
    response.once("close", () => left.resolve());
    entered.resolve();
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  await using waiting = await startSidecar({ appId: "waiting", appPort: port, nats });
  const client = await open(waiting.httpPort);
  client.socket.write(head("GET /v1.0/invoke/waiting/method/wait"));
  await entered.promise;
  client.socket.destroy();
  await left.promise;
  server.close();
});

test("a stop closes idle connections and lets the last answer out", async () => {
  const entered = Promise.withResolvers<void>();
  const leave = Promise.withResolvers<void>();
  await using slow = await startApp({
    fallback: async (request) => {
      if (request.path !== "/wait") return { body: "" };
      entered.resolve();
      await leave.promise;
      return { body: "the last one" };
    },
  });
  await using ending = await startSidecar({ appId: "ending", appPort: slow.port, nats });
  using idle = await open(ending.httpPort);
  await idle.ask(health);
  using busy = await open(ending.httpPort);
  busy.socket.write(head("GET /v1.0/invoke/ending/method/wait"));
  await entered.promise;
  const [idleEnded, busyEnded] = [once(idle.socket, "close"), once(busy.socket, "close")];
  const stopped = ending.stop();
  await idleEnded;
  leave.resolve();
  expect(await busy.answer()).toMatch(/ 200 [\s\S]*Connection: close[\s\S]*the last one$/);
  await busyEnded;
  expect(await stopped).toBe(0);
});

describe("a client that does not read its answers", () => {
  const large = "v".repeat(200_000);
  const many = 300;
  const read = head("GET /v1.0/state/statestore/large");

  beforeAll(async () => {
    const body = JSON.stringify([{ key: "large", value: large }]);
    await sidecar.http("/v1.0/state/statestore", { method: "POST", body });
  });

  async function deaf(port: number): Promise<Socket> {
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => {}).pause();
    await once(socket, "connect");
    return socket;
  }

  /** Reads so many answers. */
  async function drain(socket: Socket, count: number): Promise<void> {
    let size = 0;
    socket.on("data", (chunk: Buffer) => (size += chunk.length)).resume();
    while (size < count * large.length) await once(socket, "data");
    socket.destroy();
    expect(size).toBeLessThan(count * (large.length + 1_000));
  }

  test("holds back its own requests only", async () => {
    const socket = await deaf(sidecar.httpPort);
    for (let i = 0; i < many; i++) socket.write(read);
    for (let i = 0; i < 20; i++) expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
    await drain(socket, many);
  });

  test("holds them back also when it sends them one by one", async () => {
    const resources = { "c.yaml": nativeComponents };
    const flags = ["--enable-api-logging"];
    await using logging = await startSidecar({ appId: "short", nats, resources, flags });
    const socket = await deaf(logging.httpPort);
    const handled = (): number => logging.logs().match(/API Called.*statestore\/large/g)?.length ?? 0;
    let sent = 0;
    for (let held = false; !held && sent < many;) {
      socket.write(read);
      sent++;
      // One that waits never comes, so its time has to run out.
      const came = eventually(() => expect(handled()).toBe(sent), { timeoutMs: 2_000, everyMs: 5 });
      held = await came.then(
        () => false,
        () => true,
      );
    }
    expect(sent).toBeLessThan(many);
    await drain(socket, sent);
    // The last line of the log may come after the answer.
    await eventually(() => expect(handled()).toBe(sent));
  });
});

test("an answer in pieces, and the next request on its connection", async () => {
  let finish = (): void => {};
  const server = createServer((request, response) => {
    if (request.url !== "/pieces") return void response.end();
    response.write("first");
    finish = () => response.end("last");
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  await using streaming = await startSidecar({ appId: "streaming", appPort: port, nats });
  const socket = connect(streaming.httpPort, "127.0.0.1");
  let seen = "";
  socket.on("data", (chunk: Buffer) => (seen += chunk.toString("latin1")));
  const until = async (pattern: RegExp): Promise<void> => {
    while (!pattern.test(seen)) await once(socket, "data");
  };
  for (let i = 0; i < 15; i++) {
    seen = "";
    socket.write(head("GET /v1.0/invoke/streaming/method/pieces"));
    await until(/\r\n5\r\nfirst\r\n$/);
    finish();
    await until(/first\r\n4\r\nlast\r\n0\r\n\r\n$/);
    expect(seen).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*Transfer-Encoding: chunked\r\n/);
  }
  socket.destroy();
  expect(streaming.logs()).not.toContain("MaxListeners");
  server.close();
});
