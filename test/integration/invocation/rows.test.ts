// Rows of the contract that stand in no other file: verbs, routes that are none, odd lengths, redirects, encodings.
import { hostname } from "node:os";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, AppRequest, Nats, Sidecar } from "../../kit/index.ts";
import { inTurn, rawHttp, startRawApp, type RawApp } from "../../kit/raw-http.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;
let rawApp: RawApp;
let caller: Sidecar;
let callee: Sidecar;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(await startApp({ fallback: () => ({ body: "ok" }) }));
  rawApp = stack.use(await startRawApp());
  callee = stack.use(await startSidecar({ appId: "callee", appPort: app.port, nats }));
  stack.use(await startSidecar({ appId: "raw", appPort: rawApp.port, nats }));
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
});

afterAll(() => stack.disposeAsync());

const base = "/v1.0/invoke/callee/method";
const headLines = "Host: x\r\nConnection: close\r\n";

function last(): AppRequest {
  return app.requests.at(-1)!;
}

function names(request: AppRequest): string[] {
  return request.rawHeaders.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase());
}

const noTarget = JSON.stringify({
  errorCode: "ERR_DIRECT_INVOKE",
  message: "failed getting app id either from the URL path or the header dapr-app-id",
});

describe("verbs", () => {
  test("verbs that no parser knows become POST too, with their bodies, on connections that go on", async () => {
    const request = (line: string, body: string): string =>
      `${line} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    const before = app.requests.length;
    const lines = [
      request(`FOO ${base}/v1`, "one"),
      request(`PUT ${base}/v2`, "two"),
      request(`X-Y_z ${base}/v3`, "three"),
      request("FOO /v1.0/shutdown", ""),
    ];
    for (let i = 0; i < 14; i++) lines.push(request(`BAR ${base}/again`, ""));
    const answers = await inTurn(caller.httpPort, lines);
    expect(answers.map((answer) => /HTTP.1.1 (\d+)/.exec(answer)![1])).toEqual([
      "200",
      "200",
      "200",
      "404",
      ...Array.from({ length: 13 }, () => "200"),
      "501",
    ]);
    expect(
      app.requests
        .slice(before, before + 3)
        .map(({ method, path, body }) => `${method} ${path} ${body.toString()}`),
    ).toEqual(["POST /v1 one", "PUT /v2 two", "POST /v3 three"]);
    const chunked = `QUUX ${base}/chunked HTTP/1.1\r\n${headLines}Transfer-Encoding: chunked\r\n\r\n`;
    const large = "x".repeat(200_000);
    const answer = await rawHttp(
      caller.httpPort,
      `${chunked}${large.length.toString(16)}\r\n${large}\r\n0\r\n\r\n`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    expect(last()).toMatchObject({ method: "POST", path: "/chunked" });
    expect(last().body).toHaveLength(large.length);
    expect(await rawHttp(caller.httpPort, "F(O) / HTTP/1.1\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
  });

  test("other verbs become POST, CONNECT is refused", async () => {
    expect((await caller.http(`${base}/verb`, { method: "PROPFIND", body: "x" })).status).toBe(200);
    expect(last()).toMatchObject({ method: "POST", path: "/verb" });
    const connect =
      "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\ndapr-app-id: callee\r\n\r\n";
    const refused = await rawHttp(caller.httpPort, connect);
    expect(refused).toMatch(/^HTTP\/1\.1 500 /);
    expect(refused).toContain("invalid HTTP verb");
    expect(await rawHttp(caller.httpPort, connect.replace("dapr-app-id: callee\r\n", ""))).toMatch(
      /^HTTP\/1\.1 404 /,
    );
  });
});

describe("what is no route", () => {
  test.each([
    ["HEAD", "/v1.0/metadata"],
    ["POST", "/v1.0/healthz"],
    ["DELETE", "/v1.0/publish/pubsub/t"],
    ["GET", "/v1.0/invoke/callee"],
    ["GET", "/v1.0/invoke/callee/method"],
    ["GET", "/v1.0/invoke"],
    ["GET", "/v1.0/nothing"],
    ["GET", "/"],
    ["OPTIONS", "/v1.0/metadata"],
    ["PATCH", "/v1.0/state/store"],
  ])("%s %s is the 404 of an invocation without app, never 405", async (method, path) => {
    const answer = await caller.http(path, { method });
    expect(answer.status).toBe(404);
    expect(answer.headers["content-type"]).toBe("application/json");
    if (method !== "HEAD") expect(answer.text).toBe(noTarget);
  });

  test("the method may be empty: the app's root", async () => {
    for (const path of ["/v1.0/invoke/callee/method/", "/v1.0/invoke/callee/method//"]) {
      expect((await caller.get(path)).status).toBe(200);
      expect(last().path).toBe("/");
    }
  });

  test("slashes and dots are cleaned before routes are looked for", async () => {
    for (const path of ["//v1.0///metadata", "/v1.0/metadata/", "/v1.0/./metadata", "/x/../v1.0/metadata"]) {
      const raw = await rawHttp(caller.httpPort, `GET ${path} HTTP/1.1\r\n${headLines}\r\n`);
      expect(raw).toMatch(/^HTTP\/1\.1 200 /);
      expect(raw).toContain('"id":"caller"');
    }
  });

  test("a known route wins over the headers that name an app", async () => {
    expect((await caller.get("/v1.0/metadata", { "dapr-app-id": "callee" })).text).toContain('"id":"caller"');
    expect(
      (await caller.http("/v1.0/metadata", { method: "POST", headers: { "dapr-app-id": "callee" } })).text,
    ).toBe("ok");
    expect(last()).toMatchObject({ method: "POST", path: "/v1.0/metadata" });
  });
});

describe("requests", () => {
  test("queries go on byte for byte", async () => {
    for (const query of ["a=%zz&b=+&c=%2F%20", "", "a&&b=;|^`{}", "%E4=%C3%A4", "x=?y"]) {
      await rawHttp(caller.httpPort, `GET ${base}/q?${query} HTTP/1.1\r\n${headLines}\r\n`);
      expect(last().query).toBe(query);
    }
  });

  test("bytes above 127 in the path arrive in percent form, also on a connection that goes on", async () => {
    const get = (path: string): string => `GET ${base}/${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
    const utf8 = Buffer.from("é?q=ü").toString("latin1");
    const answers = await inTurn(caller.httpPort, [get(utf8), get("plain"), get(utf8)]);
    expect(answers.map((answer) => answer.includes("HTTP/1.1 200 "))).toEqual([true, true, true]);
    expect(last()).toMatchObject({ path: "/%C3%A9", query: "q=%C3%BC" });
    expect(await rawHttp(caller.httpPort, get("a b"))).toMatch(/^HTTP\/1\.1 400 /);
  });

  test("redirects of an app are answers", async () => {
    for (const status of [301, 302, 303, 307, 308]) {
      app.on("/moved", () => ({ status, headers: { location: "/elsewhere" }, body: "moved" }));
      for (const sidecar of [caller, callee]) {
        const answer = await sidecar.post(`${base}/moved`, "x");
        expect(answer).toMatchObject({ status, text: "moved", headers: { location: "/elsewhere" } });
      }
    }
    expect(app.requestsTo("/elsewhere")).toEqual([]);
  });

  test("the first of several names counts", async () => {
    const twice = "dapr-app-id: callee\r\ndapr-app-id: other\r\n";
    expect(await rawHttp(caller.httpPort, `GET /first HTTP/1.1\r\n${headLines}${twice}\r\n`)).toMatch(
      /^HTTP\/1\.1 200 /,
    );
    expect(last().path).toBe("/first");
  });

  test("1,500 headers go through when they fit the buffer", async () => {
    const options = { appId: "wide", appPort: rawApp.port, nats, flags: ["--read-buffer-size=32Ki"] };
    await using wide = await startSidecar(options);
    rawApp.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const many = Object.fromEntries(Array.from({ length: 1_500 }, (_, i) => [`x-${i}`, String(i)]));
    expect((await wide.get("/v1.0/invoke/raw/method/x", many)).status).toBe(200);
    const seen = rawApp.requests.at(-1)!;
    expect(Object.entries(many).filter(([name, value]) => !seen.includes(`${name}: ${value}\r\n`))).toEqual(
      [],
    );
  });

  test("a length that the client gave is kept, a body of unknown length goes in chunks", async () => {
    for (const sidecar of [caller, callee]) {
      await sidecar.post(`${base}/length`, "12345");
      expect(last().headers).toMatchObject({ "content-length": "5" });
      await sidecar.http(`${base}/length`, { method: "GET" });
      expect(last().headers["content-length"]).toBeUndefined();
      expect(last().headers["transfer-encoding"]).toBeUndefined();
      await rawHttp(
        sidecar.httpPort,
        `POST ${base}/length HTTP/1.1\r\n${headLines}Content-Length: 0\r\n\r\n`,
      );
      expect(last().headers["content-length"]).toBe("0");
      expect(last().headers["transfer-encoding"]).toBeUndefined();
    }
  });

  test("nothing but what is said is added to a call of the own app, and to that of another one", async () => {
    const head = `GET ${base}/bare HTTP/1.1\r\n${headLines}\r\n`;
    await rawHttp(callee.httpPort, head);
    expect(names(last()).filter((name) => name !== "traceparent")).toEqual(
      expect.arrayContaining(["host", "connection", "user-agent", "accept-encoding"]),
    );
    expect(names(last()).filter((name) => name.startsWith("dapr-") || name.includes("forward"))).toEqual([]);
    await rawHttp(caller.httpPort, head);
    expect(
      names(last())
        .filter((name) => name.startsWith("dapr-") || name.includes("forward"))
        .toSorted(),
    ).toEqual([
      "dapr-callee-app-id",
      "dapr-caller-app-id",
      "dapr-caller-namespace",
      "forwarded",
      "x-forwarded-for",
      "x-forwarded-host",
    ]);
  });

  test("the user part and the header name: exact forms", async () => {
    const basic = (text: string): string => `Basic ${Buffer.from(text).toString("base64")}`;
    expect((await caller.get("/u", { authorization: basic("dapr-app-id:callee") })).status).toBe(200);
    expect(last().headers.authorization).toBe(basic("dapr-app-id:callee"));
    for (const wrong of [
      basic("dapr-app-id:a:b"),
      basic("other:callee"),
      basic("dapr-app-id"),
      "Basic %%%",
    ]) {
      expect((await caller.get("/u", { authorization: wrong })).text).toBe(noTarget);
    }
    await caller.get("/h/path?q=1", { "dapr-app-id": "callee.default" });
    expect(last()).toMatchObject({ path: "/h/path", query: "q=1" });
    expect(last().headers["dapr-app-id"]).toBeUndefined();
    expect((await caller.get("/h", { "dapr-app-id": "callee.a.b" })).json()).toEqual({
      errorCode: "ERR_DIRECT_INVOKE",
      message: "failed to invoke, id: callee.a.b, err: invalid app id callee.a.b",
    });
    expect((await caller.get("/h", { "dapr-app-id": "callee.elsewhere" })).text).toContain(
      "couldn't find service: callee",
    );
  });
});

describe("who is meant", () => {
  test("namespaces keep apps of one name apart; the own one is meant when none is named", async () => {
    await using blueApp = await startApp({ fallback: () => ({ body: "blue" }) });
    const options = { appId: "callee", appPort: blueApp.port, nats, env: { NAMESPACE: "blue" } };
    await using blue = await startSidecar(options);
    await using asking = await startSidecar({ appId: "asking", nats, env: { NAMESPACE: "blue" } });
    expect((await asking.get(`${base}/x`)).text).toBe("blue");
    expect(blueApp.requests.at(-1)!.headers["dapr-caller-namespace"]).toBe("blue");
    expect((await asking.get("/v1.0/invoke/callee.default/method/x")).text).toBe("ok");
    expect(last().headers).toMatchObject({
      "dapr-caller-namespace": "blue",
      "dapr-caller-app-id": "asking",
      "dapr-callee-app-id": "callee",
    });
    expect((await caller.get("/v1.0/invoke/callee.blue/method/x")).text).toBe("blue");
    expect((await caller.get(`${base}/x`)).text).toBe("ok");
    // The same name in another namespace is another app, so this is no call of the own one.
    expect((await blue.get("/v1.0/invoke/callee.default/method/x")).text).toBe("ok");
    expect(last().headers["dapr-caller-app-id"]).toBe("callee");
    expect((await blue.get("/v1.0/invoke/callee.blue/method/x")).text).toBe("blue");
    expect(blueApp.requests.at(-1)!.headers["dapr-caller-app-id"]).toBeUndefined();
    expect((await caller.get("/v1.0/invoke/asking.green/method/x")).json()).toEqual({
      errorCode: "ERR_DIRECT_INVOKE",
      message: "failed to invoke, id: asking.green, err: couldn't find service: asking",
    });
  });

  test("an app whose only instance was killed is tried 3 times more; then it is unreachable, not unknown", async () => {
    await using gone = await startSidecar({ appId: "gone", appPort: app.port, nats });
    expect((await caller.get("/v1.0/invoke/gone/method/x")).status).toBe(200);
    await gone.kill();
    const answer = await caller.get("/v1.0/invoke/gone/method/x");
    expect(answer.status).toBe(500);
    const failed = "failed to invoke, id: gone, err: failed to invoke target gone after 3 retries. Error: ";
    const { message } = answer.json<{ message: string }>();
    expect(message).toContain(`${failed}rpc error: code = Unavailable desc = `);
    await gone.start();
    expect((await caller.get("/v1.0/invoke/gone/method/y")).status).toBe(200);
  });
});

describe("where from and where to", () => {
  test.each([
    ["192.0.2.7", "192.0.2.7"],
    ["2001:db8::7", '"[2001:db8::7]"'],
  ])("DAPR_HOST_IP=%s stands in what is forwarded", async (address, shown) => {
    await using sidecar = await startSidecar({ appId: "host", nats, env: { DAPR_HOST_IP: address } });
    await sidecar.get(`${base}/x`, { "x-forwarded-host": "client.example", forwarded: "for=198.51.100.1" });
    const { rawHeaders } = last();
    const values = (name: string): string[] =>
      rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]!.toLowerCase() === name);
    expect(values("x-forwarded-for")).toEqual([address]);
    expect(values("x-forwarded-host")).toEqual(["client.example", hostname()]);
    expect(values("forwarded")).toEqual(["for=198.51.100.1", `for=${shown};by=${shown};host=${hostname()}`]);
  });

  test("--app-channel-address and --app-protocol in any case", async () => {
    const flags = ["--app-channel-address=localhost"];
    const options = { appId: "named", appPort: app.port, appProtocol: "HTTP", nats, flags };
    await using sidecar = await startSidecar(options);
    expect((await sidecar.get("/v1.0/invoke/named/method/x")).text).toBe("ok");
    expect(last().headers.host).toBe(`localhost:${app.port}`);
  });

  test("an answer has one Date, the app's", async () => {
    rawApp.answer =
      "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2015 00:00:00 GMT\r\nServer: app\r\nContent-Length: 2\r\n\r\nok";
    const raw = await rawHttp(caller.httpPort, `GET /v1.0/invoke/raw/method/x HTTP/1.1\r\n${headLines}\r\n`);
    expect(raw.match(/^date: .*$/gim)).toEqual(["Date: Thu, 01 Jan 2015 00:00:00 GMT"]);
    expect(raw).toMatch(/^Server: app\r$/m);
  });
});

describe("answers of the app", () => {
  const answers: [string, string, Record<string, unknown>][] = [
    [
      "bytes behind the body",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokMORE",
      { status: 200, text: "ok" },
    ],
    [
      "no length, ended by the close",
      "HTTP/1.1 200 OK\r\n\r\nuntil the end",
      { status: 200, text: "until the end" },
    ],
    ["HTTP/1.0", "HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nold", { status: 200, text: "old" }],
    [
      "chunks with extensions and trailers",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2;a=b\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
      { status: 200, text: "ok" },
    ],
    ["no reason", "HTTP/1.1 418\r\nContent-Length: 2\r\n\r\nok", { status: 418, text: "ok" }],
    [
      "a 204 with a length",
      "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
      { status: 204, text: "" },
    ],
    [
      "two cookies",
      "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
      { status: 200 },
    ],
  ];
  test.each(answers)("with %s", async (name, bytes, expected) => {
    rawApp.answer = bytes;
    const answer = await caller.get("/v1.0/invoke/raw/method/x");
    expect(answer).toMatchObject(expected);
    if (name === "two cookies") expect(answer.headers["set-cookie"]).toEqual(["a=1", "b=2"]);
    expect((await caller.get(`${base}/after`)).status).toBe(200);
  });

  test("to HEAD that have a length but no body hold up nothing", async () => {
    rawApp.answer = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-A: 1\r\n\r\n";
    const answer = await caller.http("/v1.0/invoke/raw/method/x", { method: "HEAD" });
    expect(answer).toMatchObject({ status: 200, text: "", headers: { "x-a": "1" } });
  });

  test("with headers above --read-buffer-size are an error", async () => {
    rawApp.answer = `HTTP/1.1 200 OK\r\nX-A: ${"x".repeat(5_000)}\r\nContent-Length: 0\r\n\r\n`;
    const answer = await caller.get("/v1.0/invoke/raw/method/x");
    expect(answer.status).toBe(500);
    expect(answer.json<{ errorCode: string }>().errorCode).toBe("ERR_DIRECT_INVOKE");
    await using roomy = await startSidecar({
      appId: "roomy",
      appPort: rawApp.port,
      nats,
      flags: ["--read-buffer-size=16Ki"],
    });
    expect((await roomy.get("/v1.0/invoke/roomy/method/x")).status).toBe(200);
  });

  test.each([400, 404, 500, 503])("of status %i come whole, with their length", async (status) => {
    rawApp.answer = `HTTP/1.1 ${status} X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n`;
    const answer = await caller.get("/v1.0/invoke/raw/method/x");
    expect(answer).toMatchObject({ status, text: "no" });
    expect(answer.headers).toMatchObject({ "content-length": "2", "content-type": "application/json" });
  });
});
