// Limits and tokens of the app channel and of both API ports, and the profiler.
import { expect, test } from "vitest";
import { HTTPExtension_Verb } from "../../../proto/gen/dapr/proto/common/v1/common_pb.ts";
import { Dapr } from "../../../proto/gen/dapr/proto/runtime/v1/dapr_pb.ts";
import {
  eventually,
  freePort,
  grpcClient,
  startApp,
  startGrpcApp,
  startNats,
  startSidecar,
} from "../../kit/index.ts";
import type { GrpcError } from "../../kit/index.ts";
import { nativeComponents, ordersSubscription } from "./resources.ts";

/** Counts who is inside; the doors open when as many as expected have come. */
function counter(expected: number) {
  const open = Promise.withResolvers<void>();
  const state = { inside: 0, most: 0 };
  return {
    state,
    async visit(): Promise<void> {
      state.most = Math.max(state.most, ++state.inside);
      if (state.inside === expected) open.resolve();
      await open.promise;
      // Whoever is let in too early is seen by those that are still here.
      await new Promise((resolve) => setImmediate(resolve));
      state.inside--;
    },
  };
}

test("--app-max-concurrency: as many calls at once and no more; the others wait and are answered", async () => {
  await using nats = await startNats();
  const http = counter(2);
  const grpc = counter(2);
  await using httpApp = await startApp({
    routes: { "/work": () => http.visit(), "/orders": () => http.visit() },
  });
  await using grpcApp = await startGrpcApp({ onInvoke: () => grpc.visit().then(() => ({})) });
  const flags = ["--app-max-concurrency=2"];
  const resources = { "c.yaml": nativeComponents, "s.yaml": ordersSubscription };
  await using one = await startSidecar({ appId: "one", appPort: httpApp.port, nats, flags, resources });
  const other = { appId: "two", appPort: grpcApp.port, appProtocol: "grpc" };
  await using two = await startSidecar({ ...other, nats, flags });
  await one.subscribed("orders");
  const work = Array.from({ length: 10 }, (_, i) => [
    (i % 2 === 0 ? one : two).get("/v1.0/invoke/one/method/work"),
    (i % 2 === 0 ? one : two).get("/v1.0/invoke/two/method/work"),
    one.post("/v1.0/publish/pubsub/orders", { i }),
  ]).flat();
  const answers = await Promise.all(work);
  expect(answers.map(({ status }) => status).filter((status) => status >= 300)).toEqual([]);
  await httpApp.received("/orders", 10);
  expect([http.state.most, grpc.state.most]).toEqual([2, 2]);
});

test("--dapr-http-max-request-size counts in MB; 0 means no limit over HTTP; gRPC has its own words", async () => {
  await using nats = await startNats();
  await using app = await startApp({ fallback: ({ body }) => ({ body: String(body.length) }) });
  const options = { appId: "a", appPort: app.port, nats };
  await using old = await startSidecar({ ...options, flags: ["--dapr-http-max-request-size=1"] });
  await using open = await startSidecar({ ...options, appId: "b", flags: ["--max-body-size=0"] });
  expect(old.logs()).toMatch(/dapr-http-max-request-size.*deprecated/);
  const mebibyte = 1024 * 1024;
  expect((await old.post("/v1.0/invoke/a/method/x", "x".repeat(mebibyte))).text).toBe(String(mebibyte));
  expect((await old.post("/v1.0/invoke/a/method/x", "x".repeat(mebibyte + 1))).status).toBeGreaterThanOrEqual(
    400,
  );
  expect((await open.post("/v1.0/invoke/b/method/x", "x".repeat(5 * mebibyte))).text).toBe(
    String(5 * mebibyte),
  );
  using client = grpcClient(old.grpcPort);
  const data = { value: Buffer.alloc(mebibyte + 1) };
  const request = {
    id: "a",
    message: { method: "x", data, httpExtension: { verb: HTTPExtension_Verb.POST } },
  };
  await expect(client.unary(Dapr.method.invokeService, request)).rejects.toMatchObject({
    code: 8,
    details: expect.stringMatching(/^grpc: received message larger than max \(\d+ vs\. 1048576\)$/),
  });
});

test("APP_API_TOKEN goes to a gRPC app with calls; DAPR_API_TOKEN is asked of gRPC callers", async () => {
  await using nats = await startNats();
  const seen: unknown[] = [];
  await using app = await startGrpcApp({
    onInvoke: (_request, metadata) => {
      seen.push(metadata.get("dapr-api-token"));
      return {};
    },
  });
  await using sidecar = await startSidecar({
    appId: "g",
    appPort: app.port,
    appProtocol: "grpc",
    nats,
    resources: { "c.yaml": nativeComponents },
    env: { APP_API_TOKEN: "for-app", DAPR_API_TOKEN: "secret" },
  });
  using client = grpcClient(sidecar.grpcPort);
  const request = { id: "g", message: { method: "x" } };
  for (const [metadata, details] of [
    [{}, "missing api token in request metadata"],
    [{ "dapr-api-token": "wrong" }, "authentication error: api token mismatch"],
  ] as const) {
    const call = client.unary(Dapr.method.invokeService, request, { metadata });
    await expect(call).rejects.toMatchObject({ code: 16, details: "Unauthorized" });
    await expect(call).rejects.toSatisfy((error: GrpcError) =>
      String(error.metadata.get("grpc-status-details-bin")[0]).includes(details),
    );
  }
  await client.unary(Dapr.method.invokeService, request, { metadata: { "dapr-api-token": "secret" } });
  expect(seen).toEqual([["for-app"]]);
  await eventually(() => expect(app.listings.map((it) => it.get("dapr-api-token"))).toEqual([[]]));
});

test("--enable-profiling: a page, a CPU profile, a heap snapshot, one at a time; else no port", async () => {
  await using nats = await startNats();
  const port = await freePort();
  const flags = ["--enable-profiling=true", `--profile-port=${port}`];
  await using sidecar = await startSidecar({ appId: "p", nats, flags });
  const url = `http://127.0.0.1:${port}/debug/pprof`;
  expect(await (await fetch(`${url}/`)).text()).toContain("/debug/pprof/profile");
  const taking = fetch(`${url}/profile?seconds=8`);
  // The first one has begun when the second is refused.
  await expect.poll(async () => (await fetch(`${url}/heap`)).status, { timeout: 7_000 }).toBe(409);
  const profile = (await (await taking).json()) as { nodes: unknown[]; startTime: number; endTime: number };
  expect(profile.nodes.length).toBeGreaterThan(0);
  expect((profile.endTime - profile.startTime) / 1_000).toBeGreaterThan(7_500);
  const heap = (await (await fetch(`${url}/heap`)).json()) as { snapshot: { node_count: number } };
  expect(heap.snapshot.node_count).toBeGreaterThan(1_000);
  const counts = await (await fetch(`${url}/counts`)).json();
  expect(counts).toMatchObject({ mesh: { servedCalls: 0, streams: 0 }, handles: {}, memory: {} });
  for (const seconds of ["0", "-1", "301", "many"]) {
    expect((await fetch(`${url}/profile?seconds=${seconds}`)).status).toBe(400);
  }
  expect((await fetch(`${url}/nothing`)).status).toBe(404);
  await using taken = await startSidecar({ appId: "q", nats, flags, wait: "none" });
  expect(await taken.exited).toBe(1);
  expect(taken.logs()).toMatch(/profiling: .*choose another --profile-port/);
  expect(await sidecar.stop()).toBe(0);
  await expect(fetch(url)).rejects.toThrow();
});
