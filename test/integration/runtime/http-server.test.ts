// The HTTP port itself: HTTP/1.1 and h2c on one port, limits, odd requests, CORS, the public port.
import { once } from "node:events";
import { existsSync } from "node:fs";
import { connect as connectHttp2, type ClientHttp2Session, type OutgoingHttpHeaders } from "node:http2";
import { connect, createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  eventually,
  freePort,
  httpClient,
  startApp,
  startNats,
  startSidecar,
  tempDir,
} from "../../kit/index.ts";
import type { App, Nats, Sidecar } from "../../kit/index.ts";
import { exchange } from "./raw.ts";
import { nativeComponents } from "./resources.ts";

let nats: Nats;
let app: App;
let sidecar: Sidecar;
let publicPort: number;

beforeAll(async () => {
  nats = await startNats();
  app = await startApp({ fallback: (request) => ({ body: `${request.method} ${request.body.length}` }) });
  publicPort = await freePort();
  sidecar = await startSidecar({
    appId: "edge",
    appPort: app.port,
    nats,
    resources: { "c.yaml": nativeComponents },
    flags: [
      "--allowed-origins=http://one.example,http://*.two.example",
      `--dapr-public-port=${publicPort}`,
      "--dapr-public-listen-address=127.0.0.1",
      "--max-body-size=64Ki",
    ],
    env: { DAPR_API_TOKEN: "secret" },
  });
});

afterAll(async () => {
  await sidecar[Symbol.asyncDispose]();
  await app[Symbol.asyncDispose]();
  await nats[Symbol.asyncDispose]();
});

const token = { "dapr-api-token": "secret" };

type Answer = { readonly status: number; readonly headers: Record<string, unknown>; readonly text: string };

async function http2(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: string,
): Promise<Answer> {
  const stream = session.request({ ...token, ...headers }, { endStream: body === undefined });
  if (body !== undefined) stream.end(body);
  const [answer] = (await once(stream, "response")) as [Record<string, unknown>];
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  return { status: Number(answer[":status"]), headers: answer, text };
}

describe("HTTP/2 on the HTTP port", () => {
  test("by prior knowledge: routes, bodies, invocation, many streams at once", async () => {
    const session = connectHttp2(sidecar.httpUrl);
    expect((await http2(session, { ":path": "/v1.0/healthz" })).status).toBe(204);
    const saved = await http2(
      session,
      { ":path": "/v1.0/state/statestore", ":method": "POST" },
      JSON.stringify([{ key: "k", value: "over h2" }]),
    );
    expect(saved.status).toBe(204);
    const read = await http2(session, { ":path": "/v1.0/state/statestore/k" });
    expect(read).toMatchObject({
      status: 200,
      text: '"over h2"',
      headers: { "content-type": "application/json" },
    });
    const calls = Array.from({ length: 50 }, (_, i) =>
      http2(session, { ":path": "/v1.0/invoke/edge/method/x", ":method": "PUT" }, "x".repeat(i)),
    );
    const texts = (await Promise.all(calls)).map(({ text }) => text);
    expect(texts).toEqual(Array.from({ length: 50 }, (_, i) => `PUT ${i}`));
    // A verb that HTTP/1.1 parsers do not know, and no app id.
    expect((await http2(session, { ":path": "/nowhere", ":method": "BREW" })).text).toContain(
      "ERR_DIRECT_INVOKE",
    );
    session.close();
  });

  test("the token and the size limits hold there too", async () => {
    const session = connectHttp2(sidecar.httpUrl);
    const refused = await http2(session, { ":path": "/v1.0/metadata", "dapr-api-token": "wrong" });
    expect(refused).toMatchObject({ status: 401, text: "invalid api token\n" });
    const large = await http2(session, { ":path": "/v1.0/metadata", "x-large": "a".repeat(9_000) });
    expect(large.status).toBe(431);
    const body = await http2(
      session,
      { ":path": "/v1.0/state/statestore", ":method": "POST" },
      "x".repeat(70_000),
    );
    expect(body).toMatchObject({ status: 400, text: expect.stringContaining("ERR_BODY_READ") });
    expect((await http2(session, { ":path": "/v1.0/healthz" })).status).toBe(204);
    session.close();
  });

  test("a preface in pieces is recognised, a connection that says nothing hurts nobody", async () => {
    const silent = connect(sidecar.httpPort, "127.0.0.1");
    const socket = connect(sidecar.httpPort, "127.0.0.1");
    const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    for (const byte of preface.subarray(0, 5)) {
      await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve));
    }
    socket.write(Buffer.concat([preface.subarray(5), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]));
    const [first] = (await once(socket, "data")) as [Buffer];
    // A SETTINGS frame.
    expect(first[3]).toBe(4);
    socket.destroy();
    expect(
      await exchange(sidecar.httpPort, "PROPFIND / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    ).toMatch(/^HTTP\/1\.1 401 /);
    silent.destroy();
  });

  test("Upgrade: h2c is answered with 101, and the request as stream 1", async () => {
    const socket = connect(sidecar.httpPort, "127.0.0.1");
    const request = [
      "GET /v1.0/metadata HTTP/1.1",
      "Host: x",
      "dapr-api-token: secret",
      `X-Long: ${"a".repeat(300)}`,
      "Connection: Upgrade, HTTP2-Settings",
      "Upgrade: h2c",
      "HTTP2-Settings: AAMAAABkAAQAAP__",
    ];
    socket.write(`${request.join("\r\n")}\r\n\r\n`);
    const [head] = (await once(socket, "data")) as [Buffer];
    expect(head.toString("latin1")).toMatch(
      /^HTTP\/1\.1 101 Switching Protocols\r\n[\s\S]*Upgrade: h2c\r\n\r\n/i,
    );
    const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    socket.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settings]));
    let bytes = head.subarray(head.indexOf("\r\n\r\n") + 4);
    let body = "";
    let status = 0;
    for (let ended = false; !ended;) {
      while (bytes.length >= 9 && bytes.length >= 9 + bytes.readUIntBE(0, 3)) {
        const length = bytes.readUIntBE(0, 3);
        const [type, flags, stream] = [bytes[3], bytes[4]!, bytes.readUInt32BE(5)];
        const payload = bytes.subarray(9, 9 + length);
        bytes = bytes.subarray(9 + length);
        if (stream !== 1) continue;
        // 0x88 is the indexed field `:status: 200`.
        if (type === 1) status = payload[0] === 0x88 ? 200 : -1;
        if (type === 0) body += payload.toString();
        ended ||= (flags & 1) === 1;
      }
      if (!ended) bytes = Buffer.concat([bytes, ((await once(socket, "data")) as [Buffer])[0]]);
    }
    expect(status).toBe(200);
    expect(JSON.parse(body)).toMatchObject({ id: "edge" });
    socket.destroy();
  });

  test("a request with a body does not upgrade, it is answered over HTTP/1.1", async () => {
    const head = [
      "PUT /v1.0/metadata/k HTTP/1.1",
      "Host: x",
      "dapr-api-token: secret",
      "Connection: Upgrade, HTTP2-Settings",
      "Upgrade: h2c",
      "HTTP2-Settings: AAMAAABkAAQAAP__",
      "Content-Length: 1",
    ];
    expect(await exchange(sidecar.httpPort, `${head.join("\r\n")}\r\n\r\nv`, /\r\n\r\n/)).toMatch(
      /^HTTP\/1\.1 204 /,
    );
  });
});

describe("odd requests over HTTP/1.1", () => {
  const get = (line: string, headers: readonly string[] = []): string =>
    [line, "Host: x", "dapr-api-token: secret", "Connection: close", ...headers, "", ""].join("\r\n");

  test.each([
    ["headers above the limit", get("GET /v1.0/metadata HTTP/1.1", [`X-Large: ${"a".repeat(9_000)}`]), 431],
    ["a lot of headers below it", get("GET /v1.0/metadata HTTP/1.1", [`X-Large: ${"a".repeat(7_000)}`]), 200],
    ["a verb that the parser does not know", get("BREW /v1.0/metadata HTTP/1.1"), 404],
    ["a Content-Length with a sign", get("POST /v1.0/metadata HTTP/1.1", ["Content-Length: +5"]), 400],
    ["two Content-Lengths", get("POST /x HTTP/1.1", ["Content-Length: 1", "Content-Length: 2"]), 400],
    ["length and chunks", get("POST /x HTTP/1.1", ["Content-Length: 1", "Transfer-Encoding: chunked"]), 400],
    ["another expectation", get("GET /v1.0/metadata HTTP/1.1", ["Expect: tea"]), 417],
    ["CONNECT", get("CONNECT host:80 HTTP/1.1"), 404],
    ["CONNECT to an app", get("CONNECT host:80 HTTP/1.1", ["dapr-app-id: edge"]), 500],
    ["HEAD of a GET route", get("HEAD /v1.0/metadata HTTP/1.1"), 404],
    ["OPTIONS without CORS headers", get("OPTIONS /v1.0/metadata HTTP/1.1"), 404],
    ["TRACE through invocation", get("TRACE /v1.0/invoke/edge/method/x HTTP/1.1"), 200],
    ["a bad escape in a parameter", get("GET /v1.0/state/statestore/a%zz HTTP/1.1"), 400],
  ])("%s", async (_name, text, status) => {
    expect(await exchange(sidecar.httpPort, text)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  });

  test("a client that never closes its half is cut off", async () => {
    const socket = connect({ port: sidecar.httpPort, host: "127.0.0.1", allowHalfOpen: true });
    using _socket = { [Symbol.dispose]: () => void socket.destroy() };
    let closed = false;
    socket.on("error", () => {}).on("close", () => (closed = true));
    socket.resume().write(get("CONNECT host:80 HTTP/1.1"));
    await once(socket, "end");
    await eventually(() => {
      socket.write("x");
      expect(closed).toBe(true);
    });
  });

  test("HEAD through invocation has the length and no body", async () => {
    const answer = await exchange(sidecar.httpPort, get("HEAD /v1.0/invoke/edge/method/x HTTP/1.1"));
    expect(answer).toMatch(/^HTTP\/1\.1 200 [\s\S]*\r\n\r\n$/);
  });

  test("Expect: 100-continue is told to go on only when the body is wanted", async () => {
    const head = (path: string, size: number): string =>
      get(`POST ${path} HTTP/1.1`, ["Expect: 100-continue", `Content-Length: ${size}`]);
    const wanted = await exchange(
      sidecar.httpPort,
      `${head("/v1.0/invoke/edge/method/x", 3)}abc`,
      /100 Continue\r\n\r\n[\s\S]*POST 3/,
    );
    expect(wanted).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /);
    const refused = await exchange(sidecar.httpPort, head("/v1.0/publish/pubsub/t", 70_000));
    expect(refused).toMatch(/^HTTP\/1\.1 400 /);
    const unknown = await exchange(sidecar.httpPort, head("/v1.0/healthz", 3).replace("secret", "wrong"));
    expect(unknown).toMatch(/^HTTP\/1\.1 401 /);
  });

  test("a body above the limit ends the connection", async () => {
    const text = get("POST /v1.0/publish/pubsub/t HTTP/1.1", ["Content-Length: 999999"]);
    expect(await exchange(sidecar.httpPort, text.replace("Connection: close\r\n", ""))).toMatch(
      /^HTTP\/1\.1 400 [\s\S]*ERR_BODY_READ/,
    );
    const chunked = get("POST /v1.0/publish/pubsub/t HTTP/1.1", ["Transfer-Encoding: chunked"]);
    const chunks = `${chunked.replace("Connection: close\r\n", "")}11170\r\n${"x".repeat(0x11170)}\r\n`;
    expect(await exchange(sidecar.httpPort, chunks)).toMatch(/^HTTP\/1\.1 400 [\s\S]*ERR_BODY_READ/);
  });
});

describe("CORS", () => {
  const ask = (
    headers: Record<string, string>,
    path = "/v1.0/metadata",
    method = "OPTIONS",
  ): Promise<Answer> => sidecar.http(path, { method, headers });

  test("a preflight is answered before the token is asked for", async () => {
    const answer = await ask({
      origin: "http://A.two.example",
      "access-control-request-method": "put",
      "access-control-request-headers": "x-one, content-type",
    });
    expect(answer).toMatchObject({ status: 200, text: "" });
    expect(answer.headers).toMatchObject({
      vary: ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"],
      "access-control-allow-origin": "http://A.two.example",
      "access-control-allow-methods": "PUT",
      "access-control-allow-headers": "X-One, Content-Type",
    });
    const other = await ask({ origin: "http://evil.example", "access-control-request-method": "PUT" });
    expect(other.status).toBe(200);
    expect(other.headers["access-control-allow-origin"]).toBeUndefined();
  });

  test("other answers carry Vary, errors and healthz too, and the origin when it matches", async () => {
    const health = await ask({ origin: "http://one.example" }, "/v1.0/healthz", "GET");
    expect(health.headers).toMatchObject({
      vary: "Origin",
      "access-control-allow-origin": "http://one.example",
    });
    const refused = await ask({ origin: "http://one.example" }, "/v1.0/metadata", "GET");
    expect(refused).toMatchObject({
      status: 401,
      headers: { "access-control-allow-origin": "http://one.example" },
    });
    const invoked = await ask({ ...token }, "/v1.0/invoke/edge/method/x", "GET");
    expect(invoked.headers["vary"]).toBe("Origin");
    expect(invoked.headers["access-control-allow-origin"]).toBeUndefined();
  });
});

test("the public port has health and metadata, without token, and nothing else", async () => {
  await using client = httpClient(`http://127.0.0.1:${publicPort}`);
  expect((await client.get("/v1.0/healthz")).status).toBe(204);
  expect((await client.get("/v1.0/healthz/outbound")).status).toBe(204);
  expect((await client.http("/v1.0/metadata/fromPublic", { method: "PUT", body: "yes" })).status).toBe(204);
  expect((await client.get("/v1.0/metadata")).json()).toMatchObject({ extended: { fromPublic: "yes" } });
  const unknown = await client.get("/v1.0/state/statestore/k");
  expect(unknown).toMatchObject({ status: 404, text: "404 page not found\n" });
  expect((await client.get("/v1.0/invoke/edge/method/x")).status).toBe(404);
  const wrong = await client.http("/v1.0/metadata", { method: "POST" });
  expect(wrong).toMatchObject({ status: 405, text: "", headers: { allow: "GET" } });
  const preflight = await client.http("/v1.0/healthz", {
    method: "OPTIONS",
    headers: { origin: "http://one.example", "access-control-request-method": "GET" },
  });
  expect(preflight.status).toBe(405);
});

test("without CORS an OPTIONS is a call like any other; DAPR_HTTP_DISABLE_H2C turns HTTP/2 off", async () => {
  await using plain = await startSidecar({ appId: "plain", nats, env: { DAPR_HTTP_DISABLE_H2C: "true" } });
  const preflight = await plain.http("/v1.0/metadata", {
    method: "OPTIONS",
    headers: { origin: "http://one.example", "access-control-request-method": "GET" },
  });
  expect(preflight).toMatchObject({ status: 404, text: expect.stringContaining("ERR_DIRECT_INVOKE") });
  expect(preflight.headers["vary"]).toBeUndefined();
  expect(await exchange(plain.httpPort, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
  const upgrade = "GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\n";
  const answer = await exchange(
    plain.httpPort,
    `${upgrade}Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n`,
    /\r\n\r\n/,
  );
  expect(answer).toMatch(/^HTTP\/1\.1 204 /);
});

test("socket files replace both ports and are gone after the end, also a forced one", async () => {
  await using folder = tempDir("sockets");
  const flags = [`--unix-domain-socket=${folder.path}`];
  await using local = await startSidecar({ appId: "sock", nats, flags, wait: "none" });
  await local.logged(/dapr initialized/, 30_000);
  const files = ["http", "grpc"].map((name) => folder.join(`dapr-sock-${name}.socket`));
  expect(files.map(existsSync)).toEqual([true, true]);
  const ask = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connect(files[0]!);
      socket.once("error", reject);
      socket.once("data", (chunk: Buffer) => resolve(chunk.toString()));
      socket.write("GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    });
  expect(await ask()).toMatch(/^HTTP\/1\.1 204 /);
  await expect(local.get("/v1.0/healthz")).rejects.toThrow();
  expect(await local.stop()).toBe(0);
  expect(files.map(existsSync)).toEqual([false, false]);
  await local.start();
  await local.logged(/dapr initialized/, 30_000);
  const forced = connect(files[0]!);
  forced.write(
    "POST /v1.0/shutdown HTTP/1.1\r\nHost: x\r\ndapr-force-shutdown: true\r\nContent-Length: 0\r\n\r\n",
  );
  expect(await local.exited).toBe(1);
  forced.destroy();
  expect(files.map(existsSync)).toEqual([false, false]);
});

test("a socket file of a living sidecar is not taken over, that of a killed one is", async () => {
  await using folder = tempDir("sockets");
  const flags = [`--unix-domain-socket=${folder.path}`];
  await using first = await startSidecar({ appId: "sock", nats, flags, wait: "none" });
  await first.logged(/dapr initialized/, 30_000);
  await using second = await startSidecar({ appId: "sock", nats, flags, wait: "none" });
  await second.logged(/dapr-sock-grpc\.socket is taken; trying for 10 s/, 30_000);
  expect(second.logs().match(/EADDRINUSE|taken/g)).toHaveLength(1);
  await first.kill();
  await second.logged(/dapr initialized/, 30_000);
  expect(["http", "grpc"].map((name) => existsSync(folder.join(`dapr-sock-${name}.socket`)))).toEqual([
    true,
    true,
  ]);
});

test("every listen address serves; one that cannot be had is told and does no harm", async () => {
  const flags = ["--dapr-listen-addresses=127.0.0.1,127.0.0.2,192.0.2.1"];
  await using several = await startSidecar({ appId: "several", nats, flags });
  for (const host of ["127.0.0.1", "127.0.0.2"]) {
    const text = "GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    expect(await exchange(several.httpPort, text, undefined, host)).toMatch(/^HTTP\/1\.1 204 /);
  }
  expect(several.logs()).toMatch(/could not listen on 192\.0\.2\.1:\d+/);
});

test("slow headers and silent connections are cut off; a port that stays taken ends the start", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  const { port } = other.address() as { port: number };
  const options = { appId: "late", nats, wait: "none" } as const;
  await using api = await startSidecar({ ...options, flags: [`--dapr-http-port=${port}`] });
  const flags = [`--dapr-public-port=${port}`, "--dapr-public-listen-address=127.0.0.1"];
  await using open = await startSidecar({ ...options, flags });
  expect(await open.exited).toBe(1);
  expect(open.logs()).toMatch(/public port: .*choose another --dapr-public-port/);
  const slow = exchange(sidecar.httpPort, "GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\n");
  const silent = exchange(sidecar.httpPort, "");
  expect(await api.exited).toBe(1);
  expect(api.logs()).toContain("could not listen on any endpoint");
  expect(await slow).toMatch(/^HTTP\/1\.1 408 /);
  expect(await silent).toBe("");
  other.close();
});
