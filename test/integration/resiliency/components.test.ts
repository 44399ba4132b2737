// Policies around components, seen from outside: an app and a server that fail on command, and a NATS server that
// stands still. One sidecar beside an HTTP app, one beside a gRPC app, each with its Resiliency.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import * as callback from "../../../proto/gen/dapr/proto/runtime/v1/appcallback_pb.ts";
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
import type { App, AppReply, GrpcApp, Nats, Sidecar } from "../../kit/index.ts";
import { breakerState, valueOf } from "./series.ts";

const Status = callback.TopicEventResponse_TopicEventResponseStatus;

const component = (name: string, type: string, metadata: Readonly<Record<string, string>> = {}): string =>
  `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: ${name} }
spec:
  type: ${type}
  version: v1
  metadata: [${Object.entries(metadata)
    .map(([key, value]) => `{ name: ${key}, value: "${value}" }`)
    .join(", ")}]
`;

const subscription = (topic: string, deadLetter: boolean): string => `apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: { name: ${topic} }
spec: { pubsubname: ${topic}, topic: ${topic}, route: /${topic}${deadLetter ? ", deadLetterTopic: dead" : ""} }
`;

/** One pub/sub component for each policy; its name is also that of its topic and of its route. */
const buses = ["retried", "picky", "slow", "broken"];

const resiliency = `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: components }
spec:
  policies:
    timeouts: { quick: 400ms }
    retries:
      steady: { policy: constant, duration: 100ms, maxRetries: 2 }
      patient: { policy: constant, duration: 100ms, maxRetries: 30 }
      byCode:
        policy: constant
        duration: 20ms
        maxRetries: 2
        matching: { httpStatusCodes: "503", gRPCStatusCodes: "14" }
      DefaultStatestoreComponentOutboundRetryPolicy: { policy: constant, duration: 10ms, maxRetries: 1 }
      DefaultBindingComponentOutboundRetryPolicy: { policy: constant, duration: 10ms, maxRetries: 1 }
    circuitBreakers:
      fragile: { timeout: 60s, trip: consecutiveFailures >= 3 }
  targets:
    components:
      retried: { inbound: { retry: steady } }
      hasty: { outbound: { timeout: quick } }
      picky: { inbound: { retry: byCode } }
      slow: { inbound: { timeout: quick, retry: patient } }
      broken: { inbound: { circuitBreaker: fragile } }
      statestore: { outbound: { timeout: quick } }
      hook: { outbound: { retry: steady } }
      tick: { inbound: { retry: byCode } }
`;

let stack: AsyncDisposableStack;
let nats: Nats;
let app: App;
let grpcApp: GrpcApp;
let sidecar: Sidecar;
let grpcSidecar: Sidecar;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  app = stack.use(await startApp());
  grpcApp = stack.use(await startGrpcApp());
  const resources = {
    "resiliency.yaml": resiliency,
    "buses.yaml": [...buses, "hasty"].map((name) => component(name, "pubsub.nats")).join("---\n"),
    "subscriptions.yaml": buses.map((name) => subscription(name, name !== "broken")).join("---\n"),
    "others.yaml": [
      component("statestore", "state.nats"),
      component("hook", "bindings.http", { url: `${app.url}/hook` }),
      component("plain", "bindings.http", { url: `${app.url}/plain` }),
      component("tick", "bindings.cron", { schedule: "@every 1s", direction: "input" }),
    ].join("---\n"),
  };
  app.on("/tick", () => undefined);
  sidecar = stack.use(await startSidecar({ appId: "http", appPort: app.port, nats, resources }));
  grpcSidecar = stack.use(
    await startSidecar({ appId: "grpc", appPort: grpcApp.port, appProtocol: "grpc", nats, resources }),
  );
  // What ends at a dead-letter topic shows that the sidecar is done with an event.
  for (const name of buses) app.on(`/${name}`, () => undefined);
});

afterAll(() => stack.disposeAsync());
afterEach(() => nats.resume());

/** Programs the app's answers to a route; the last one repeats. Gives the times of the calls that follow. */
function answers(route: string, ...replies: (AppReply | "hang")[]): () => number[] {
  const from = app.requestsTo(`/${route}`).length;
  let calls = 0;
  app.on(`/${route}`, () => {
    const reply = replies[Math.min(calls++, replies.length - 1)]!;
    return reply === "hang" ? new Promise(() => {}) : reply;
  });
  return () =>
    app
      .requestsTo(`/${route}`)
      .slice(from)
      .map(({ atMs }) => atMs);
}

async function publish(to: Sidecar, name: string): Promise<void> {
  expect((await to.post(`/v1.0/publish/${name}/${name}`, { of: name })).status).toBe(204);
}

/** How many events of a topic were answered with that outcome, as the metrics tell. */
function outcomes(to: Sidecar, name: string, outcome: string): Promise<number> {
  const labels = { component: name, process_status: outcome, topic: name };
  return valueOf(to, "component_pubsub_ingress_count", labels);
}

/** Publishes an event and waits until it was answered with that outcome. */
async function published(to: Sidecar, name: string, outcome: string): Promise<void> {
  const before = await outcomes(to, name, outcome);
  await publish(to, name);
  await eventually(async () => (await outcomes(to, name, outcome)) > before, { timeoutMs: 20_000 });
}

const retryAnswer = { body: { status: "RETRY" } };

describe("delivery to an HTTP app", () => {
  test("is repeated as its policy says, then done", async () => {
    const calls = answers("retried", { status: 500 }, retryAnswer, { status: 200 });
    await published(sidecar, "retried", "success");
    const [first, second, third, ...more] = calls();
    expect(more).toEqual([]);
    expect(second! - first!).toBeGreaterThanOrEqual(95);
    expect(third! - second!).toBeGreaterThanOrEqual(95);
    const labels = { flow_direction: "inbound", policy: "retry", target: "Pubsub_retried" };
    expect(await valueOf(sidecar, "resiliency_activations_total", labels)).toBe(1);
  });

  test("ends with the dead-letter topic when no try succeeds", async () => {
    const calls = answers("retried", { status: 500 });
    await published(sidecar, "retried", "retry");
    await sidecar.logged(/event of topic retried of retried goes to the dead-letter topic dead/);
    expect(calls()).toHaveLength(3);
  });

  test("is repeated for the listed codes and for RETRY, not for others", async () => {
    const listed = answers("picky", { status: 503 }, retryAnswer, { status: 200 });
    await published(sidecar, "picky", "success");
    expect(listed()).toHaveLength(3);
    const unlisted = answers("picky", { status: 500 });
    await published(sidecar, "picky", "retry");
    expect(unlisted()).toHaveLength(1);
  });

  test("is given up at its timeout and repeated", async () => {
    const calls = answers("slow", "hang", { status: 200 });
    const startMs = performance.now();
    await published(sidecar, "slow", "success");
    // The app may be late to see the first try, so the times of its requests say nothing.
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(400 + 100 - 10);
    expect(calls().length).toBeGreaterThanOrEqual(2);
    await sidecar.logged(/component slow, inbound: try 1 failed, .*context deadline exceeded/);
  });

  test("stops while the breaker is open; the broker keeps the events", async () => {
    const calls = answers("broken", { status: 500 });
    await publish(sidecar, "broken");
    await eventually(async () => (await breakerState(sidecar, "Pubsub_broken")) === "open", {
      timeoutMs: 20_000,
    });
    await sidecar.logged(/goes back to the broker: circuit breaker is open/, 20_000);
    expect(calls()).toHaveLength(3);
  });
});

describe("delivery to a gRPC app", () => {
  test("is repeated for the listed codes and for RETRY, not for others", async () => {
    // The events of the tests before came here too, and must not be counted below.
    const earlier =
      (await outcomes(sidecar, "picky", "success")) + (await outcomes(sidecar, "picky", "retry"));
    await eventually(async () => expect(await outcomes(grpcSidecar, "picky", "success")).toBe(earlier));
    let calls = 0;
    grpcApp.handlers.onTopicEvent = (event) => {
      if (event.topic !== "picky") return Status.SUCCESS;
      calls++;
      if (calls === 1) throw grpcStatus(14, "not now");
      return calls === 2 ? Status.RETRY : Status.SUCCESS;
    };
    await published(grpcSidecar, "picky", "success");
    expect(calls).toBe(3);
    let others = 0;
    grpcApp.handlers.onTopicEvent = (event) => {
      if (event.topic !== "picky") return Status.SUCCESS;
      others++;
      throw grpcStatus(13, "never");
    };
    await published(grpcSidecar, "picky", "retry");
    expect(others).toBe(1);
  });
});

describe("bindings", () => {
  const create = { operation: "create", data: { a: 1 } };

  test("out are repeated as their policy says", async () => {
    const calls = answers("hook", { status: 500 }, { status: 503 }, { status: 200, body: "done" });
    const answer = await sidecar.post("/v1.0/bindings/hook", create);
    expect([answer.status, answer.text, calls().length]).toEqual([200, "done", 3]);
  });

  test("out without an entry get the default of their kind", async () => {
    const calls = answers("plain", { status: 500 });
    const answer = await sidecar.post("/v1.0/bindings/plain", create);
    expect([answer.status, calls().length]).toEqual([500, 2]);
  });

  test("in are repeated by code", async () => {
    const failed = (): Promise<number> =>
      valueOf(sidecar, "component_input_binding_count", { component: "tick", success: "false" });
    const before = await failed();
    // 503 is on the list of codes, 500 is not: the answer after it belongs to the next event.
    const calls = answers("tick", { status: 503 }, { status: 500 }, { status: 200 });
    await eventually(async () => (await failed()) > before);
    expect(calls().length).toBeGreaterThanOrEqual(2);
    await eventually(() => calls().length >= 3);
    expect(await failed()).toBe(before + 1);
    app.on("/tick", () => undefined);
  });
});

describe("while NATS stands still", () => {
  test("a state call ends at its timeout, over HTTP and gRPC", async () => {
    // The first use makes the bucket, which may take longer than the timeout.
    const save = () => sidecar.post("/v1.0/state/statestore", [{ key: "a", value: 1 }]);
    await eventually(async () => expect((await save()).status).toBe(204));
    await nats.pause();
    const answer = await sidecar.get("/v1.0/state/statestore/a");
    expect([answer.status, answer.json()]).toEqual([
      500,
      {
        errorCode: "ERR_STATE_GET",
        message: "fail to get a from state store statestore: context deadline exceeded",
      },
    ]);
    using grpc = grpcClient(sidecar.grpcPort);
    const call = grpc.unary(Dapr.method.getState, { storeName: "statestore", key: "a" });
    const error = (await call.catch((thrown: unknown) => thrown)) as GrpcError;
    expect(`${error.code} ${error.details}`).toBe(
      "13 fail to get a from state store statestore: context deadline exceeded",
    );
    nats.resume();
    await eventually(async () => (await sidecar.get("/v1.0/state/statestore/a")).text === "1");
  });

  test("a publish ends at its timeout", async () => {
    await nats.pause();
    const answer = await sidecar.post("/v1.0/publish/hasty/other", { a: 1 });
    expect(answer.status).toBe(500);
    expect(answer.json<{ message: string }>().message).toBe(
      "error when publishing to topic other in pubsub hasty: context deadline exceeded",
    );
    const labels = { flow_direction: "outbound", policy: "timeout", target: "Pubsub_hasty" };
    expect(await valueOf(sidecar, "resiliency_activations_total", labels)).toBe(1);
  });
});
