// Policies around proxied calls: Resiliency on the caller's side, with and without dapr-stream, and access control on
// the callee's.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { eventually, startNats, startSidecar } from "../../kit/index.ts";
import { encodeFrame } from "../../../src/lib/grpc-wire.ts";
import { answer, type Ended, type RawApp, rawClient, type RawClient, startRawApp } from "./raw-grpc.ts";

const resiliency = `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: calls }
spec:
  policies:
    timeouts: { short: 2s }
    retries:
      twice: { policy: constant, duration: 10ms, maxRetries: 2, matching: { gRPCStatusCodes: "14" } }
    circuitBreakers:
      quick: { timeout: 60s, trip: consecutiveFailures > 1 }
  targets:
    apps:
      retried: { retry: twice }
      hurried: { timeout: short }
      both: { timeout: short, retry: twice }
      broken: { circuitBreaker: quick }
`;
const lists = `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: lists }
spec:
  api:
    allowed: [{ name: state, version: v1, protocol: grpc }]
`;
const configuration = `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: guarded }
spec:
  accessControl:
    defaultAction: deny
    policies:
      - appId: caller
        namespace: default
        trustDomain: public
        defaultAction: deny
        operations: [{ name: /a.B/Allowed, action: allow }]
`;

const stack = new AsyncDisposableStack();
let app: RawApp;
let client: RawClient;
let own: RawClient;

beforeAll(async () => {
  const nats = stack.use(await startNats());
  app = stack.use(await startRawApp());
  const grpc = { appPort: app.port, appProtocol: "grpc", nats };
  for (const appId of ["retried", "hurried", "both", "broken"])
    stack.use(await startSidecar({ appId, ...grpc }));
  const guarded = stack.use(await startSidecar({ appId: "guarded", config: configuration, ...grpc }));
  const resources = { "resiliency.yaml": resiliency };
  const caller = stack.use(await startSidecar({ appId: "caller", nats, resources, config: lists }));
  client = stack.use(rawClient(caller.grpcPort));
  own = stack.use(rawClient(guarded.grpcPort));
});
afterAll(() => stack.disposeAsync());
beforeEach(() => void app.calls.splice(0));

async function call(
  id: string,
  path: string,
  by = client,
): Promise<Ended & { readonly messages: readonly string[] }> {
  const made = by.call(path, { "dapr-app-id": id });
  made.stream.end(encodeFrame(Buffer.from("m")));
  return { ...(await made.ended), messages: made.messages.map(String) };
}

/** Fails so many times with this code, then answers. */
function failing(path: string, times: number, code: number): void {
  let left = times;
  app.on(path, (stream) => {
    const status = left-- > 0 ? String(code) : "0";
    answer(stream, {}, { "grpc-status": status });
    if (status === "0") stream.write(encodeFrame(Buffer.from("done")));
    stream.resume().once("end", () => stream.end());
  });
}

test("a call is made again while the app's status is one of those that match", async () => {
  failing("/a.B/Twice", 2, 14);
  expect(await call("retried", "/a.B/Twice")).toMatchObject({ code: 0, messages: ["done"] });
  expect(app.calls.length).toBe(3);
  failing("/a.B/Thrice", 3, 14);
  expect(await call("retried", "/a.B/Thrice")).toMatchObject({ code: 14 });
  failing("/a.B/Other", 1, 5);
  expect(await call("retried", "/a.B/Other")).toMatchObject({ code: 5 });
  expect(app.calls.length).toBe(3 + 3 + 1);
});

test("a request that is still coming is made again from its beginning", async () => {
  failing("/a.B/Coming", 1, 14);
  const made = client.call("/a.B/Coming", { "dapr-app-id": "retried" });
  const frame = encodeFrame(Buffer.alloc(100_000, 7));
  made.stream.write(frame.subarray(0, 50_000));
  await eventually(() => expect(app.calls.length).toBe(1));
  made.stream.end(frame.subarray(50_000));
  expect(await made.ended).toMatchObject({ code: 0 });
  expect(app.calls.length).toBe(2);
});

test("with retries, a second message ends the call: it could not be made again", async () => {
  const made = client.call("/a.B/Echo", { "dapr-app-id": "retried" });
  made.send(Buffer.from("one"));
  await eventually(() => expect(made.messages.length).toBe(1));
  made.send(Buffer.from("two"));
  const text = "cannot use resiliency policies with retries on streaming RPCs";
  expect(await made.ended).toMatchObject({ code: 9, message: text });
  const both = client.call("/a.B/Echo", { "dapr-app-id": "retried" });
  const frame = encodeFrame(Buffer.from("m"));
  both.stream.end(Buffer.concat([frame, frame]));
  expect(await both.ended).toMatchObject({ code: 9, message: text });
  await eventually(() => expect(app.open()).toBe(0));
});

test("what the client has begun to get is not asked for again", async () => {
  let end: (() => void) | undefined;
  app.on("/a.B/Half", (stream) => {
    answer(stream, {}, { "grpc-status": "14" });
    stream.write(encodeFrame(Buffer.from("half")));
    end = () => void stream.end();
  });
  const made = client.call("/a.B/Half", { "dapr-app-id": "retried" });
  made.stream.end(encodeFrame(Buffer.from("m")));
  await eventually(() => expect(made.messages.map(String)).toEqual(["half"]));
  end!();
  expect(await made.ended).toMatchObject({ code: 14 });
  expect(made.messages.length).toBe(1);
  expect(app.calls.length).toBe(1);
});

test("the timeout covers the whole call: before its answer, and in the middle of it", async () => {
  app.on("/a.B/Never", (stream) => void stream.resume());
  const late = { code: 4, message: "context deadline exceeded" };
  expect(await call("hurried", "/a.B/Never")).toMatchObject(late);
  app.on("/a.B/Begun", (stream) => {
    answer(stream, {});
    stream.write(encodeFrame(Buffer.from("begun")));
  });
  expect(await call("hurried", "/a.B/Begun")).toMatchObject({ ...late, messages: ["begun"] });
  expect(await call("both", "/a.B/Never")).toMatchObject(late);
  // With retries each attempt has its time.
  expect(app.calls.filter(({ path }) => path === "/a.B/Never").length).toBe(1 + 3);
  await eventually(() => expect(app.open()).toBe(0));
});

test("with dapr-stream both cover the opening alone: streams of any length, with any messages", async () => {
  const made = client.call("/a.B/Echo", { "dapr-app-id": "both", "dapr-stream": "true" });
  for (let i = 1; i <= 6; i++) {
    made.send(Buffer.from(String(i)));
    await eventually(() => expect(made.messages.length).toBe(i));
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  made.stream.end();
  expect(await made.ended).toMatchObject({ code: 0 });
  failing("/a.B/Once", 1, 14);
  const once = client.call("/a.B/Once", { "dapr-app-id": "both", "dapr-stream": "1" });
  once.stream.end(encodeFrame(Buffer.from("m")));
  expect(await once.ended).toMatchObject({ code: 14 });
});

test("the circuit breaker opens for one method of the app", async () => {
  failing("/a.B/Bad", 100, 13);
  for (let i = 0; i < 2; i++) expect((await call("broken", "/a.B/Bad")).code).toBe(13);
  expect(await call("broken", "/a.B/Bad")).toMatchObject({ code: 2, message: "circuit breaker is open" });
  expect((await call("broken", "/a.B/Good")).code).toBe(0);
  expect(app.calls.length).toBe(3);
});

test("a client that goes away ends its call under a policy as well", async () => {
  app.on("/a.B/Wait", (stream) => void stream.resume());
  const made = client.call("/a.B/Wait", { "dapr-app-id": "retried" });
  made.send(Buffer.from("m"));
  await eventually(() => expect(app.open()).toBe(1));
  made.reset();
  await eventually(() => expect(app.open()).toBe(0));
  expect(app.calls.length).toBe(1);
});

test("access control is asked for proxied calls, those of the own app too", async () => {
  expect((await call("guarded", "/a.B/Allowed")).code).toBe(0);
  const denied = (id: string, operation: string): string =>
    "access control policy has denied access to id: " +
    `spiffe://public/ns/default/${id} operation: ${operation} verb: NONE`;
  expect(await call("guarded", "/a.B/Other")).toMatchObject({
    code: 7,
    message: denied("caller", "/a.B/Other"),
  });
  expect(await call("guarded", "/a.B/Own", own)).toMatchObject({
    code: 7,
    message: denied("guarded", "/a.B/Own"),
  });
  expect(app.calls.map(({ path }) => path)).toEqual(["/a.B/Allowed"]);
});

test("lists of allowed APIs, which the caller has here, mean Dapr's own methods only", async () => {
  expect((await call("guarded", "/a.B/Allowed")).code).toBe(0);
  const metadata = await call("guarded", "/dapr.proto.runtime.v1.Dapr/GetMetadata");
  expect([metadata.code, metadata.message]).toEqual([12, "Not Implemented"]);
});
