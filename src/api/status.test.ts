import { describe, expect, test } from "vitest";
import { GrpcCode } from "./errors.ts";
import { grpcCallerHeaders, readGrpcCaller, withoutMeshOnly } from "./grpc-caller.ts";
import { codeFromHttp, grpcErrorOfHttp, httpFromCode, httpStatusText, metadataName } from "./status.ts";
import { encodeStatus, statusJson } from "./status-proto.ts";

test("gRPC to HTTP", () => {
  const statuses = Array.from({ length: 18 }, (_, code) => httpFromCode(code));
  const expected = [200, 408, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401, 500];
  expect(statuses).toEqual(expected);
});

test.each([
  [200, GrpcCode.OK],
  [299, GrpcCode.OK],
  [302, GrpcCode.Unknown],
  [400, GrpcCode.Internal],
  [401, GrpcCode.Unauthenticated],
  [403, GrpcCode.PermissionDenied],
  [404, GrpcCode.NotFound],
  [408, GrpcCode.Canceled],
  [409, GrpcCode.AlreadyExists],
  [418, GrpcCode.Unknown],
  [429, GrpcCode.ResourceExhausted],
  [500, GrpcCode.Unknown],
  [501, GrpcCode.Unimplemented],
  [502, GrpcCode.Unknown],
  [503, GrpcCode.Unavailable],
  [504, GrpcCode.DeadlineExceeded],
])("HTTP %i to gRPC %i", (status, code) => expect(codeFromHttp(status)).toBe(code));

test("an HTTP app's failure for a gRPC caller", () => {
  const error = grpcErrorOfHttp(404, "x".repeat(100));
  expect(error).toMatchObject({ grpcCode: GrpcCode.NotFound, message: "Not Found" });
  expect(error.grpcDetails[0]!.fields).toEqual({
    domain: "dapr.io",
    reason: "Not Found",
    metadata: { "http.code": "404", "http.error_message": "x".repeat(63) },
  });
  expect([413, 418, 599].map(httpStatusText)).toEqual(["Request Entity Too Large", "I'm a teapot", ""]);
});

test("permanent headers are renamed", () => {
  expect(["Content-Type", "X-A", "VIA"].map(metadataName)).toEqual(["dapr-content-type", "x-a", "dapr-via"]);
});

describe("gRPC callers in mesh headers", () => {
  test("fields come back; an app never sees their names", () => {
    const caller = { method: "/a%2Fb é\n", contentType: "text/x", dataType: "t/x.Y" };
    const metadata = new Map([
      ["x-a", ["1", "2"]],
      ["content-type", ["application/grpc"]],
      ["weft-grpc-method", ["forged"]],
    ]);
    const headers = grpcCallerHeaders(metadata, caller);
    expect(readGrpcCaller(headers)).toEqual(caller);
    expect(withoutMeshOnly(headers)).toEqual(["content-type", "text/x", "x-a", "1", "x-a", "2"]);
  });

  test("an HTTP caller is none", () => {
    const headers = ["Content-Type", "a/b"];
    expect(readGrpcCaller(headers)).toBeUndefined();
    expect(withoutMeshOnly(headers)).toBe(headers);
  });
});

test("every kind of detail survives the binary form", async () => {
  const bytes = await encodeStatus(3, "m", [
    { type: "ErrorInfo", fields: { domain: "dapr.io", metadata: null, reason: "R" } },
    { type: "ResourceInfo", fields: { resource_type: "t", resource_name: "n", owner: "", description: "" } },
    { type: "BadRequest", fields: { field_violations: [{ field: "f", description: "d" }] } },
    { type: "Help", fields: { links: [{ url: "u", description: "d" }] } },
    { type: "RetryInfo", fields: { retry_delay: "1.5s" } },
  ]);
  const plain = JSON.parse(await statusJson(3, "m", bytes)) as { details: Record<string, unknown>[] };
  const prefix = "type.googleapis.com/google.rpc.";
  expect(plain.details).toEqual([
    { "@type": `${prefix}ErrorInfo`, reason: "R", domain: "dapr.io" },
    { "@type": `${prefix}ResourceInfo`, resourceType: "t", resourceName: "n" },
    { "@type": `${prefix}BadRequest`, fieldViolations: [{ field: "f", description: "d" }] },
    { "@type": `${prefix}Help`, links: [{ url: "u", description: "d" }] },
    { "@type": `${prefix}RetryInfo`, retryDelay: "1.500s" },
  ]);
  expect(await statusJson(0, "", undefined)).toBe("{}");
});
