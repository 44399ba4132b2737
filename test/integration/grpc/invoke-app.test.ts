/** Service invocation to a gRPC app: how requests of HTTP and gRPC callers reach it, how its answers come back. */
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { StatusSchema } from "../../../proto/gen/google/rpc/status_pb.ts";
import { ErrorInfoSchema } from "../../../proto/gen/google/rpc/error_details_pb.ts";
import { grpcCallerHeaders, readDataType } from "../../../src/api/grpc-caller.ts";
import { statusJson } from "../../../src/api/status-proto.ts";
import { invokeGrpcApp } from "../../../src/app/grpc.ts";
import { freePort } from "../../kit/ports.ts";
import { grpcStatus, startGrpcApp } from "../../kit/grpc-app.ts";
import { MiB, never, appClient } from "./app-fixture.ts";

describe("service invocation", () => {
  const request = {
    verb: "POST",
    path: "/orders/a%20b",
    query: "x=1&y=2",
    headers: ["Content-Type", "application/json", "X-Custom", "v", "Accept", "*/*", "Connection", "close"],
    body: Buffer.from('{"a":1}'),
  };

  test("an HTTP caller: method, extension, content type and metadata names", async () => {
    await using app = await startGrpcApp({
      onInvoke: () => ({ data: { value: Buffer.from("answer") }, contentType: "text/plain" }),
    });
    using client = appClient(app.port);
    const answer = await invokeGrpcApp(client, request, never);
    expect(answer).toMatchObject({ status: 200, grpc: { code: 0, contentType: "text/plain" } });
    expect(Buffer.from(answer.body as Uint8Array).toString()).toBe("answer");
    const { request: got, metadata } = app.invocations[0]!;
    expect(got).toMatchObject({ method: "orders/a b", contentType: "application/json" });
    expect(got.httpExtension).toMatchObject({ verb: 3, querystring: "x=1&y=2" });
    expect(Buffer.from(got.data!.value).toString()).toBe('{"a":1}');
    expect(metadata.get("x-custom")).toEqual(["v"]);
    expect(metadata.get("dapr-accept")).toEqual(["*/*"]);
    expect(metadata.get("dapr-content-type")).toEqual(["application/json"]);
    expect(metadata.get("accept")).toEqual([]);
  });

  test("a gRPC caller: everything as it was sent, without an extension if there was none", async () => {
    await using app = await startGrpcApp({
      onInvoke: () => ({ data: anyPack(StringValueSchema, create(StringValueSchema, { value: "v" })) }),
    });
    using client = appClient(app.port);
    const metadata = new Map([
      [":authority", ["a"]],
      ["content-type", ["application/grpc"]],
      ["accept", ["x"]],
      ["x-bin", ["\x00\xff"]],
      ["user-agent", ["grpc-go"]],
    ]);
    const headers = grpcCallerHeaders(metadata, {
      method: "/a%2Fb c",
      contentType: "text/x",
      dataType: "type.googleapis.com/t.T",
    });
    const answer = await invokeGrpcApp(client, { ...request, verb: "", query: "", headers }, never);
    expect(readDataType(answer.headers)).toBe("type.googleapis.com/google.protobuf.StringValue");
    const { request: got, metadata: seen } = app.invocations[0]!;
    expect(got).toMatchObject({
      method: "/a%2Fb c",
      contentType: "text/x",
      data: { typeUrl: "type.googleapis.com/t.T" },
    });
    expect(got.httpExtension).toBeUndefined();
    expect(seen.get("accept")).toEqual(["x"]);
    expect(seen.get("x-bin")).toEqual([Buffer.from([0, 255])]);
    expect(seen.get("user-agent")).toEqual(["weft"]);
    expect(Object.keys(seen.getMap()).filter((name) => name.startsWith("weft-"))).toEqual([]);
  });

  test("statuses are answers: mapped for HTTP, unchanged for gRPC", async () => {
    await using app = await startGrpcApp({
      onInvoke: () => {
        throw grpcStatus(5, "no order");
      },
    });
    using client = appClient(app.port);
    const answer = await invokeGrpcApp(client, request, never);
    expect(answer).toMatchObject({ status: 404, grpc: { code: 5, message: "no order" } });
    expect(await statusJson(5, "no order", answer.grpc!.details)).toBe('{"code":5,"message":"no order"}');
    using lost = appClient(await freePort());
    const down = await invokeGrpcApp(lost, request, never);
    expect(down).toMatchObject({
      status: 503,
      grpc: { code: 14, message: expect.stringMatching(/^connection error: /) },
    });
    await expect(invokeGrpcApp(client, request, AbortSignal.abort())).rejects.toMatchObject({ code: 1 });
  });

  test("limits in the words of the called sidecar", async () => {
    await using app = await startGrpcApp({ onInvoke: () => ({ data: { value: Buffer.alloc(2 * MiB) } }) });
    using client = appClient(app.port, { maxMessageBytes: MiB });
    const reply = await invokeGrpcApp(client, request, never);
    expect(reply.grpc).toMatchObject({
      code: 8,
      message: expect.stringMatching(/^grpc: trying to send message larger than max/),
    });
    const sent = await invokeGrpcApp(client, { ...request, body: Buffer.alloc(2 * MiB) }, never);
    expect(sent).toMatchObject({ status: 429 });
    expect(sent.grpc).toMatchObject({
      code: 8,
      message: expect.stringMatching(/^grpc: received message larger than max/),
    });
  });

  test("proto-JSON of a status with known and unknown details", async () => {
    const status = create(StatusSchema, {
      code: 3,
      message: "<bad>",
      details: [
        anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "R", domain: "d", metadata: { k: "v" } })),
        { typeUrl: "type.googleapis.com/my.Own", value: Buffer.from([1, 2]) },
      ],
    });
    const text = await statusJson(3, "<bad>", toBinary(StatusSchema, status));
    expect(JSON.parse(text)).toEqual({
      code: 3,
      message: "<bad>",
      details: [
        {
          "@type": "type.googleapis.com/google.rpc.ErrorInfo",
          reason: "R",
          domain: "d",
          metadata: { k: "v" },
        },
        { "@type": "type.googleapis.com/my.Own", value: "AQI=" },
      ],
    });
  });
});
