// Which app a proxied call names.
import { expect, test } from "vitest";
import { ApiError, GrpcCode } from "../../api/errors.ts";
import { readProxyTarget } from "./proxy.ts";

const read = (...headers: string[]) => readProxyTarget({ path: "/a.B/C", headers }, true);

test("dapr-callee-app-id counts before dapr-app-id, the first value of each, and an empty one not at all", () => {
  expect(read("dapr-app-id", "a", "dapr-app-id", "b").id).toBe("a");
  expect(read("dapr-app-id", "a", "dapr-callee-app-id", "b").id).toBe("b");
  expect(read("dapr-app-id", "a", "dapr-callee-app-id", "").id).toBe("a");
  expect(read("Dapr-App-Id", "a.ns").id).toBe("a.ns");
});

test("dapr-stream is on for the words that mean yes", () => {
  const streaming = (...more: string[]): boolean => read("dapr-app-id", "a", ...more).streaming;
  expect(streaming()).toBe(false);
  for (const yes of ["y", "yes", "true", "t", "on", "1", "TRUE"])
    expect(streaming("dapr-stream", yes)).toBe(true);
  for (const no of ["", "0", "no", "false", "2"]) expect(streaming("dapr-stream", no)).toBe(false);
});

const byTracing = "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata";
const byProxy = "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found";

test.each([
  ["/a.B/C", true, byTracing],
  ["/a.B/C", false, byProxy],
  ["/dapr.proto.runtime.v1.Dapr/Nope", true, byProxy],
])("%s without an app is Unknown, tracing %s", (path, tracing, text) => {
  const attempt = (): unknown => readProxyTarget({ path, headers: [":path", path] }, tracing);
  expect(attempt).toThrow(ApiError);
  expect(attempt).toThrow(expect.objectContaining({ grpcCode: GrpcCode.Unknown, message: text }));
});
