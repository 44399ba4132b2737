// Service invocation over HTTP through two real sidecars: what the app gets, what the caller gets back.
import { beforeAll, afterAll, describe, expect, test } from "vitest";
import { startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, AppRequest } from "../../kit/index.ts";

let app: App;
let stack: AsyncDisposableStack;
let caller: Awaited<ReturnType<typeof startSidecar>>;
let callee: Awaited<ReturnType<typeof startSidecar>>;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  app = stack.use(
    await startApp({
      routes: {
        "/teapot": () => ({
          status: 418,
          headers: { "content-type": "text/x-tea", "x-many": ["a", "b"] },
          body: "short",
        }),
        "/bytes": ({ body }) => ({ headers: { "content-type": "application/octet-stream" }, body }),
        "/bare": () => ({ body: "no type" }),
        "/moved": () => ({ status: 302, headers: { location: "/elsewhere" } }),
      },
      fallback: () => ({ body: { ok: true } }),
    }),
  );
  callee = stack.use(await startSidecar({ appId: "callee", appPort: app.port, nats }));
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
});

afterAll(() => stack.disposeAsync());

const base = "/v1.0/invoke/callee/method";
const refused =
  "failed to invoke, id: callee, err: rpc error: code = InvalidArgument desc = invalid method: ";

/** The last request that the app got. */
function last(): AppRequest {
  return app.requests.at(-1)!;
}

test.each(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])(
  "%s passes with query and body",
  async (method) => {
    const body = method === "GET" || method === "HEAD" ? undefined : "text body";
    const answer = await caller.http(`${base}/orders/1?a=1&b=%20x&a=2`, {
      method,
      ...(body === undefined ? {} : { body }),
    });
    expect(answer.status).toBe(200);
    expect(last()).toMatchObject({ method, path: "/orders/1", query: "a=1&b=%20x&a=2" });
    expect(last().body.toString()).toBe(body ?? "");
    if (method === "HEAD") expect(answer.text).toBe("");
    else expect(answer.json()).toEqual({ ok: true });
  },
);

describe("three ways to name the app", () => {
  test("header dapr-app-id: the whole path is the method, the header stays behind", async () => {
    expect((await caller.get("/some/path?q=1", { "dapr-app-id": "callee" })).status).toBe(200);
    expect(last()).toMatchObject({ path: "/some/path", query: "q=1" });
    expect(last().headers["dapr-app-id"]).toBeUndefined();
  });

  test("user part of the URL: the header goes on", async () => {
    const authorization = `Basic ${Buffer.from("dapr-app-id:callee").toString("base64")}`;
    expect((await caller.get("/other", { authorization })).status).toBe(200);
    expect(last()).toMatchObject({ path: "/other" });
    expect(last().headers.authorization).toBe(authorization);
  });

  test("path, also with the namespace", async () => {
    expect((await caller.get("/v1.0/invoke/callee.default/method/here")).status).toBe(200);
    expect(last()).toMatchObject({ path: "/here" });
  });

  test("the header wins over nothing but unknown routes", async () => {
    expect((await caller.get("/v1.0/healthz", { "dapr-app-id": "callee" })).status).toBe(204);
  });
});

test.each([
  ["/a//b/", "/a/b"],
  ["/a/./b/../c", "/a/c"],
  ["/a%2F..%2Fb", "/b"],
  ["/", "/"],
  ["/space%20and%22quote", "/space%20and%22quote"],
  ["/%C3%A9", "/%C3%A9"],
])("method %s arrives as %s", async (method, path) => {
  expect((await caller.get(base + method)).status).toBe(200);
  expect(last().path).toBe(path);
});

test("headers: passed on, hop-by-hop dropped, caller named by the mesh and not by the client", async () => {
  await caller.post(`${base}/h`, "x", {
    "x-one": "1",
    "x-many": ["a", "b"],
    "dapr-caller-app-id": "somebody-else",
    "dapr-caller-namespace": "elsewhere",
    "proxy-authorization": "hop by hop",
    "x-secret-bin": "AAAA",
    "content-type": "text/custom",
  });
  const { headers, rawHeaders } = last();
  expect(headers).toMatchObject({
    "x-one": "1",
    "content-type": "text/custom",
    "dapr-caller-app-id": "caller",
    "dapr-caller-namespace": "default",
    "dapr-callee-app-id": "callee",
    host: `127.0.0.1:${app.port}`,
  });
  expect(headers["x-many"]).toMatch(/^a, ?b$/);
  expect(headers["x-forwarded-for"]).toBeDefined();
  expect(headers["x-forwarded-host"]).toBeDefined();
  expect(headers.forwarded).toMatch(/^for=.*;by=.*;host=.*/);
  expect(headers["x-secret-bin"]).toBeUndefined();
  expect(headers["proxy-authorization"]).toBeUndefined();
  expect(rawHeaders.filter((item) => item.toLowerCase() === "dapr-caller-app-id")).toHaveLength(1);
});

test("the app's status, headers and bytes come back, errors of the app too", async () => {
  const tea = await caller.get(`${base}/teapot`);
  expect(tea).toMatchObject({ status: 418, text: "short" });
  expect(tea.headers).toMatchObject({ "content-type": "text/x-tea", "x-many": ["a", "b"] });
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  expect((await caller.post(`${base}/bytes`, bytes)).bytes.equals(bytes)).toBe(true);
  expect((await caller.get(`${base}/bare`)).headers["content-type"]).toBe("text/plain; charset=utf-8");
  expect(await caller.get(`${base}/moved`)).toMatchObject({ status: 302 });
});

test("bodies of 700 KB go both ways", async () => {
  const body = Buffer.alloc(700_000, "weft");
  expect((await caller.post(`${base}/bytes`, body)).bytes.equals(body)).toBe(true);
});

test("calls to the own app do not pass the mesh and gain no headers", async () => {
  expect((await callee.get("/v1.0/invoke/callee/method/self")).status).toBe(200);
  expect(last().path).toBe("/self");
  expect(last().headers["x-forwarded-for"]).toBeUndefined();
  expect(last().headers["dapr-caller-app-id"]).toBeUndefined();
});

test.each([
  [
    "unknown app",
    "/v1.0/invoke/nobody/method/x",
    500,
    "failed to invoke, id: nobody, err: couldn't find service: nobody",
  ],
  [
    "no app named",
    "/v1.0/invoke/callee",
    404,
    "failed getting app id either from the URL path or the header dapr-app-id",
  ],
  [
    "no method part",
    "/v1.0/invoke/callee/method",
    404,
    "failed getting app id either from the URL path or the header dapr-app-id",
  ],
  [
    "no route",
    "/nothing/here",
    404,
    "failed getting app id either from the URL path or the header dapr-app-id",
  ],
  [
    "too many dots",
    "/v1.0/invoke/a.b.c/method/x",
    500,
    "failed to invoke, id: a.b.c, err: invalid app id a.b.c",
  ],
  [
    "question mark in the method",
    `${base}/a%3Fb`,
    500,
    `${refused}method contains forbidden character: "a?b"`,
  ],
  [
    "control character",
    `${base}/a%01b`,
    500,
    `${refused}method contains control character at position 1: "a\\x01b"`,
  ],
  [
    "callee without app",
    "/v1.0/invoke/caller/method/x",
    500,
    "failed to invoke, id: caller, err: cannot invoke local endpoint: app channel not initialized",
  ],
])("error: %s", async (_name, path, status, message) => {
  const answer = await caller.get(path);
  expect(answer.status).toBe(status);
  expect(answer.json()).toEqual({ errorCode: "ERR_DIRECT_INVOKE", message });
});

test("a remote callee without app says so", async () => {
  const answer = await callee.get("/v1.0/invoke/caller/method/x");
  expect(answer.status).toBe(500);
  expect(answer.json()).toEqual({
    errorCode: "ERR_DIRECT_INVOKE",
    message:
      "failed to invoke, id: caller, err: rpc error: code = Internal desc = app channel is not initialized",
  });
});

test("an app that is down is told from an app that is unknown, and works when it is back", async () => {
  await app.fail("refuse");
  const url = `http://127.0.0.1:${app.port}/x`;
  const refused = `Get "${url}": dial tcp 127.0.0.1:${app.port}: connect: connection refused`;
  expect((await caller.get(`${base}/x`)).json()).toEqual({
    errorCode: "ERR_DIRECT_INVOKE",
    message:
      "failed to invoke, id: callee, err: rpc error: code = Internal desc = error invoking app channel: " +
      refused,
  });
  expect((await callee.get("/v1.0/invoke/callee/method/x")).json()).toMatchObject({
    message: `failed to invoke, id: callee, err: ${refused}`,
  });
  await app.heal();
  expect((await caller.get(`${base}/x`)).status).toBe(200);
});

test("a caller that gives up ends its call only", async () => {
  app.on("/slow", () => new Promise(() => {}));
  const abort = new AbortController();
  const call = caller.http(`${base}/slow`, { signal: abort.signal });
  await app.received("/slow", 1);
  abort.abort();
  await expect(call).rejects.toThrow();
  expect((await caller.get(`${base}/after`)).status).toBe(200);
});
