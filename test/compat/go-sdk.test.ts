// The unmodified Go SDK: an HTTP app and a gRPC app on it, and a caller, each a process beside its own sidecar. The
// scenarios, with their assertions, are in go/.
import { afterAll, beforeAll, expect, test } from "vitest";
import { startNats, startProcess, startSidecar } from "../kit/index.ts";
import type { Sidecar } from "../kit/index.ts";
import { type BuiltProgram, goProgram } from "../kit/toolchains.ts";
import { startBlocks } from "./blocks.ts";
import { sdkEnv, startSdkApp } from "./sdk-app.ts";

const stack = new AsyncDisposableStack();
const apps = ["http-app", "grpc-app"] as const;
let caller: Sidecar;
let program: BuiltProgram;

beforeAll(async () => {
  program = await goProgram();
  const nats = stack.use(await startNats());
  const { resources } = stack.use(await startBlocks(nats));
  caller = stack.use(await startSidecar({ appId: "caller", nats, resources }));
  for (const [i, protocol] of (["http", "grpc"] as const).entries()) {
    const app = stack.use(await startSdkApp({ appId: apps[i]!, nats, program, protocol }));
    await app.sidecar.subscribed("go.orders");
  }
}, 400_000);
afterAll(() => stack.disposeAsync());

test.each(
  [
    ["metadata", "invoke", "between", "failures", "publish", "bulk", "declared", "streams"],
    ["state", "transaction", "ttl", "lock", "configuration", "keys"],
  ].flat(),
)("%s", async (scenario) => {
  const [command, ...first] = program;
  const env = { ...sdkEnv(caller), APP_ID: "caller" };
  const args = [...first, "call", scenario, ...apps];
  await using running = await startProcess({ name: `caller: ${scenario}`, command, args, env });
  await running.exited;
  expect(running.logs()).toContain(`${scenario}: as expected`);
});
