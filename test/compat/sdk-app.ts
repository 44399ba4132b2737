/** An SDK program as a process beside its own sidecar, started the way `dapr run` does: both at once. */
import { freePort, python, startProcess, startSidecar } from "../kit/index.ts";
import { checkout, nodeBinary } from "../kit/index.ts";
import type { Nats, RunningProcess, Sidecar } from "../kit/index.ts";
import { join } from "node:path";
import * as standard from "./resources.ts";

export type Protocol = "http" | "grpc";

export type SdkApp = AsyncDisposable & {
  readonly sidecar: Sidecar;
  readonly program: RunningProcess;
};

export type SdkAppOptions = {
  readonly appId: string;
  readonly nats: Nats;
  /** Program of the checkout; `.py` runs in Python, else in Node. Or a built one: command and first arguments. */
  readonly program: string | readonly [command: string, ...args: string[]];
  /** What the app speaks, and what its SDK client speaks to the sidecar. */
  readonly protocol: Protocol;
  readonly env?: Readonly<Record<string, string>>;
  /** Resource files of the sidecar; state and events when not given. */
  readonly resources?: Readonly<Record<string, string>>;
};

/** Resolves when the sidecar is ready, which includes that the program listens. */
export async function startSdkApp(options: SdkAppOptions): Promise<SdkApp> {
  const { appId, nats, protocol, resources = standard.resources } = options;
  const appPort = await freePort();
  await using started = new AsyncDisposableStack();
  const sidecar = started.use(
    await startSidecar({ appId, appPort, appProtocol: protocol, nats, resources, wait: "none" }),
  );
  const [command, ...args] = await commandOf(options.program);
  const program = started.use(
    await startProcess({
      name: `program of ${appId}`,
      command,
      args,
      env: {
        ...sdkEnv(sidecar),
        APP_ID: appId,
        APP_PORT: String(appPort),
        SDK_PROTOCOL: protocol,
        ...options.env,
      },
    }),
  );
  // Programs in Java and Python take long to start on a slow machine.
  await sidecar.ready("ready", 120_000);
  const kept = started.move();
  return { sidecar, program, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

async function commandOf(program: SdkAppOptions["program"]): Promise<readonly [string, ...string[]]> {
  if (typeof program !== "string") return program;
  return [program.endsWith(".py") ? await python() : nodeBinary(), join(checkout, program)];
}

/** What `dapr run` tells an app about its sidecar. */
export function sdkEnv(sidecar: Sidecar): Record<string, string> {
  return {
    DAPR_HTTP_PORT: String(sidecar.httpPort),
    DAPR_GRPC_PORT: String(sidecar.grpcPort),
    DAPR_HOST: "127.0.0.1",
    PYTHONUNBUFFERED: "1",
    PYTHONDONTWRITEBYTECODE: "1",
  };
}
