// The small print of service invocation over HTTP: headers both ways, encodings, statuses, bodies that may not be
// there, odd paths and request lines, and an app that goes away and comes back.
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  nodeBinary,
  startApp,
  startGrpcApp,
  startNats,
  startProcess,
  startSidecar,
  freePort,
  grpcStatus,
} from "../../kit/index.ts";
import type { App, AppRequest, GrpcApp, Nats, RunningProcess, Sidecar } from "../../kit/index.ts";
import { rawHttp, startRawApp, type RawApp } from "../../kit/raw-http.ts";
import { Metadata } from "@grpc/grpc-js";
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { ErrorInfoSchema } from "../../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../../proto/gen/google/rpc/status_pb.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;
let rawApp: RawApp;
let grpcApp: GrpcApp;
let caller: Sidecar;
let guarded: Sidecar;
let callee: Sidecar;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(await startApp({ fallback: () => ({ body: "ok" }) }));
  rawApp = stack.use(await startRawApp());
  grpcApp = stack.use(await startGrpcApp());
  callee = stack.use(
    await startSidecar({ appId: "callee", appPort: app.port, nats, env: { APP_API_TOKEN: "app token" } }),
  );
  stack.use(await startSidecar({ appId: "raw", appPort: rawApp.port, nats }));
  stack.use(await startSidecar({ appId: "grpc", appPort: grpcApp.port, appProtocol: "grpc", nats }));
  stack.use(await startSidecar({ appId: "plain", appPort: app.port, nats }));
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
  guarded = stack.use(await startSidecar({ appId: "guarded", nats, env: { DAPR_API_TOKEN: "open" } }));
});

afterAll(() => stack.disposeAsync());

const base = "/v1.0/invoke/callee/method";
const refused =
  "failed to invoke, id: callee, err: rpc error: code = InvalidArgument desc = invalid method: ";

function last(): AppRequest {
  return app.requests.at(-1)!;
}

/** Values of a header as they came, in order. */
function valuesOf(request: AppRequest, name: string): string[] {
  return request.rawHeaders.filter(
    (_, i) => i % 2 === 1 && request.rawHeaders[i - 1]!.toLowerCase() === name,
  );
}

describe("request headers", () => {
  test("named by Connection stay behind, as do all of the hop", async () => {
    const request = [
      `GET ${base}/hop HTTP/1.1`,
      "Host: x",
      "Connection: close, X-Hop",
      "X-Hop: 1",
      "X-Kept: 1",
      "Keep-Alive: timeout=1",
      "Proxy-Connection: x",
      "TE: trailers",
      "Trailer: X",
      "HTTP2-Settings: x",
      "Proxy-Authorization: x",
      "Proxy-Authenticate: x",
      "X-Data-Bin: AAAA",
      "destination-app-id: x",
    ];
    expect(await rawHttp(caller.httpPort, `${request.join("\r\n")}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 200 /);
    const { headers } = last();
    expect(headers["x-kept"]).toBe("1");
    for (const name of [
      "x-hop",
      "proxy-connection",
      "te",
      "trailer",
      "http2-settings",
      "proxy-authorization",
      "proxy-authenticate",
      "x-data-bin",
      "destination-app-id",
      "transfer-encoding",
    ]) {
      expect(headers[name]).toBeUndefined();
    }
    expect(headers["keep-alive"]).toBeUndefined();
    expect(headers.host).toBe(`127.0.0.1:${app.port}`);
  });

  test("of gRPC get a name of Dapr", async () => {
    await caller.get(`${base}/grpc`, { "grpc-timeout": "1S", "grpc-status": "5" });
    expect(last().headers).toMatchObject({ "dapr-grpc-timeout": "1S", "dapr-grpc-status": "5" });
    expect(last().headers["grpc-timeout"]).toBeUndefined();
  });

  test("that only sidecars write cannot be forged", async () => {
    for (const sidecar of [caller, callee]) {
      const forged = [
        "dapr-caller-app-id",
        "dapr-caller-namespace",
        "dapr-callee-app-id",
        "weft-grpc-method",
        "weft-data-type",
      ];
      await sidecar.get(`${base}/forged`, Object.fromEntries(forged.map((name) => [name, "forged"])));
      expect(last().rawHeaders).not.toContain("forged");
    }
  });

  test("keep repeated values, in order, and come before the sidecar's own lines", async () => {
    await caller.get(`${base}/many`, { "x-forwarded-for": "1.2.3.4", "x-a": ["1", "2", "1"] });
    expect(valuesOf(last(), "x-a")).toEqual(["1", "2", "1"]);
    expect(valuesOf(last(), "x-forwarded-for")[0]).toBe("1.2.3.4");
    expect(valuesOf(last(), "x-forwarded-for")).toHaveLength(2);
  });

  test("name Go's client when the caller names none", async () => {
    for (const sidecar of [caller, callee]) {
      await rawHttp(sidecar.httpPort, `GET ${base}/agent HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      expect(valuesOf(last(), "user-agent")).toEqual(["Go-http-client/1.1"]);
    }
    await caller.get(`${base}/agent`, { "user-agent": "mine/1" });
    expect(valuesOf(last(), "user-agent")).toEqual(["mine/1"]);
  });

  test("carry the token of the app's own sidecar, and never that of the caller's", async () => {
    await guarded.get(`${base}/token`, { "dapr-api-token": "open" });
    expect(valuesOf(last(), "dapr-api-token")).toEqual(["app token"]);
    await guarded.get("/v1.0/invoke/plain/method/token", { "dapr-api-token": "open" });
    expect(valuesOf(last(), "dapr-api-token")).toEqual([]);
    await caller.get("/v1.0/invoke/plain/method/token", { "dapr-api-token": "for the app" });
    expect(valuesOf(last(), "dapr-api-token")).toEqual(["for the app"]);
  });

  test("that are no UTF-8 arrive byte for byte", async () => {
    const odd = "X-Bytes: a\xE9\xFFb\r\nX-Text: \xC3\xA9\r\n";
    const request = `GET ${base}/bytes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${odd}\r\n`;
    expect(await rawHttp(caller.httpPort, request)).toMatch(/^HTTP\/1\.1 200 /);
    expect(valuesOf(last(), "x-bytes")).toEqual(["a\xE9\xFFb"]);
    expect(Buffer.from(valuesOf(last(), "x-text")[0]!, "latin1").toString("utf8")).toBe("é");
  });

  test("baggage and trace context pass", async () => {
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    await caller.get(`${base}/trace`, { traceparent, tracestate: "a=b", baggage: "k=v" });
    expect(last().headers).toMatchObject({ tracestate: "a=b", baggage: "k=v" });
    expect(last().headers["traceparent"]).toMatch(/^00-0af7651916cd43dd8448eb211c80319c-/);
  });
});

describe("encodings", () => {
  const text = "text ".repeat(100);
  beforeAll(() => {
    app.on("/gzip", () => ({
      headers: { "content-encoding": "gzip", "content-type": "text/x" },
      body: gzipSync(text),
    }));
    app.on("/broken", () => ({ headers: { "content-encoding": "gzip" }, body: "no gzip" }));
  });

  test("a caller that names none gets the text; the app is asked for gzip", async () => {
    for (const sidecar of [caller, callee]) {
      const answer = await sidecar.get(`${base}/gzip`);
      expect(answer).toMatchObject({ status: 200, text, headers: { "content-type": "text/x" } });
      expect(answer.headers["content-encoding"]).toBeUndefined();
      expect(valuesOf(last(), "accept-encoding")).toEqual(["gzip"]);
    }
  });

  test("a caller that names one gets the bytes as they are", async () => {
    const answer = await caller.get(`${base}/gzip`, { "accept-encoding": "gzip, br" });
    expect(answer.bytes.equals(gzipSync(text))).toBe(true);
    expect(answer.headers["content-encoding"]).toBe("gzip");
    expect(valuesOf(last(), "accept-encoding")).toEqual(["gzip, br"]);
  });

  test("parts of a file and HEAD are not asked for in gzip", async () => {
    await caller.get(`${base}/gzip`, { range: "bytes=0-1" });
    expect(valuesOf(last(), "accept-encoding")).toEqual([]);
    await caller.http(`${base}/gzip`, { method: "HEAD" });
    expect(valuesOf(last(), "accept-encoding")).toEqual([]);
  });

  test("broken gzip is a clear error", async () => {
    const answer = await caller.get(`${base}/broken`);
    expect(answer.status).toBe(500);
    expect(answer.json<{ message: string }>().message).toMatch(
      /failed to invoke, id: callee, err: .*gzip: invalid data/,
    );
  });
});

describe("answers", () => {
  test.each([
    ["<html><p>x", "text/html; charset=utf-8"],
    ["<?xml version='1.0'?>", "text/xml; charset=utf-8"],
    ['{"a":1}', "text/plain; charset=utf-8"],
    [Buffer.from("\x89PNG\r\n\x1A\n", "latin1"), "image/png"],
    ["%PDF-1.4", "application/pdf"],
    [Buffer.from([0xff, 0xfe, 0x41, 0]), "text/plain; charset=utf-16le"],
  ])("without a type get the one that %j looks like", async (body, type) => {
    app.on("/untyped", () => ({ body }));
    expect((await caller.get(`${base}/untyped`)).headers["content-type"]).toBe(type);
    app.on("/failed", () => ({ status: 503, body }));
    expect((await caller.get(`${base}/failed`)).headers["content-type"]).toBe("application/json");
  });

  test("that are compressed or empty get none; empty errors are JSON", async () => {
    const packed = gzipSync("x");
    app.on("/packed", () => ({ headers: { "content-encoding": "gzip" }, body: packed }));
    expect(
      (await caller.get(`${base}/packed`, { "accept-encoding": "gzip" })).headers["content-type"],
    ).toBeUndefined();
    app.on("/empty", () => ({}));
    expect((await caller.get(`${base}/empty`)).headers["content-type"]).toBeUndefined();
    app.on("/empty", () => ({ status: 400 }));
    expect((await caller.get(`${base}/empty`)).headers["content-type"]).toBe("application/json");
  });

  test.each([204, 304])("of status %i have no body", async (status) => {
    app.on("/none", () => ({ status, headers: { "x-a": "1", etag: '"1"' } }));
    const answer = await caller.get(`${base}/none`);
    expect(answer).toMatchObject({ status, text: "", headers: { "x-a": "1", etag: '"1"' } });
    expect(answer.headers["content-length"]).toBeUndefined();
  });

  test("to HEAD have the headers of the app and no length of 0", async () => {
    app.on("HEAD /head", () => ({
      headers: { "content-type": "text/x", "content-length": "5", "x-a": "1" },
    }));
    const answer = await caller.http(`${base}/head`, { method: "HEAD" });
    expect(answer).toMatchObject({
      status: 200,
      text: "",
      headers: { "content-type": "text/x", "x-a": "1" },
    });
    expect(answer.headers["content-length"]).not.toBe("0");
  });

  test("lose the headers of the hop and those that Connection names", async () => {
    rawApp.answer = [
      "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Kept: 1\r\nProxy-Authenticate: x",
      "X-Data-Bin: AA\r\nKeep-Alive: timeout=7\r\nContent-Length: 2\r\n\r\nok",
    ].join("\r\n");
    const answer = await caller.get("/v1.0/invoke/raw/method/x");
    expect(answer).toMatchObject({ status: 200, text: "ok", headers: { "x-kept": "1" } });
    for (const name of ["x-hop", "proxy-authenticate", "x-data-bin"])
      expect(answer.headers[name]).toBeUndefined();
    expect(answer.headers["keep-alive"]).not.toBe("timeout=7");
  });

  test.each([
    ["a status below 100", "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n"],
    ["no status at all", "HTTP/1.1 abc\r\n\r\n"],
    [
      "an upgrade nobody asked for",
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    ],
    ["another protocol", "SSH-2.0-x\r\n"],
    ["a body shorter than its length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"],
    ["nothing", ""],
  ])("with %s are an error, and the next call works", async (_name, bytes) => {
    rawApp.answer = bytes;
    const answer = await caller.post("/v1.0/invoke/raw/method/x", "body");
    expect(answer.status).toBe(500);
    expect(answer.json<{ message: string }>().message).toMatch(
      /^failed to invoke, id: raw, err: .* code = Internal desc = error invoking app channel: Post "http:\/\/127/,
    );
    rawApp.answer =
      "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";
    expect(await caller.post("/v1.0/invoke/raw/method/x", "body")).toMatchObject({ status: 202, text: "ok" });
  });

  test("with a status above 599 pass", async () => {
    rawApp.answer = "HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nok";
    expect(await caller.get("/v1.0/invoke/raw/method/x")).toMatchObject({ status: 799, text: "ok" });
  });
});

describe("request lines", () => {
  test.each([
    ["/a%2541", "/a%41"],
    ["/a%5C%22%2A", "/a%5C%22*"],
    ["/../../x", "/x"],
    ["/a/%2e%2e/b", "/b"],
    ["/a+b", "/a+b"],
    ["/a;b=c,d@e:f", "/a;b=c,d@e:f"],
  ])("method %s arrives as %s", async (method, path) => {
    expect((await caller.get(base + method)).status).toBe(200);
    expect(last().path).toBe(path);
  });

  test.each([
    [`${base}/a%`, 400, "400 Bad Request"],
    [`${base}/a%zz?x=1`, 400, "400 Bad Request"],
    ["/v1.0/metadata/%g1", 400, "400 Bad Request"],
    [`${base}/a%25zz`, 500, `${refused}invalid URL escape "%zz"`],
    [`${base}/a%23b`, 500, `${refused}method contains forbidden character: "a#b"`],
    [`${base}/a%00b`, 500, `${refused}method contains forbidden character: "a\\x00b"`],
    [`${base}/a%7F`, 500, `${refused}method contains control character at position 1: "a\\x7f"`],
    [
      "/v1.0/invoke//method/x",
      404,
      "failed getting app id either from the URL path or the header dapr-app-id",
    ],
  ])("%s is %i", async (path, status, text) => {
    const answer = await caller.get(path);
    expect(answer.status).toBe(status);
    expect(status === 400 ? answer.text : answer.json<{ message: string }>().message).toBe(text);
    if (status === 400) expect(answer.headers["content-type"]).toBe("text/plain; charset=utf-8");
  });

  test("slashes before the id may repeat, the id is unescaped", async () => {
    expect((await caller.get("//v1.0//invoke///call%65e/method/x")).status).toBe(200);
    expect((await caller.get("/v1.0/invoke/call%2565e/method/x")).status).toBe(200);
    expect((await caller.get("/v1.0/invoke/callee%2Fmethod%2Fy")).status).toBe(200);
    expect(last().path).toBe("/y");
  });

  test("a whole URL, as proxies send it, and its user part", async () => {
    const authorization = `basic ${Buffer.from("dapr-app-id:callee").toString("base64")}`;
    const head = (line: string, more = ""): string =>
      `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${more}\r\n`;
    const found = await rawHttp(
      caller.httpPort,
      head(`GET http://127.0.0.1:${caller.httpPort}${base}/whole?q=1`),
    );
    expect(found).toMatch(/^HTTP\/1\.1 200 /);
    expect(last()).toMatchObject({ path: "/whole", query: "q=1" });
    expect(await rawHttp(caller.httpPort, head("GET /x", `Authorization: ${authorization}\r\n`))).toMatch(
      /^HTTP\/1\.1 404 /,
    );
    const upper = `Basic ${Buffer.from("DAPR-App-Id:callee").toString("base64")}`;
    expect(await rawHttp(caller.httpPort, head("GET /x", `Authorization: ${upper}\r\n`))).toMatch(
      /^HTTP\/1\.1 200 /,
    );
  });
});

describe("a gRPC app behind HTTP", () => {
  test("sees headers as metadata, permanent ones under a name of Dapr", async () => {
    grpcApp.handlers.onInvoke = () => ({ data: { value: Buffer.from("x") }, contentType: "text/x" });
    await caller.post("/v1.0/invoke/grpc/method/a/b%20c", "body", {
      "X-One": "1",
      accept: "text/x",
      "content-type": "text/y",
      "dapr-caller-app-id": "forged",
    });
    const { request, metadata } = grpcApp.invocations.at(-1)!;
    expect(request).toMatchObject({ method: "a/b c", contentType: "text/y" });
    expect(metadata.get("x-one")).toEqual(["1"]);
    expect(metadata.get("dapr-accept")).toEqual(["text/x"]);
    expect(metadata.get("dapr-caller-app-id")).toEqual(["caller"]);
    expect(metadata.get("dapr-caller-namespace")).toEqual(["default"]);
  });

  test("answers typed data as protobuf, and leaks no name of the mesh", async () => {
    grpcApp.handlers.onInvoke = () => ({
      data: { typeUrl: "type.googleapis.com/x.Y", value: Buffer.from("x") },
      contentType: "text/x",
    });
    const answer = await caller.get("/v1.0/invoke/grpc/method/x");
    expect(answer.headers["content-type"]).toBe("application/x-protobuf");
    expect(
      Object.keys(answer.headers).filter((name) => name.startsWith("weft-") || name.startsWith("grpc-")),
    ).toEqual([]);
  });

  test("fails with its whole status as JSON", async () => {
    grpcApp.handlers.onInvoke = () => {
      const detail = anyPack(
        ErrorInfoSchema,
        create(ErrorInfoSchema, { reason: "R", domain: "d", metadata: { k: "v" } }),
      );
      const metadata = new Metadata();
      const whole = create(StatusSchema, { code: 9, message: "no <more>", details: [detail] });
      metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, whole)));
      throw grpcStatus(9, "no <more>", metadata);
    };
    const answer = await caller.get("/v1.0/invoke/grpc/method/x");
    expect(answer.status).toBe(400);
    expect(answer.headers["content-type"]).toBe("text/plain; charset=utf-8");
    expect(answer.json()).toEqual({
      code: 9,
      message: "no <more>",
      details: [
        {
          "@type": "type.googleapis.com/google.rpc.ErrorInfo",
          reason: "R",
          domain: "d",
          metadata: { k: "v" },
        },
      ],
    });
  });
});

describe("an app that is killed and started again", () => {
  const program = `
    const { createServer } = require("node:http");
    const answer = (request) => request.method + " " + process.pid;
    createServer((request, response) => request.resume().on("end", () => response.end(answer(request))))
      .listen(Number(process.env.PORT), "127.0.0.1", () => console.log("listening"));`;
  const port = freePort();

  async function start(): Promise<RunningProcess> {
    const running = await startProcess({
      name: "restarting app",
      command: nodeBinary(),
      args: ["-e", program],
      env: { PORT: String(await port) },
    });
    for await (const _ of until(() => running.logs().includes("listening")))
      if (!running.running()) throw new Error(running.logs());
    return running;
  }

  async function* until(done: () => boolean): AsyncGenerator<void> {
    while (!done()) yield new Promise<void>((resolve) => setTimeout(resolve, 5));
  }

  test("fails no call that is made when it is back", async () => {
    await using sidecar = await startSidecar({
      appId: "restarting",
      appPort: await port,
      nats,
      wait: "none",
    });
    const url = "/v1.0/invoke/restarting/method/x";
    let running = await start();
    await sidecar.ready();
    for (let round = 0; round < 3; round++) {
      // Several connections, which all break.
      const before = await Promise.all(Array.from({ length: 8 }, () => caller.get(url)));
      expect(before.map(({ text }) => text)).toEqual(before.map(() => `GET ${running.pid}`));
      await running.kill();
      running = await start();
      const posted = await caller.post(url, "x");
      expect(posted).toMatchObject({ status: 200, text: `POST ${running.pid}` });
      const after = await Promise.all(Array.from({ length: 8 }, () => caller.get(url)));
      expect(after.map(({ text }) => text)).toEqual(after.map(() => `GET ${running.pid}`));
    }
    await running[Symbol.asyncDispose]();
  });

  test("a connection breaks under a request: GET is sent again, POST is an error and comes once", async () => {
    rawApp.answer = "";
    rawApp.requests.length = 0;
    const posted = await caller.post("/v1.0/invoke/raw/method/x", "x");
    expect(posted.status).toBe(500);
    expect(posted.json<{ message: string }>().message).toMatch(/Post "http:.*": EOF$/);
    expect(rawApp.requests).toHaveLength(1);
    const got = await caller.get("/v1.0/invoke/raw/method/x");
    expect(got.status).toBe(500);
    expect(rawApp.requests).toHaveLength(4);
  });
});
