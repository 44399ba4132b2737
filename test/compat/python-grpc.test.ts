// A gRPC service written with grpcio, and a client of it, that know nothing of Dapr but the metadata which names the
// app: through two sidecars and through the own one. The scenarios and assertions are in python/proxied_caller.py.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePort, startNats, startPython, startSidecar } from "../kit/index.ts";
import type { Sidecar } from "../kit/index.ts";

const stack = new AsyncDisposableStack();
let caller: Sidecar;
let callee: Sidecar;

beforeAll(async () => {
  const nats = stack.use(await startNats());
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
  const appPort = await freePort();
  const env = { APP_PORT: String(appPort) };
  stack.use(await startPython("test/compat/python/proxied_app.py", [], env));
  const own = { appId: "calls", appPort, appProtocol: "grpc", readyTimeoutMs: 60_000 };
  callee = stack.use(await startSidecar({ ...own, nats }));
}, 400_000);
afterAll(() => stack.disposeAsync());

const scenarios = [
  "unary",
  "metadata",
  "streams",
  "conversation",
  "large",
  "statuses",
  "deadlines",
  "cancels",
];

describe.each(["through two sidecars", "through the own sidecar"])("%s", (way) => {
  test.each(scenarios)("%s", async (scenario) => {
    const sidecar = way === "through two sidecars" ? caller : callee;
    const env = { DAPR_GRPC_PORT: String(sidecar.grpcPort) };
    await using running = await startPython("test/compat/python/proxied_caller.py", [scenario, "calls"], env);
    await running.exited;
    expect(running.logs()).toContain(`${scenario}: as expected`);
  });
});
