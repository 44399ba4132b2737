// The unmodified Java SDK: an HTTP app and a gRPC app on it, and a caller, each a process beside its own sidecar. The
// scenarios, with their assertions, are in java/.
import { afterAll, beforeAll, expect, test } from "vitest";
import { startNats, startProcess, startSidecar } from "../kit/index.ts";
import { javaProgram } from "../kit/toolchains.ts";
import { startBlocks } from "./blocks.ts";
import { sdkEnv, startSdkApp } from "./sdk-app.ts";

const stack = new AsyncDisposableStack();
const apps = ["http-app", "grpc-app"] as const;
let output = "";
const scenarios = [
  ["invoke_http", "invoke_grpc", "between", "publish", "bulk", "declared", "stream"],
  ["state", "ttl", "transaction", "lock", "configuration"],
].flat();

beforeAll(async () => {
  const program = await javaProgram("Program");
  const nats = stack.use(await startNats());
  const { resources } = stack.use(await startBlocks(nats));
  const caller = stack.use(await startSidecar({ appId: "caller", nats, resources }));
  for (const [i, protocol] of (["http", "grpc"] as const).entries()) {
    const app = stack.use(await startSdkApp({ appId: apps[i]!, nats, program, protocol }));
    await app.sidecar.subscribed("java.orders");
  }
  const [command, ...first] = program;
  const env = { ...sdkEnv(caller), APP_ID: "caller" };
  const args = [...first, "call", scenarios.join(","), ...apps];
  await using running = await startProcess({ name: "caller", command, args, env });
  await running.exited;
  output = running.logs();
}, 400_000);
afterAll(() => stack.disposeAsync());

test.each(scenarios)("%s", (scenario) => {
  expect(output).toContain(`${scenario}: as expected`);
});
