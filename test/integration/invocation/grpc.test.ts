// InvokeService and gRPC apps: the four combinations of caller and app protocol, through two real sidecars.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { HTTPExtension_Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { grpcClient, grpcStatus, startApp, startGrpcApp, startNats, startSidecar } from "../../kit/index.ts";
import type { App, GrpcApp, GrpcClient } from "../../kit/index.ts";

const invoke = Dapr.method.invokeService;
let stack: AsyncDisposableStack;
let httpApp: App;
let grpcApp: GrpcApp;
let caller: Awaited<ReturnType<typeof startSidecar>>;
let client: GrpcClient;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  httpApp = stack.use(
    await startApp({
      routes: {
        "/echo": ({ body, headers }) => ({
          headers: { "content-type": headers["content-type"] ?? "", "x-app": "1" },
          body,
        }),
        "/missing": () => ({ status: 404, body: "no such thing" }),
      },
    }),
  );
  grpcApp = stack.use(
    await startGrpcApp({
      onInvoke: ({ method, data, contentType }) => {
        if (method.endsWith("missing")) throw grpcStatus(5, "no such order");
        return { data: { value: data?.value ?? new Uint8Array(0) }, contentType };
      },
    }),
  );
  stack.use(await startSidecar({ appId: "http-app", appPort: httpApp.port, nats }));
  stack.use(await startSidecar({ appId: "grpc-app", appPort: grpcApp.port, appProtocol: "grpc", nats }));
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
  client = stack.use(grpcClient(caller.grpcPort));
});

afterAll(() => stack.disposeAsync());

const bytes = Buffer.from("hello \u0000 ü");

function message(method: string, more: { verb?: HTTPExtension_Verb; contentType?: string } = {}) {
  const extension = more.verb === undefined ? {} : { httpExtension: { verb: more.verb, querystring: "q=1" } };
  return { method, data: { value: bytes }, contentType: more.contentType ?? "text/plain", ...extension };
}

test("gRPC caller, HTTP app: verb, query, metadata and content type in; status and headers out", async () => {
  const request = { id: "http-app", message: message("echo", { verb: HTTPExtension_Verb.PUT }) };
  const answer = await client.call(invoke, request, { metadata: { "x-one": "1" } });
  expect(Buffer.from(answer.message.data!.value).equals(bytes)).toBe(true);
  expect(answer.message.contentType).toBe("text/plain");
  expect(answer.headers.get("dapr-http-status")).toEqual(["200"]);
  expect(answer.headers.get("x-app")).toEqual(["1"]);
  expect(httpApp.requests.at(-1)).toMatchObject({ method: "PUT", path: "/echo", query: "q=1" });
  expect(httpApp.requests.at(-1)!.headers).toMatchObject({ "x-one": "1", "dapr-caller-app-id": "caller" });
});

test("gRPC caller, HTTP app: an error of the app is a status with its body", async () => {
  const request = { id: "http-app", message: message("missing", { verb: HTTPExtension_Verb.GET }) };
  await expect(client.unary(invoke, request)).rejects.toMatchObject({ code: 5, details: "Not Found" });
});

test("gRPC caller, HTTP app: the verb is needed", async () => {
  const request = { id: "http-app", message: message("echo") };
  await expect(client.unary(invoke, request)).rejects.toMatchObject({
    code: 13,
    details:
      "failed to invoke, id: http-app, err: rpc error: code = Internal desc = error invoking app channel: " +
      "rpc error: code = InvalidArgument desc = missing HTTP extension field",
  });
});

test("gRPC caller, gRPC app: data and metadata both ways, status unchanged", async () => {
  const answer = await client.call(
    invoke,
    { id: "grpc-app", message: message("do/it") },
    { metadata: { "x-one": "1" } },
  );
  expect(Buffer.from(answer.message.data!.value).equals(bytes)).toBe(true);
  const { request, metadata } = grpcApp.invocations.at(-1)!;
  expect(request.method.replace(/^\//, "")).toBe("do/it");
  expect(request.contentType).toBe("text/plain");
  expect(metadata.get("x-one")).toEqual(["1"]);
  expect(metadata.get("dapr-caller-app-id")).toEqual(["caller"]);
  const missing = client.unary(invoke, { id: "grpc-app", message: message("missing") });
  await expect(missing).rejects.toMatchObject({ code: 5, details: "no such order" });
});

test("HTTP caller, gRPC app: data out, errors as status and JSON", async () => {
  const answer = await caller.post("/v1.0/invoke/grpc-app/method/sum?x=1", bytes, {
    "content-type": "text/x",
  });
  expect(answer.status).toBe(200);
  expect(answer.bytes.equals(bytes)).toBe(true);
  expect(answer.headers["content-type"]).toBe("text/x");
  expect(grpcApp.invocations.at(-1)!.request.httpExtension).toMatchObject({ querystring: "x=1" });
  const missing = await caller.get("/v1.0/invoke/grpc-app/method/missing");
  expect(missing.status).toBe(404);
  expect(missing.json()).toMatchObject({ code: 5, message: "no such order" });
});

test("unknown app and empty id are Internal, with the words of the contract", async () => {
  await expect(client.unary(invoke, { id: "nobody", message: message("x") })).rejects.toMatchObject({
    code: 13,
    details: "failed to invoke, id: nobody, err: couldn't find service: nobody",
  });
  await expect(client.unary(invoke, { message: message("x") })).rejects.toMatchObject({
    code: 13,
    details: "failed to invoke, id: , err: app id is empty",
  });
});

test("a service that the sidecar does not have needs the name of an app, and the sidecar lives on", async () => {
  await expect(client.raw("/some.Service/Do", Buffer.from("x"))).rejects.toMatchObject({ code: 2 });
  expect((await caller.get("/v1.0/healthz")).status).toBe(204);
});
