/** Makes the channel to the app from the flags: none, HTTP(S) or gRPC, with the concurrency limit around it. */
import { connect } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Clock, MeshRequest, MeshResponse } from "../../mesh/index.ts";
import type { SidecarOptions } from "../config/options.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { AppPipelines } from "./app-pipeline.ts";
import {
  type AppChannel,
  type AppGrpcRequest,
  type AppGrpcResponse,
  type AppHttpRequest,
  type AppHttpResponse,
} from "./channel.ts";
import { Slots } from "./concurrency.ts";
import { AppHealth, type Probe, unhealthyApp } from "./health.ts";
import { HttpApp } from "./http.ts";
import { measuredGrpc, measuredHttp, type MeasuredHttp } from "./measured.ts";

/** How often and how long the app's port is tried while it is not up, ms (Dapr's). */
const dialPeriodMs = 100;
const dialTimeoutMs = 500;

/** The pipeline stands around what an HTTP app gets, health checks excepted. */
export function openApp(
  options: SidecarOptions,
  clock: Clock,
  log: Log,
  metrics: Metrics,
  pipelines: AppPipelines,
): AppChannel {
  const { port, protocol, address, apiToken, maxConcurrency } = options.app;
  if (port === 0) return noApp;
  const slots = new Slots(maxConcurrency);
  const to = { host: address, port, tls: protocol.endsWith("s") };
  const listening: AppChannel["listening"] = (signal, onAbsent) => waitForPort(to, clock, signal, onAbsent);
  if (protocol === "grpc" || protocol === "grpcs")
    return openGrpcApp(options, slots, listening, clock, log, metrics);
  const scheme = protocol === "https" ? "https" : "http";
  const client = new HttpApp({
    scheme,
    host: address,
    port,
    apiToken,
    maxHeaderBytes: options.api.readBufferBytes,
    ...(protocol === "h2c" ? { http2: "prior-knowledge" } : protocol === "https" ? { http2: "offered" } : {}),
    clock,
  });
  const http = measuredHttp(client, metrics, clock);
  // An HTTP app may serve gRPC beside it.
  const grpc = new LazyGrpcClient(options, clock, log, metrics);
  const channel: AppChannel = {
    protocol: "http",
    listening,
    invoke: (request, signal) =>
      slots.limited ? invokeInSlot(slots, http, request, signal) : http.invoke(request, signal),
    http: (request, signal) => slots.run(signal, () => http.http(request, signal)),
    grpc: () => Promise.reject(new Error("the app speaks HTTP, not gRPC (--app-protocol)")),
    proxy: async (request, signal) => {
      const { client, relayToApp } = await grpc.get();
      return relayToApp(client, request, signal);
    },
    endTunnels: () => http.endTunnels(),
    close: async () => {
      await Promise.all([http.close(), grpc.close()]);
    },
  };
  return probed(
    piped(channel, pipelines),
    (signal) => probeHttp(http, options.app.health?.path ?? "/", signal),
    options,
    clock,
    log,
  );
}

function piped(channel: AppChannel, pipelines: AppPipelines): AppChannel {
  return {
    ...channel,
    invoke(request, signal) {
      const { app } = pipelines;
      if (app === undefined) return channel.invoke(request, signal);
      return app.invoke(request, signal, (sent) => channel.invoke(sent, signal));
    },
    http(request, signal) {
      const { app } = pipelines;
      if (app === undefined) return channel.http(request, signal);
      return app.callback(request, signal, (sent) => channel.http(sent, signal));
    },
  };
}

/** The slot is free when the whole answer has been read, or its reader gave up. */
export async function invokeInSlot(
  slots: Slots,
  http: Pick<HttpApp, "invoke">,
  request: MeshRequest,
  signal: AbortSignal,
): Promise<MeshResponse> {
  const release = await slots.hold(signal);
  try {
    return await http.invoke(request, signal, release);
  } catch (error) {
    release();
    throw error;
  }
}

/** With app health checks on: a channel that refuses calls while the app is ill. Probes take no slot. */
function probed(
  channel: AppChannel,
  probe: Probe,
  options: SidecarOptions,
  clock: Clock,
  log: Log,
): AppChannel {
  if (options.app.health === undefined) return channel;
  const health = new AppHealth(options.app.health, probe, clock, log);
  const ill = (): Promise<never> => Promise.reject(unhealthyApp());
  return {
    ...channel,
    health,
    invoke: (request, signal) => (health.healthy ? channel.invoke(request, signal) : ill()),
    http: (request, signal) => (health.healthy ? channel.http(request, signal) : ill()),
    grpc: (request, signal) => (health.healthy ? channel.grpc(request, signal) : ill()),
  };
}

async function probeHttp(http: MeasuredHttp, path: string, signal: AbortSignal): Promise<boolean> {
  const target = path.startsWith("/") ? path : `/${path}`;
  const { status } = await http.probe({ verb: "GET", path: target, headers: [], body: undefined }, signal);
  return status >= 200 && status <= 299;
}

const healthMethod = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck";

/** The gRPC client and its protos are loaded with the first call, not at boot. */
class LazyGrpcClient {
  readonly #load: () => ReturnType<typeof loadGrpcClient>;
  #loaded: ReturnType<typeof loadGrpcClient> | undefined;

  constructor(options: SidecarOptions, clock: Clock, log: Log, metrics: Metrics) {
    this.#load = () => loadGrpcClient(options, clock, log, metrics);
  }

  get(): ReturnType<typeof loadGrpcClient> {
    return (this.#loaded ??= this.#load());
  }

  async close(): Promise<void> {
    (await this.#loaded)?.client.close();
  }
}

async function loadGrpcClient(options: SidecarOptions, clock: Clock, log: Log, metrics: Metrics) {
  const { createGrpcAppClient, invokeGrpcApp, relayToApp } = await import("./grpc.ts");
  const { address, port, protocol, apiToken } = options.app;
  const plain = createGrpcAppClient({
    host: address,
    port,
    tls: protocol === "grpcs",
    maxMessageBytes: options.api.maxBodyBytes,
    apiToken,
    clock,
    log,
  });
  const client = measuredGrpc(plain, healthMethod, metrics, clock);
  return { client, invokeGrpcApp, relayToApp };
}

function openGrpcApp(
  options: SidecarOptions,
  slots: Slots,
  listening: AppChannel["listening"],
  clock: Clock,
  log: Log,
  metrics: Metrics,
): AppChannel {
  const grpc = new LazyGrpcClient(options, clock, log, metrics);
  const channel: AppChannel = {
    protocol: "grpc",
    listening,
    invoke: async (request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> => {
      const { client, invokeGrpcApp } = await grpc.get();
      return slots.run(signal, () => invokeGrpcApp(client, request, signal));
    },
    http: (_request: AppHttpRequest): Promise<AppHttpResponse> =>
      Promise.reject(new Error("the app speaks gRPC, not HTTP (--app-protocol)")),
    grpc: async (request: AppGrpcRequest, signal: AbortSignal): Promise<AppGrpcResponse> => {
      const { client } = await grpc.get();
      return slots.run(signal, () => client.unary(request, signal));
    },
    proxy: async (request, signal) => {
      const { client, relayToApp } = await grpc.get();
      return relayToApp(client, request, signal);
    },
    close: () => grpc.close(),
  };
  const probe: Probe = async (signal) => {
    const { client } = await grpc.get();
    await client.unary({ path: healthMethod, metadata: [], message: new Uint8Array() }, signal);
    return true;
  };
  return probed(channel, probe, options, clock, log);
}

const noAppError = (): Promise<never> => Promise.reject(new Error("app channel is not initialized"));

const noApp: AppChannel = Object.freeze({
  protocol: "none",
  listening: () => Promise.resolve(),
  invoke: noAppError,
  http: noAppError,
  grpc: noAppError,
  proxy: async () => {
    const { noAppAnswer } = await import("./grpc.ts");
    return noAppAnswer();
  },
  close: () => Promise.resolve(),
});

/** Where the app is expected, for messages: `http://127.0.0.1:3000`. */
export function appAddress({ protocol, address, port }: SidecarOptions["app"]): string {
  const host = address.includes(":") ? `[${address}]` : address;
  return `${protocol === "h2c" ? "http" : protocol}://${host}:${port}`;
}

/** A TLS app is up when it has shaken hands, whatever its certificate. */
type Address = { readonly host: string; readonly port: number; readonly tls: boolean };

async function waitForPort(
  to: Address,
  clock: Clock,
  signal: AbortSignal,
  onAbsent: (() => void) | undefined,
): Promise<void> {
  for (let tries = 0; !(await accepts(to)); tries++) {
    if (tries === 0) onAbsent?.();
    await clock.sleep(dialPeriodMs, signal);
  }
}

function accepts({ tls, ...to }: Address): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = tls ? connectTls({ ...to, rejectUnauthorized: false }) : connect(to);
    const finish = (up: boolean): void => {
      socket.destroy();
      resolve(up);
    };
    socket.setTimeout(dialTimeoutMs, () => finish(false));
    socket.once(tls ? "secureConnect" : "connect", () => finish(true));
    socket.once("error", () => finish(false));
    socket.once("close", () => finish(false));
  });
}
