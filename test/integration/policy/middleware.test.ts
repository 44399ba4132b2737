// HTTP middlewares in both pipelines of real sidecars: what they change, what they refuse, their order, and bodies that
// stream past them.
import { once } from "node:events";
import { createServer, type IncomingMessage, request as httpRequest } from "node:http";
import { connect } from "node:http2";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { eventually, startApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, Nats, Sidecar } from "../../kit/index.ts";
import { startOutside } from "../../kit/outside.ts";
import { middleware, pipelines, startPiped } from "./pipelines.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(
    await startApp({
      fallback: ({ method, path, query, body }) => ({
        body: `${method} ${path}?${query} ${body.toString()}`,
        headers: { "X-App": "yes" },
      }),
    }),
  );
});

afterAll(() => stack.disposeAsync());

function only(name: string, kind: string, metadata: Readonly<Record<string, string>> = {}) {
  return { "middleware.yaml": middleware(name, kind, metadata) };
}

describe("ratelimit", () => {
  test("a client above its rate gets 429 with the limits, another one is served", async () => {
    await using sidecar = await startPiped({
      appId: "limited",
      appPort: app.port,
      nats,
      resources: only("limit", "ratelimit", { maxRequestsPerSecond: "2" }),
      config: pipelines({ http: ["limit ratelimit"] }),
    });
    const ask = (client: string) =>
      sidecar.get("/v1.0/invoke/limited/method/x", { "X-Forwarded-For": client });
    // Far more than what a slow machine lets through while they are on their way.
    const answers = await Promise.all(Array.from({ length: 40 }, () => ask("1.1.1.1")));
    expect(answers.filter(({ status }) => status === 200).length).toBeGreaterThanOrEqual(2);
    const refused = answers.find(({ status }) => status === 429)!;
    expect(refused.text).toBe("You have reached maximum request limit.");
    expect(refused.headers).toMatchObject({
      "content-type": "text/plain; charset=utf-8",
      "ratelimit-limit": "2",
      "ratelimit-remaining": "0",
      "ratelimit-reset": "1",
      "x-rate-limit-limit": "2.00",
      "x-rate-limit-duration": "1",
    });
    const other = await ask("2.2.2.2");
    expect(other.status).toBe(200);
    expect(other.headers).toMatchObject({ "ratelimit-remaining": "1", "x-app": "yes" });
    await eventually(async () => expect((await ask("1.1.1.1")).status).toBe(200));
  });

  test("a rate that is none ends the start", async () => {
    const resources = only("limit", "ratelimit", { maxRequestsPerSecond: "0" });
    await using sidecar = await startSidecar({ appId: "bad", nats, resources, wait: "none" });
    expect(await sidecar.exited).toBe(1);
    expect(sidecar.logs()).toMatch(/"maxRequestsPerSecond\\" must be above 0/);
  });
});

describe("uppercase, routeralias and routerchecker before the API", () => {
  let sidecar: Sidecar;

  beforeAll(async () => {
    const routes = {
      "/mall/{id}/info": "/v1.0/invoke/shop/method/info",
      "/store/{key:[0-9]+}": "/v1.0/state/store?metadata.partitionKey=p",
    };
    sidecar = stack.use(
      await startPiped({
        appId: "shop",
        appPort: app.port,
        nats,
        resources: {
          "all.yaml":
            middleware("alias", "routeralias", { routes: JSON.stringify(routes) }) +
            middleware("check", "routerchecker", { rule: "^/v1\\.0/(invoke|healthz|state)" }) +
            middleware("up", "uppercase"),
          "state.yaml": stateStore,
        },
        config: pipelines({ http: ["alias routeralias", "check routerchecker", "up uppercase"] }),
      }),
    );
  });

  test("an alias leads to the API; its path parameters become the query, sorted", async () => {
    const answer = await sidecar.http("/mall/a%20b/info?z=1&b=2", { method: "POST", body: "hello" });
    expect(answer.text).toBe("POST /info?b=2&id=a+b&z=1 HELLO");
  });

  test("any API can be meant", async () => {
    const saved = await sidecar.post("/store/12", '[{"key":"K","value":"v"}]', {
      "content-type": "application/json",
    });
    // The body is upper case before JSON is read, and names of fields are taken in any.
    expect(saved.status).toBe(204);
    expect((await sidecar.get("/v1.0/state/store/K")).text).toBe('"V"');
  });

  test("what the rule does not match is refused, after the alias had its turn", async () => {
    const refused = await sidecar.get("/v1.0/metadata");
    expect(refused).toMatchObject({ status: 400, text: "invalid router" });
    expect(refused.headers["content-type"]).toBe("text/plain; charset=utf-8");
    expect((await sidecar.get("/store/abc")).status).toBe(400);
    expect((await sidecar.get("/v1.0/healthz")).status).toBe(204);
  });

  test("a body above the limit is told as everywhere", async () => {
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const headers = { "Content-Length": String(5 * 1024 * 1024) };
      const options = { method: "POST", headers };
      const request = httpRequest(`${sidecar.httpUrl}/v1.0/invoke/shop/method/x`, options, resolve);
      request.on("error", reject).flushHeaders();
    });
    expect(answer.statusCode).toBe(400);
    expect(JSON.parse(await text(answer))).toMatchObject({ errorCode: "ERR_BODY_READ" });
  });
});

const stateStore = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: store
spec:
  type: state.in-memory
  version: v1
`;

describe("the app pipeline", () => {
  let callee: Sidecar;
  let caller: Sidecar;

  beforeAll(async () => {
    const pubsub = stateStore.replace("store", "bus").replace("state.in-memory", "pubsub.in-memory");
    const subscription = `---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: sub
spec:
  pubsubname: bus
  topic: news
  routes:
    default: /news
`;
    callee = stack.use(
      await startSidecar({
        appId: "callee",
        appPort: app.port,
        nats,
        resources: {
          "all.yaml": middleware("up", "uppercase", { direction: "both" }),
          "bus.yaml": pubsub + subscription,
        },
        config: pipelines({ app: ["up uppercase"] }),
      }),
    );
    caller = stack.use(await startSidecar({ appId: "caller", nats }));
  });

  test("stands around calls from elsewhere and from the own API, both ways", async () => {
    for (const from of [caller, callee]) {
      const answer = await from.post("/v1.0/invoke/callee/method/path?q=1", "hello");
      expect(answer.text).toBe("POST /PATH?Q=1 HELLO");
      expect(answer.headers["x-app"]).toBe("yes");
      expect(app.requestsTo("/path").at(-1)!.body.toString()).toBe("hello".toUpperCase());
    }
  });

  test("around events", async () => {
    app.on("POST /news", () => ({ status: 200 }));
    await callee.subscribed("news");
    await callee.post("/v1.0/publish/bus/news", { item: "tea" });
    const [event] = await app.received("/news", 1);
    expect(event!.body.toString()).toContain('"DATA":{"ITEM":"TEA"}');
  });

  test("around servers outside", async () => {
    await using outside = await startOutside();
    const answer = await callee.post(`/v1.0/invoke/http://127.0.0.1:${outside.port}/method/out`, "hello");
    expect(outside.requests[0]).toMatchObject({ url: "/out", body: "HELLO" });
    expect(answer.text).toBe("POST /OUT");
  });

  test("not before the API", async () => {
    const answer = await callee.get("/v1.0/metadata");
    expect(answer.json<{ id: string }>().id).toBe("callee");
  });

  test("a large body that no middleware wants streams past; one that is wanted has the limit", async () => {
    const resources = only("limit", "ratelimit", { maxRequestsPerSecond: "1000" });
    const config = pipelines({ http: ["limit ratelimit"], app: ["limit ratelimit"] });
    await using stream = await startSidecar({
      appId: "stream",
      appPort: app.port,
      nats,
      resources,
      config,
      flags: ["--max-body-size=64Mi"],
    });
    // The app answers when it has begun to read: the answer comes while the body is still being sent.
    const big = Buffer.alloc(8 * 1024 * 1024, "x");
    app.on("POST /big", ({ body }) => ({ body: String(body.length) }));
    for (const target of ["stream", "callee"]) {
      const answer = await stream.post(`/v1.0/invoke/${target}/method/big`, big);
      if (target === "stream") expect(answer).toMatchObject({ status: 200, text: String(big.length) });
      else expect([answer.status, answer.text]).toEqual([500, expect.stringContaining("above the limit")]);
    }
  });
});

describe("a pipeline", () => {
  test("runs its handlers in the listed order, answers go back in reverse", async () => {
    const resources = {
      "all.yaml":
        middleware("first", "routeralias", { routes: '{"/a": "/b"}' }) +
        middleware("second", "routeralias", {
          routes: '{"/b": "/v1.0/invoke/order/method/c", "/a": "/wrong"}',
        }),
    };
    const handlers = ["first routeralias", "second routeralias"];
    await using sidecar = await startSidecar({
      appId: "order",
      appPort: app.port,
      nats,
      resources,
      config: pipelines({ http: handlers }),
    });
    expect((await sidecar.get("/a")).text).toBe("GET /c? ");
  });

  test("skips a handler that no component matches by name, type and version, and says so", async () => {
    await using sidecar = await startSidecar({
      appId: "skips",
      appPort: app.port,
      nats,
      resources: { "all.yaml": middleware("check", "routerchecker", { rule: "^/nothing$" }) },
      config: pipelines({ http: ["absent ratelimit", "check ratelimit", "check routerchecker v2"] }),
    });
    expect((await sidecar.get("/v1.0/metadata")).status).toBe(200);
    for (const handler of ["absent", "check"])
      expect(sidecar.logs()).toMatch(
        new RegExp(`level=warning msg="httpPipeline: handler ${handler} .* is skipped`),
      );
    expect(sidecar.logs()).toContain("(middleware.http.routerchecker/v2)");
  });

  test("stands behind the API token, before routes", async () => {
    await using sidecar = await startPiped({
      appId: "tokens",
      nats,
      env: { DAPR_API_TOKEN: "secret" },
      resources: only("check", "routerchecker", { rule: "^/nothing$" }),
      config: pipelines({ http: ["check routerchecker"] }),
    });
    expect((await sidecar.get("/v1.0/metadata")).status).toBe(401);
    const token = { "dapr-api-token": "secret" };
    expect((await sidecar.get("/v1.0/metadata", token)).text).toBe("invalid router");
    expect((await sidecar.get("/v1.0/healthz")).text).toBe("invalid router");
  });

  test("holds for HTTP/2 as well", async () => {
    await using sidecar = await startSidecar({
      appId: "h2",
      appPort: app.port,
      nats,
      resources: only("alias", "routeralias", { routes: '{"/short": "/v1.0/invoke/h2/method/long"}' }),
      config: pipelines({ http: ["alias routeralias"] }),
    });
    const session = connect(sidecar.httpUrl);
    const stream = session.request({ ":path": "/short?q=1", ":method": "POST" });
    stream.end("body");
    expect(await text(stream)).toBe("POST /long?q=1 body");
    session.close();
  });
});

test("an answer streams through a middleware that does not ask for it", async () => {
  const parts = { send: (_text: string): void => {}, end: (): void => {} };
  const server = createServer((incoming, outgoing) => {
    incoming.resume();
    // The sidecar asks for the app's configuration too, at a time of its own.
    if (incoming.url !== "/x") return void outgoing.end();
    outgoing.writeHead(200, { "Content-Type": "text/plain" });
    outgoing.write("one");
    parts.send = (text) => void outgoing.write(text);
    parts.end = () => void outgoing.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await using sidecar = await startSidecar({
    appId: "slow",
    appPort: port,
    nats,
    resources: only("limit", "ratelimit"),
    config: pipelines({ http: ["limit ratelimit"], app: ["limit ratelimit"] }),
  });
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    httpRequest(`${sidecar.httpUrl}/v1.0/invoke/slow/method/x`, resolve).on("error", reject).end();
  });
  const chunks = answer[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  expect((await chunks.next()).value.toString()).toBe("one");
  parts.send("two");
  expect((await chunks.next()).value.toString()).toBe("two");
  parts.end();
  expect((await chunks.next()).done).toBe(true);
  expect(answer.headers["x-rate-limit-limit"]).toBe("100.00, 100.00");
  server.closeAllConnections();
  server.close();
});

test("sentinel limits a resource, before the API", async () => {
  const resource = "GET:/v1.0/invoke/guard/method/limited";
  const flowRules = JSON.stringify([{ resource, threshold: 1, statIntervalInMs: 60_000 }]);
  await using sidecar = await startSidecar({
    appId: "guard",
    appPort: app.port,
    nats,
    resources: only("guard", "sentinel", { appName: "shop", flowRules, hotSpotParamRules: "[{}]" }),
    config: pipelines({ http: ["guard sentinel"] }),
  });
  const limited = "/v1.0/invoke/guard/method/limited";
  // The window's second half may begin between two requests, never a whole one.
  const statuses = [(await sidecar.get(limited)).status, (await sidecar.get(limited)).status];
  expect(statuses).toEqual([200, 429]);
  expect(await sidecar.get(limited)).toMatchObject({ status: 429, text: "Too Many Requests" });
  expect((await sidecar.post(limited)).status).toBe(200);
  expect((await sidecar.get("/v1.0/invoke/guard/method/other")).status).toBe(200);
  await sidecar.logged(/hotSpotParamRules never act/);
});

test("WebSockets pass middlewares of both pipelines, and may be refused", async () => {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  server.on("connection", (socket) => socket.on("message", (data) => socket.send(data as Buffer)));
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const resources = {
    "all.yaml":
      middleware("limit", "ratelimit") +
      middleware("up", "uppercase", { direction: "both" }) +
      middleware("check", "routerchecker", { rule: "method/open|healthz" }),
  };
  const handlers = ["limit ratelimit", "up uppercase", "check routerchecker"];
  const config = pipelines({ http: handlers, app: handlers.slice(0, 2) });
  await using sidecar = await startSidecar({ appId: "socket", appPort: port, nats, resources, config });
  const place = sidecar.httpUrl.replace("http", "ws");
  const open = new WebSocket(`${place}/v1.0/invoke/socket/method/open`);
  const answered = once(open, "message");
  open.once("open", () => open.send("as it is"));
  expect(String((await answered)[0])).toBe("as it is");
  open.terminate();
  const refused = new WebSocket(`${place}/v1.0/invoke/socket/method/other`);
  refused.on("error", () => {});
  const [, refusal] = (await once(refused, "unexpected-response")) as [unknown, IncomingMessage];
  expect(refusal.statusCode).toBe(400);
  expect(await text(refusal)).toBe("INVALID ROUTER");
  for (const socket of server.clients) socket.terminate();
  server.close();
});

test("opa is refused with what to do instead", async () => {
  const resources = only("policy", "opa", { rego: "package http\ndefault allow = true" });
  await using sidecar = await startSidecar({ appId: "opa", nats, resources, wait: "none" });
  expect(await sidecar.exited).toBe(1);
  expect(sidecar.logs()).toMatch(
    /cannot evaluate Rego; ask an OPA server from the app, or use access control/,
  );
});
