/** What the gRPC server does with calls of services that it does not have, when there is a proxy. */
import { expect, test } from "vitest";
import { startServer, getState } from "./fixture.ts";

async function failure(promise: Promise<unknown>): Promise<{ code: number }> {
  return promise.then(
    () => Promise.reject(new Error("the call succeeded")),
    (reason: unknown) => reason as { code: number },
  );
}

test("a proxy takes calls of other services, byte for byte", async () => {
  const taken: string[] = [];
  await using proxy = await startServer([getState(async () => ({}))], {
    proxy: async ({ path: called, body }) => {
      taken.push(called);
      const trailers = ["x-tail", "t", "grpc-status", "0"];
      return { status: 200, headers: ["x-head", "h"], body, grpc: { code: 0, message: "", trailers } };
    },
  });
  const answer = await proxy.client.raw("/my.Service/Any", Buffer.from("bytes"));
  expect(answer.message.toString()).toBe("bytes");
  expect([answer.headers.get("x-head"), answer.trailers.get("x-tail")]).toEqual([["h"], ["t"]]);
  await proxy.client.raw("/dapr.proto.runtime.v1.Dapr/Nope", Buffer.alloc(0));
  const own = await failure(proxy.client.raw("/dapr.proto.runtime.v1.Dapr/SaveState", Buffer.alloc(0)));
  expect(own.code).toBe(12);
  expect(taken).toEqual(["/my.Service/Any", "/dapr.proto.runtime.v1.Dapr/Nope"]);
  expect(proxy.completed[0]).toBe("/my.Service/Any OK");
});
