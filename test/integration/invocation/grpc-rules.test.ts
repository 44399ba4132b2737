// The small print of InvokeService through two sidecars: methods, metadata, types, statuses, limits and tokens.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyPack, anyUnpack } from "@bufbuild/protobuf/wkt";
import { Metadata } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HTTPExtension_Verb as Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import { ErrorInfoSchema } from "../../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../../proto/gen/google/rpc/status_pb.ts";
import {
  freePort,
  grpcClient,
  GrpcError,
  grpcStatus,
  startApp,
  startGrpcApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import type { App, AppRequest, GrpcApp, GrpcClient, Nats, Sidecar } from "../../kit/index.ts";

const invoke = Dapr.method.invokeService;
let stack: AsyncDisposableStack;
let nats: Nats;
let httpApp: App;
let grpcApp: GrpcApp;
let client: GrpcClient;
/** Clients of the apps' own sidecars, for self-calls. */
let ownHttp: GrpcClient;
let ownGrpc: GrpcClient;
let guarded: Sidecar;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  nats = stack.use(await startNats());
  httpApp = stack.use(await startApp({ fallback: () => ({ body: "ok" }) }));
  grpcApp = stack.use(await startGrpcApp());
  const env = { APP_API_TOKEN: "app token" };
  const flags = ["--max-body-size=100Ki"];
  const http = stack.use(await startSidecar({ appId: "http-app", appPort: httpApp.port, nats, env }));
  const grpc = stack.use(
    await startSidecar({ appId: "grpc-app", appPort: grpcApp.port, appProtocol: "grpc", nats, env, flags }),
  );
  const caller = stack.use(await startSidecar({ appId: "caller", nats }));
  guarded = stack.use(await startSidecar({ appId: "guarded", nats, env: { DAPR_API_TOKEN: "open" } }));
  client = stack.use(grpcClient(caller.grpcPort));
  ownHttp = stack.use(grpcClient(http.grpcPort));
  ownGrpc = stack.use(grpcClient(grpc.grpcPort));
});

afterAll(() => stack.disposeAsync());

const bytes = Buffer.from("hello \u0000 ü");

function request(
  id: string,
  method: string,
  more: { verb?: Verb; contentType?: string; typeUrl?: string; data?: Buffer } = {},
) {
  const { verb = Verb.POST, contentType = "", typeUrl = "", data = bytes } = more;
  return {
    id,
    message: {
      method,
      data: { typeUrl, value: data },
      contentType,
      httpExtension: { verb, querystring: "" },
    },
  };
}

function last(): AppRequest {
  return httpApp.requests.at(-1)!;
}

/** The error of a call that fails. */
async function failure(call: Promise<unknown>): Promise<GrpcError> {
  const outcome = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(outcome instanceof GrpcError))
    throw new Error(`the call did not fail with a status: ${String(outcome)}`);
  return outcome;
}

const invalid = "rpc error: code = InvalidArgument desc = ";
const channel = "rpc error: code = Internal desc = error invoking app channel: ";

describe("an HTTP app", () => {
  test.each([
    ["a%2Fb", "/a%2Fb"],
    ["a%2541", "/a%2541"],
    ["/a//b/./c/", "/a/b/c"],
    ["../x y", "/x%20y"],
    ["", "/"],
  ])("method %j arrives as %s", async (method, path) => {
    for (const sidecar of [client, ownHttp]) {
      await sidecar.unary(invoke, request("http-app", method));
      expect(last().path).toBe(path);
    }
  });

  test.each([
    ["a?b", 'method contains forbidden character: "a?b"'],
    ["a\u0001", 'method contains control character at position 1: "a\\x01"'],
  ])("method %j is refused", async (method, reason) => {
    expect(await failure(client.unary(invoke, request("http-app", method)))).toMatchObject({
      code: 13,
      details: `failed to invoke, id: http-app, err: ${invalid}invalid method: ${reason}`,
    });
  });

  test("gets metadata as headers, by the rules of HTTP", async () => {
    const metadata = {
      "x-one": "1",
      "x-data-bin": Buffer.from([1]),
      "dapr-caller-app-id": "forged",
      "destination-app-id": "x",
      "dapr-app-id": "x",
    };
    await client.unary(invoke, request("http-app", "x"), { metadata });
    const { headers } = last();
    expect(headers).toMatchObject({
      "x-one": "1",
      "dapr-caller-app-id": "caller",
      "dapr-callee-app-id": "http-app",
      "user-agent": expect.stringMatching(/^grpc-node/),
    });
    expect(headers["dapr-authority"]).toMatch(/^127\.0\.0\.1:\d+$/);
    for (const name of [
      "x-data-bin",
      "destination-app-id",
      "dapr-app-id",
      "te",
      "weft-grpc-method",
      "weft-data-type",
    ]) {
      expect(headers[name]).toBeUndefined();
    }
    await ownHttp.unary(invoke, request("http-app", "x"), { metadata });
    expect(last().rawHeaders).not.toContain("forged");
  });

  test("gets its content type from the message alone; typed data is protobuf", async () => {
    await client.unary(invoke, request("http-app", "x"));
    expect(last().headers["content-type"]).toBeUndefined();
    await client.unary(invoke, request("http-app", "x", { contentType: "text/x" }));
    expect(last().headers["content-type"]).toBe("text/x");
    await client.unary(
      invoke,
      request("http-app", "x", { contentType: "text/x", typeUrl: "type.googleapis.com/x.Y" }),
    );
    expect(last().headers["content-type"]).toBe("application/x-protobuf");
  });

  test.each([Verb.NONE, Verb.CONNECT])("verb %i is refused", async (verb) => {
    expect(await failure(client.unary(invoke, request("http-app", "x", { verb })))).toMatchObject({
      code: 13,
      details: `failed to invoke, id: http-app, err: ${channel}${invalid}invalid HTTP verb`,
    });
    expect(await failure(ownHttp.unary(invoke, request("http-app", "x", { verb })))).toMatchObject({
      code: 13,
      details: `failed to invoke, id: http-app, err: ${invalid}invalid HTTP verb`,
    });
  });

  test.each(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] as const)(
    "verb %s",
    async (verb) => {
      const bodiless = verb === "HEAD" || verb === "TRACE";
      await client.unary(
        invoke,
        request("http-app", "x", { verb: Verb[verb], ...(bodiless ? { data: Buffer.alloc(0) } : {}) }),
      );
      expect(last().method).toBe(verb);
    },
  );

  test("answers: headers in lower case, permanent ones under a name of Dapr, the status beside them", async () => {
    httpApp.on("/created", () => ({
      status: 201,
      headers: {
        "Cache-Control": "no-store",
        "X-One": "1",
        "Content-Type": "text/x",
        Connection: "X-Hop, keep-alive",
        "X-Hop": "1",
      },
      body: "b",
    }));
    const answer = await client.call(invoke, request("http-app", "created"));
    expect(answer.message.contentType).toBe("text/x");
    const found = answer.headers.getMap();
    expect(found).toMatchObject({
      "dapr-http-status": "201",
      "dapr-cache-control": "no-store",
      "x-one": "1",
      "dapr-content-type": "text/x",
    });
    expect(found["dapr-date"]).toBeDefined();
    for (const name of ["cache-control", "x-hop"]) expect(found[name]).toBeUndefined();
  });

  test.each([
    [302, 2, "Found"],
    [400, 13, "Bad Request"],
    [401, 16, "Unauthorized"],
    [403, 7, "Forbidden"],
    [404, 5, "Not Found"],
    [408, 1, "Request Timeout"],
    [409, 6, "Conflict"],
    [418, 2, "I'm a teapot"],
    [429, 8, "Too Many Requests"],
    [500, 2, "Internal Server Error"],
    [501, 12, "Not Implemented"],
    [503, 14, "Service Unavailable"],
    [504, 4, "Gateway Timeout"],
  ])("status %i is code %i, %s", async (status, code, text) => {
    httpApp.on("/status", () => ({ status, body: "x".repeat(62) + "yz" }));
    const error = await failure(client.unary(invoke, request("http-app", "status")));
    expect(error).toMatchObject({ code, details: text });
    const info = anyUnpack(error.status()!.details[0]!, ErrorInfoSchema);
    expect(info).toMatchObject({
      reason: text,
      domain: "dapr.io",
      metadata: { "http.code": String(status), "http.error_message": "x".repeat(62) + "y" },
    });
  });

  test("that has never been up is down, not unknown; it gets calls when it comes", async () => {
    const port = await freePort();
    await using down = await startSidecar({ appId: "down", appPort: port, nats, wait: "outbound" });
    using own = grpcClient(down.grpcPort);
    const refused = `Post "http://127.0.0.1:${port}/x": dial tcp 127.0.0.1:${port}: connect: connection refused`;
    expect(await failure(own.unary(invoke, request("down", "x")))).toMatchObject({
      code: 13,
      details: `failed to invoke, id: down, err: ${refused}`,
    });
    const channel = "rpc error: code = Internal desc = error invoking app channel:";
    expect(await failure(client.unary(invoke, request("down", "x")))).toMatchObject({
      code: 13,
      details: `failed to invoke, id: down, err: ${channel} ${refused}`,
    });
    await using app = await startApp({ port, fallback: () => ({ body: "up" }) });
    const up = await client.unary(invoke, request("down", "x"));
    expect(Buffer.from(up.data!.value).toString()).toBe("up");
    expect(app.requests).toHaveLength(1);
  });
});

describe("a gRPC app", () => {
  test("sees the method with the slash it was written with, data with its type, metadata as it was", async () => {
    grpcApp.handlers.onInvoke = ({ data, contentType }) => ({
      data: { typeUrl: data?.typeUrl ?? "", value: data?.value ?? bytes },
      contentType,
    });
    for (const sidecar of [client, ownGrpc]) {
      const sent = request("grpc-app", "/a%2Fb", {
        contentType: "text/x",
        typeUrl: "type.googleapis.com/x.Y",
      });
      const metadata = {
        "x-one": "1",
        "x-data-bin": Buffer.from([0, 1, 255]),
        "cache-control": "no-store",
        "dapr-caller-app-id": "forged",
      };
      const answer = await sidecar.call(invoke, sent, { metadata });
      const got = grpcApp.invocations.at(-1)!;
      expect(got.request).toMatchObject({
        method: "/a%2Fb",
        contentType: "text/x",
        data: { typeUrl: "type.googleapis.com/x.Y" },
      });
      expect(got.metadata.get("x-one")).toEqual(["1"]);
      expect(got.metadata.get("x-data-bin")).toEqual([Buffer.from([0, 1, 255])]);
      expect(got.metadata.get("cache-control")).toEqual(["no-store"]);
      expect(got.metadata.get("user-agent").join()).not.toMatch(/grpc-node/);
      expect(got.metadata.get("dapr-caller-app-id")).toEqual(sidecar === client ? ["caller"] : []);
      expect(got.metadata.get("weft-grpc-method")).toEqual([]);
      expect(answer.message).toMatchObject({
        contentType: "text/x",
        data: { typeUrl: "type.googleapis.com/x.Y" },
      });
      expect(Buffer.from(answer.message.data!.value).equals(bytes)).toBe(true);
      expect(answer.headers.get("weft-data-type")).toEqual([]);
    }
  });

  test("gets the token of its own sidecar and no other", async () => {
    using open = grpcClient(guarded.grpcPort);
    await open.unary(invoke, request("grpc-app", "x"), { metadata: { "dapr-api-token": "open" } });
    expect(grpcApp.invocations.at(-1)!.metadata.get("dapr-api-token")).toEqual(["app token"]);
    await open.unary(invoke, request("http-app", "x"), { metadata: { "dapr-api-token": "open" } });
    expect(last().headers["dapr-api-token"]).toBe("app token");
  });

  test("sees no slash that the caller did not write", async () => {
    grpcApp.handlers.onInvoke = () => ({});
    await client.unary(invoke, request("grpc-app", "a//b/"));
    expect(grpcApp.invocations.at(-1)!.request.method).toBe("a/b");
  });

  test("may be called without an extension", async () => {
    const bare = { id: "grpc-app", message: { method: "x", data: { value: bytes } } };
    await client.unary(invoke, bare);
    expect(grpcApp.invocations.at(-1)!.request.httpExtension).toBeUndefined();
  });

  test("fails with its own code, message, details and trailers", async () => {
    const detail = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "R", domain: "d" }));
    const whole = create(StatusSchema, { code: 9, message: "näh", details: [detail] });
    grpcApp.handlers.onInvoke = () => {
      const metadata = new Metadata();
      metadata.set("x-trailer", "t");
      metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, whole)));
      throw grpcStatus(9, "näh", metadata);
    };
    for (const sidecar of [client, ownGrpc]) {
      const error = await failure(sidecar.unary(invoke, request("grpc-app", "x")));
      expect(error).toMatchObject({ code: 9, details: "näh" });
      expect(error.metadata.get("x-trailer")).toEqual(["t"]);
      expect(fromBinary(StatusSchema, toBinary(StatusSchema, error.status()!))).toEqual(whole);
    }
  });

  test("above the size limit of its sidecar: both ways refused, in gRPC's words", async () => {
    grpcApp.handlers.onInvoke = () => ({ data: { value: Buffer.alloc(200_000) } });
    const limit = 100 * 1024;
    const sent = await failure(
      client.unary(invoke, request("grpc-app", "x", { data: Buffer.alloc(200_000) })),
    );
    expect(sent.code).toBe(8);
    expect(sent.details).toMatch(
      new RegExp(`^grpc: received message larger than max \\(\\d+ vs\\. ${limit}\\)$`),
    );
    const got = await failure(client.unary(invoke, request("grpc-app", "x")));
    expect(got.code).toBe(8);
    expect(got.details).toMatch(
      new RegExp(`^grpc: trying to send message larger than max \\(\\d+ vs\\. ${limit}\\)$`),
    );
  });

  test("that has never been up is Unavailable", async () => {
    const port = await freePort();
    const options = {
      appId: "grpc-never",
      appPort: port,
      appProtocol: "grpc",
      nats,
      wait: "outbound",
    } as const;
    await using never = await startSidecar(options);
    using own = grpcClient(never.grpcPort);
    const refused = `dial tcp 127.0.0.1:${port}: connect: connection refused`;
    for (const from of [own, client]) {
      expect(await failure(from.unary(invoke, request("grpc-never", "x")))).toMatchObject({
        code: 14,
        details: `connection error: desc = "transport: Error while dialing: ${refused}"`,
      });
    }
  });

  test("that is down is Unavailable", async () => {
    const port = await freePort();
    await using app = await startGrpcApp({ port });
    await using sidecar = await startSidecar({
      appId: "grpc-down",
      appPort: port,
      appProtocol: "grpc",
      nats,
    });
    await app[Symbol.asyncDispose]();
    const error = await failure(client.unary(invoke, request("grpc-down", "x")));
    expect(error.code).toBe(14);
    expect(error.details).toMatch(/^connection error: /);
    const overHttp = await sidecar.get("/v1.0/invoke/grpc-down/method/x");
    expect(overHttp.status).toBe(503);
    expect(overHttp.json()).toMatchObject({
      code: 14,
      message: expect.stringMatching(/^connection error: /),
    });
  });
});
