// grpc-go's own interoperability tests, client and server, with two sidecars between them and with one. The scenarios
// and their assertions are grpc-go's; go-grpc/ adds the metadata that names the app, reflection, many streams at once.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePort, startNats, startProcess, startSidecar } from "../kit/index.ts";
import type { Sidecar } from "../kit/index.ts";
import { type BuiltProgram, goProgram } from "../kit/toolchains.ts";

const stack = new AsyncDisposableStack();
let caller: Sidecar;
let callee: Sidecar;
let program: BuiltProgram;

beforeAll(async () => {
  program = await goProgram("go-grpc");
  const nats = stack.use(await startNats());
  caller = stack.use(await startSidecar({ appId: "caller", nats }));
  const appPort = await freePort();
  const [command, ...args] = program;
  const env = { APP_PORT: String(appPort) };
  stack.use(await startProcess({ name: "the app", command, args: [...args, "serve"], env }));
  const own = { appId: "interop", appPort, appProtocol: "grpc", readyTimeoutMs: 60_000 };
  callee = stack.use(await startSidecar({ ...own, nats }));
}, 400_000);
afterAll(() => stack.disposeAsync());

async function run(
  sidecar: Sidecar,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<string> {
  const [command, ...first] = program;
  await using running = await startProcess({
    name: args.join(" "),
    command,
    args: [...first, ...args],
    env: { DAPR_GRPC_PORT: String(sidecar.grpcPort), ...env },
  });
  await running.exited;
  return running.logs();
}

const scenarios = [
  "empty_unary",
  "large_unary",
  "client_streaming",
  "server_streaming",
  "ping_pong",
  "empty_stream",
  "timeout_on_sleeping_server",
  "cancel_after_begin",
  "cancel_after_first_response",
  "custom_metadata",
  "status_code_and_message",
  "special_status_message",
  "unimplemented_method",
  "unimplemented_service",
  "reflection",
];

describe.each(["through two sidecars", "through the own sidecar"])("%s", (way) => {
  const sidecar = (): Sidecar => (way === "through two sidecars" ? caller : callee);

  test.each(scenarios)("%s", async (scenario) => {
    expect(await run(sidecar(), ["call", scenario, "interop"])).toContain(`${scenario}: as expected`);
  });

  test("ping_pong with dapr-stream", async () => {
    const logs = await run(sidecar(), ["call", "ping_pong", "interop"], { DAPR_STREAM: "true" });
    expect(logs).toContain("ping_pong: as expected");
  });

  test("2,000 streams open at once", { timeout: 120_000 }, async () => {
    expect(await run(sidecar(), ["many", "2000", "interop"])).toContain("2000 streams: as expected");
  });
});

test("reflection without an app shows the sidecar's own services", async () => {
  expect(await run(caller, ["call", "reflection", "-"])).toContain("reflection: as expected");
});
