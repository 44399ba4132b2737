// Policies around service invocation, with one Resiliency that has each kind of policy and an app that fails on
// command: how often the app is called, when, and what the client gets. Real sidecars, HTTP and gRPC.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { HTTPExtension_Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  eventually,
  grpcClient,
  type GrpcError,
  grpcStatus,
  startApp,
  startGrpcApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import type { App, GrpcApp, GrpcClient, Nats, Sidecar } from "../../kit/index.ts";
import { breakerState, seriesOf, valueOf } from "./series.ts";

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;
let own: App;
let grpcApp: GrpcApp;
let caller: Sidecar;
let gone: Sidecar;
let shop: Sidecar;
let grpc: GrpcClient;

/** An id may be written with or without its namespace, and policies go by the id as written. */
const resiliency = (port: number): string => `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: kinds, namespace: default }
scopes: [caller]
spec:
  policies:
    timeouts:
      quick: 300ms
      plain: 30000
    retries:
      steady: { policy: constant, duration: 200, maxRetries: 3 }
      growing: { policy: exponential, maxInterval: 10s, maxRetries: 2 }
      picky:
        policy: constant
        duration: 20ms
        maxRetries: 2
        matching: { httpStatusCodes: "429,500-503", gRPCStatusCodes: "14" }
      DefaultAppRetryPolicy: { policy: constant, duration: 10ms, maxRetries: 1 }
      DaprBuiltInServiceRetries: { policy: constant, duration: 50ms, maxRetries: 1 }
    circuitBreakers:
      fragile: { maxRequests: 1, timeout: 5s, trip: consecutiveFailures >= 3 }
  targets:
    apps:
      shop: { retry: picky }
      shop.default: { timeout: quick, retry: steady }
      stock.default: { retry: steady }
      caller: { retry: picky }
      grpc: { retry: picky }
      grpc.default: { circuitBreaker: fragile }
      growing: { retry: growing }
      broken: { circuitBreaker: fragile }
      empty: {}
      "http://127.0.0.1:${port}": { retry: picky, timeout: plain }
`;

/** Lets the caller in, but for one method. */
const access = `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: access }
spec:
  accessControl:
    policies:
      - appId: caller
        namespace: default
        trustDomain: public
        operations: [{ name: /denied, httpVerb: ["*"], action: deny }]
`;

const endpoint = (name: string, port: number): string => `apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: { name: ${name} }
spec: { baseUrl: "http://127.0.0.1:${port}" }
`;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(await startApp());
  own = stack.use(await startApp());
  grpcApp = stack.use(await startGrpcApp());
  shop = stack.use(await startSidecar({ appId: "shop", appPort: app.port, nats }));
  stack.use(await startSidecar({ appId: "stock", appPort: app.port, nats }));
  gone = stack.use(await startSidecar({ appId: "gone", appPort: app.port, nats, config: access }));
  stack.use(await startSidecar({ appId: "grpc", appPort: grpcApp.port, appProtocol: "grpc", nats }));
  const endpoints = ["growing", "broken", "empty", "default"].map((name) => endpoint(name, app.port));
  caller = stack.use(
    await startSidecar({
      appId: "caller",
      appPort: own.port,
      nats,
      resources: { "endpoints.yaml": endpoints.join("---\n"), "resiliency.yaml": resiliency(app.port) },
    }),
  );
  grpc = stack.use(grpcClient(caller.grpcPort));
});

afterAll(() => stack.disposeAsync());

let counter = 0;
let method: string;

// Each test has a method of its own, and with it a breaker of its own.
beforeEach(() => {
  method = `m${++counter}`;
});

/** Programs the answers to the test's method, one after the other; the last one repeats. */
function answers(where: App, ...statuses: number[]): void {
  let calls = 0;
  where.on(`/${method}`, () => {
    const status = statuses[Math.min(calls++, statuses.length - 1)]!;
    return { status, body: { status, call: calls } };
  });
}

function invoke(id: string, body: unknown = { order: 1 }): ReturnType<Sidecar["post"]> {
  return caller.post(`/v1.0/invoke/${id}/method/${method}`, body);
}

/** Times between the requests of the test's method, ms. */
function gaps(where: App): number[] {
  const at = where.requestsTo(`/${method}`).map(({ atMs }) => atMs);
  return at.slice(1).map((ms, i) => ms - at[i]!);
}

function calls(where: App): number {
  return where.requestsTo(`/${method}`).length;
}

function invokeGrpc(id: string): Promise<unknown> {
  const message = { method, httpExtension: { verb: HTTPExtension_Verb.POST } };
  return grpc.unary(Dapr.method.invokeService, { id, message });
}

async function failureOf(call: Promise<unknown>): Promise<string> {
  const error = (await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )) as GrpcError | undefined;
  return error === undefined ? "none" : `${error.code} ${error.details}`;
}

describe("retries of a remote app", () => {
  test("repeat the same request until the app answers well", async () => {
    answers(app, 503, 500, 200);
    const answer = await invoke("shop");
    expect([answer.status, answer.text]).toEqual([200, '{"status":200,"call":3}']);
    const bodies = app.requestsTo(`/${method}`).map(({ body }) => body.toString());
    expect(bodies).toEqual(['{"order":1}', '{"order":1}', '{"order":1}']);
  });

  test("end with the app's last answer", async () => {
    answers(app, 503);
    const answer = await invoke("shop");
    expect([answer.status, answer.text, calls(app)]).toEqual([503, '{"status":503,"call":3}', 3]);
  });

  test.each([404, 400, 504, 307])("leave out %i, which no range holds", async (status) => {
    answers(app, status, 200);
    expect((await invoke("shop")).status).toBe(status);
    expect(calls(app)).toBe(1);
  });

  test("wait as long as their policy says, for every code when none is listed", async () => {
    answers(app, 404, 500, 200);
    expect((await invoke("stock.default")).status).toBe(200);
    for (const gapMs of gaps(app)) expect(gapMs).toBeGreaterThanOrEqual(195);
    expect(calls(app)).toBe(3);
  });

  test("never repeat a body of unknown length", async () => {
    answers(app, 503, 200);
    const url = `${caller.httpUrl}/v1.0/invoke/shop/method/${method}`;
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode("piece"));
        controller.close();
      },
    });
    const answer = await fetch(url, { method: "POST", body, duplex: "half" });
    expect([answer.status, calls(app)]).toEqual([503, 1]);
  });

  test("repeat a body that is too long for one message", async () => {
    const sizes: number[] = [];
    app.on(`/${method}`, ({ body }) => ({ status: sizes.push(body.length) < 3 ? 500 : 200 }));
    const answer = await caller.http(`/v1.0/invoke/shop/method/${method}`, {
      method: "POST",
      body: Buffer.alloc(3_000_000, "x"),
    });
    expect([answer.status, sizes]).toEqual([200, [3_000_000, 3_000_000, 3_000_000]]);
  });

  test("end when the client goes away", async () => {
    answers(app, 500);
    const gone = new AbortController();
    const call = caller.http(`/v1.0/invoke/stock.default/method/${method}`, { signal: gone.signal });
    await app.received(`/${method}`, 1);
    gone.abort();
    await expect(call).rejects.toThrow();
    // The next retry would come after 200 ms; another call shows that more time than that has passed.
    method = `${method}-after`;
    answers(app, 500, 500, 500, 200);
    expect((await invoke("stock.default")).status).toBe(200);
    expect(app.requestsTo(`/${method.replace("-after", "")}`).length).toBeLessThanOrEqual(2);
  });
});

describe("over gRPC", () => {
  test("every failure of the app is retried, whatever its code", async () => {
    answers(app, 404, 409, 200);
    await invokeGrpc("shop");
    expect(calls(app)).toBe(3);
    method = `${method}-last`;
    answers(app, 404);
    expect(await failureOf(invokeGrpc("shop"))).toBe("5 Not Found");
    expect(calls(app)).toBe(3);
  });

  test("so is every status of a gRPC app", async () => {
    let count = 0;
    grpcApp.handlers.onInvoke = () => {
      if (++count < 3) throw grpcStatus(9, "not now");
      return {};
    };
    await invokeGrpc("grpc");
    expect(count).toBe(3);
  });

  test("but a gRPC app's status is an answer to an HTTP caller", async () => {
    let count = 0;
    grpcApp.handlers.onInvoke = () => {
      count++;
      throw grpcStatus(14, "not now");
    };
    const answer = await invoke("grpc");
    expect([answer.status, answer.json(), count]).toEqual([503, { code: 14, message: "not now" }, 1]);
  });
});

describe("timeouts", () => {
  test("end each attempt and say so", async () => {
    app.on(`/${method}`, () => new Promise(() => {}));
    const startMs = performance.now();
    const answer = await invoke("shop.default");
    // The app may be late to see a try, so the client's time counts: four tries and three waits.
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(4 * 300 + 3 * 200 - 10);
    expect(answer.status).toBe(500);
    expect(answer.json()).toEqual({
      errorCode: "ERR_DIRECT_INVOKE",
      message: "failed to invoke, id: shop.default, err: context deadline exceeded",
    });
    await app.received(`/${method}`, 4);
    expect(calls(app)).toBe(4);
  });

  test("leave a body alone whose head came in time", async () => {
    const late = Buffer.alloc(2_000_000, "x");
    app.on(`/${method}`, () => ({ body: late }));
    await eventually(async () => expect((await invoke("shop.default")).bytes.equals(late)).toBe(true));
  });

  test("are DeadlineExceeded over gRPC", async () => {
    app.on(`/${method}`, () => new Promise(() => {}));
    expect(await failureOf(invokeGrpc("shop.default"))).toBe("4 context deadline exceeded");
  });
});

describe("circuit breakers", () => {
  test("open, refuse, try one call and close again, each method by itself", async () => {
    answers(app, 500, 500, 500, 200);
    for (let i = 0; i < 3; i++) expect((await invoke("broken")).status).toBe(500);
    expect(await breakerState(caller, "app_broken")).toBe("open");
    const refused = await invoke("broken");
    expect([refused.status, refused.json()]).toEqual([
      500,
      {
        errorCode: "ERR_DIRECT_INVOKE",
        message: "failed to invoke, id: broken, err: circuit breaker is open",
      },
    ]);
    expect(calls(app)).toBe(3);
    const closed = async (): Promise<void> => expect((await invoke("broken")).status).toBe(200);
    await eventually(closed, { everyMs: 100, timeoutMs: 30_000 });
    expect(calls(app)).toBe(4);
    expect(await breakerState(caller, "app_broken")).toBe("closed");
    for (const [status, count] of [
      ["open", 1],
      ["half-open", 1],
      ["closed", 1],
    ] as const) {
      const labels = { policy: "circuitbreaker", status, target: "app_broken", flow_direction: "outbound" };
      expect(await valueOf(caller, "resiliency_activations_total", labels)).toBe(count);
    }
    await caller.logged(/calls to broken, .*: the circuit breaker is closed now/);
  });

  test("refuse over gRPC with their bare words, and let other methods through", async () => {
    const failing = method;
    grpcApp.handlers.onInvoke = (request) => {
      if (request.method === failing) throw grpcStatus(13, "broken");
      return {};
    };
    for (let i = 0; i < 3; i++) expect(await failureOf(invokeGrpc("grpc.default"))).toBe("13 broken");
    expect(await failureOf(invokeGrpc("grpc.default"))).toBe("2 circuit breaker is open");
    method = `${method}-other`;
    expect(await failureOf(invokeGrpc("grpc.default"))).toBe("none");
  });

  test("let one call through when half-open and refuse those beside it", async () => {
    const trial = Promise.withResolvers<void>();
    let count = 0;
    app.on(`/${method}`, async () => {
      if (++count <= 3) return { status: 500 };
      await trial.promise;
      return { status: 200 };
    });
    for (let i = 0; i < 3; i++) await invoke("broken");
    const first = eventually(async () => (await invoke("broken")).status === 200, {
      everyMs: 50,
      timeoutMs: 30_000,
    });
    await app.received(`/${method}`, 4, 30_000);
    expect((await invoke("broken")).json<{ message: string }>().message).toContain("too many requests");
    trial.resolve();
    await first;
    expect(calls(app)).toBe(4);
  });
});

describe("other targets", () => {
  test("the app itself, called by its own id", async () => {
    answers(own, 429, 500, 200);
    expect((await invoke("caller")).status).toBe(200);
    expect(calls(own)).toBe(3);
  });

  test("an HTTP endpoint, with growing waits", async () => {
    answers(app, 500, 500, 200);
    expect((await invoke("growing")).status).toBe(200);
    const [first, second] = gaps(app);
    expect(first).toBeGreaterThanOrEqual(245);
    expect(second).toBeGreaterThanOrEqual(370);
  });

  test("a URL, by its base", async () => {
    answers(app, 500, 500, 200);
    const id = encodeURIComponent(`http://127.0.0.1:${app.port}`);
    expect((await invoke(id)).status).toBe(200);
    expect(calls(app)).toBe(3);
  });

  test("those without an entry get the default policy, those with an empty one none", async () => {
    answers(app, 500);
    expect([(await invoke("default")).status, calls(app)]).toEqual([500, 2]);
    method = `${method}-empty`;
    answers(app, 500);
    expect([(await invoke("empty")).status, calls(app)]).toEqual([500, 1]);
  });
});

test("the metrics count loads, calls under a policy and what policies did", async () => {
  const labels = { name: "kinds", namespace: "default" };
  expect(await seriesOf(caller, "resiliency_loaded")).toEqual([
    { labels: { app_id: "caller", ...labels }, value: 1 },
  ]);
  const retry = { ...labels, policy: "retry", target: "app_shop", flow_direction: "outbound", status: "" };
  const before = await valueOf(caller, "resiliency_count", retry);
  const activeBefore = await valueOf(caller, "resiliency_activations_total", retry);
  answers(app, 500, 500, 200);
  await invoke("shop");
  await invoke("shop");
  expect((await valueOf(caller, "resiliency_count", retry)) - before).toBe(2);
  expect((await valueOf(caller, "resiliency_activations_total", retry)) - activeBefore).toBe(1);
});

test("a denied call is no failure: it is not made again", async () => {
  method = "denied";
  expect((await invoke("gone")).status).toBe(403);
  expect(caller.logs()).not.toContain("calls to gone: try 1 failed");
});

describe("an app whose sidecar was killed", () => {
  type Answer = { status: number; message: string; tookMs: number };

  async function message(id: string): Promise<Answer> {
    const startMs = performance.now();
    const answer = await invoke(id);
    const { message: text } = answer.json<{ message: string }>();
    return { status: answer.status, message: text, tookMs: performance.now() - startMs };
  }

  test("is tried again by the built-in policy as redefined, at least 3 times", async () => {
    await gone.kill();
    // By the policy that is built in it were 6 s; what else holds up a call does not do so each time.
    await eventually(async () => {
      const { status, message: text, tookMs } = await message("gone");
      expect(status).toBe(500);
      expect(text).toContain(
        "failed to invoke target gone after 3 retries. Error: rpc error: code = Unavailable",
      );
      // Twice, since the default policy of apps stands around it.
      expect(tookMs).toBeGreaterThanOrEqual(2 * 3 * 50 - 10);
      expect(tookMs).toBeLessThan(5_000);
    });
  });

  test("is not, when it has an entry", async () => {
    await shop.kill();
    expect((await message("shop")).message).toContain("couldn't find service: shop");
  });
});
