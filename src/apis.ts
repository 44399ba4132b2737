/**
 * The API ports of a sidecar: gRPC, HTTP and the public one, what is mounted on each, and where they listen.
 */
import type { Clock } from "../mesh/index.ts";
import type { GrpcProxy } from "./api/grpc.ts";
import { compileApiLists, pageNotFound } from "./api/api-lists.ts";
import { type Health, healthRoutes } from "./api/health.ts";
import { type Metadata, metadataMethods, metadataRoutes } from "./api/metadata.ts";
import { shutdownMethods, shutdownRoutes } from "./api/shutdown.ts";
import type { Block } from "./blocks/block.ts";
import type { ConfigurationResource } from "./config/kinds/configuration.ts";
import type { SidecarOptions } from "./config/options.ts";
import { createGrpcServer, type GrpcServer, type GrpcSteps } from "./ingress/grpc.ts";
import { grpcTracing } from "./ingress/grpc-tracing.ts";
import { createHttpServer, type HttpServer, publicSteps } from "./ingress/http.ts";
import { middlewareStep } from "./ingress/http-middleware.ts";
import type { HttpSteps } from "./ingress/http-steps.ts";
import { tracingStep } from "./ingress/http-tracing.ts";
import { listenOnAny, type ListenTarget } from "./ingress/listen.ts";
import type { Pipelines } from "./pipelines.ts";
import type { Log } from "./telemetry/log.ts";
import type { Metrics } from "./telemetry/metrics.ts";
import type { Tracing } from "./telemetry/tracing/tracer.ts";

/** A taken API port is tried for this long before the start fails, ms (Dapr's). */
const portPatienceMs = 10_000;

export type ApisInit = {
  readonly options: SidecarOptions;
  /** At the start. */
  readonly configuration: ConfigurationResource;
  readonly pipelines: Pick<Pipelines, "http">;
  readonly onShutdownRequest: (force: boolean) => void;
  readonly health: Health;
  readonly metadata: Metadata;
  readonly blocks: readonly Block[];
  /** Takes every HTTP request that no route takes (service invocation). */
  readonly fallback: HttpSteps["fallback"];
  /** Takes every gRPC call of a service that the sidecar does not have. */
  readonly proxy: GrpcProxy;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
};

export type Apis = {
  readonly httpPort: number;
  readonly grpcPort: number;
  /** For calls from here on: API lists, API log, and what pipelines, tracing and metrics are now. */
  set(configuration: ConfigurationResource): void;
  /** Stops accepting, waits for calls in flight up to `graceMs`, then ends them. */
  close(graceMs: number): Promise<void>;
};

/** Opens gRPC, then HTTP; each is told to `health`. Rejects with the port in the message when one cannot be had. */
export async function openApis(init: ApisInit): Promise<Apis> {
  const first = stepsOf(init, init.configuration);
  const grpc = makeGrpc(init, first.grpc);
  const { http, publicHttp } = makeHttp(init, first);
  const set = (configuration: ConfigurationResource): void => {
    const steps = stepsOf(init, configuration);
    grpc.set(steps.grpc);
    http.set(steps.http);
    publicHttp.set(steps.publicHttp);
  };
  const close = async (graceMs: number): Promise<void> => {
    await Promise.all([http, grpc, publicHttp].map((server) => server.close(graceMs)));
  };
  try {
    return { ...(await listenAll(init, grpc, http, publicHttp)), set, close };
  } catch (error) {
    await close(0);
    throw error;
  }
}

async function listenAll(
  { options, health, clock, log }: ApisInit,
  grpc: GrpcServer,
  http: HttpServer,
  publicHttp: HttpServer,
): Promise<{ httpPort: number; grpcPort: number }> {
  const grpcPort = await listen((target) => grpc.listen(target), targets(options, "grpc"), clock, log);
  health.set("grpc-api-server", true);
  await listenPublic(publicHttp, options, log);
  const httpPort = await listen((target) => http.listen(target), targets(options, "http"), clock, log);
  health.set("http-api-server", true);
  log.info(`HTTP API on port ${httpPort}, gRPC API on port ${grpcPort}`);
  return { httpPort, grpcPort };
}

type Steps = { readonly grpc: GrpcSteps; readonly http: HttpSteps; readonly publicHttp: HttpSteps };

/** The ways of calls under a Configuration. */
function stepsOf(init: ApisInit, configuration: ConfigurationResource): Steps {
  const { options, health, metadata, blocks, clock, log, metrics, pipelines, tracing } = init;
  const { api } = options;
  const lists = compileApiLists(configuration.api);
  const { grpcGuard } = lists;
  const apiLogging = { ...configuration.apiLogging, enabled: isLogging(options, configuration) };
  const shared = { clock, log, metrics };
  const { tracer } = tracing;
  const small = [...healthRoutes(health, options.appId), ...metadataRoutes(metadata)];
  const all = [...small, ...shutdownRoutes(init.onShutdownRequest), ...blocks.flatMap((block) => block.http)];
  return {
    grpc: {
      apiLogging: apiLogging.enabled,
      tracing: tracer && grpcTracing(tracer),
      guard: grpcGuard && ((call) => grpcGuard(call.path)),
    },
    http: {
      ...shared,
      routes: lists.routes(all),
      fallback: lists.invocation ? init.fallback : () => pageNotFound,
      apiToken: api.apiToken,
      allowedOrigins: api.allowedOrigins,
      apiLogging,
      tracing: tracer && tracingStep(tracer),
      middleware: pipelines.http && middlewareStep(pipelines.http),
    },
    publicHttp: publicSteps(shared, lists.routes(small)),
  };
}

/** The flag beside the Configuration decides. */
function isLogging({ api }: SidecarOptions, { apiLogging }: ConfigurationResource): boolean {
  return api.apiLogging ?? apiLogging.enabled;
}

function makeGrpc(init: ApisInit, steps: GrpcSteps): GrpcServer {
  const { options, metadata, onShutdownRequest, blocks, proxy, clock, log, metrics } = init;
  return createGrpcServer({
    ...steps,
    methods: async () => {
      const methods = [
        ...(await metadataMethods(metadata)),
        ...(await shutdownMethods(onShutdownRequest)),
        ...(await Promise.all(blocks.map((block) => block.grpc()))).flat(),
      ];
      const { reflectionMethods } = await import("./api/reflection-grpc.ts");
      return [...methods, ...reflectionMethods(methods)];
    },
    maxMessageBytes: options.api.maxBodyBytes,
    apiToken: options.api.apiToken,
    proxy,
    clock,
    log,
    metrics,
  });
}

function makeHttp({ options }: ApisInit, steps: Steps): Record<"http" | "publicHttp", HttpServer> {
  const { maxBodyBytes, readBufferBytes, h2c } = options.api;
  return {
    http: createHttpServer({ ...steps.http, maxBodyBytes, readBufferBytes, h2c }),
    publicHttp: createHttpServer({ ...steps.publicHttp, maxBodyBytes: Infinity, readBufferBytes, h2c }),
  };
}

/** Rejects at once when the port is taken. */
async function listenPublic(server: HttpServer, options: SidecarOptions, log: Log): Promise<void> {
  const { publicPort, publicAddress } = options.api;
  if (publicPort === undefined) return;
  try {
    const port = await server.listen({ host: publicAddress, port: publicPort });
    log.info(`health and metadata on public port ${port}`);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new Error(`public port: ${text}; choose another --dapr-public-port`, { cause: error });
  }
}

/** Where an API listens: socket file, or its port on every listen address. */
function targets(options: SidecarOptions, api: "http" | "grpc"): ListenTarget[] {
  const { addresses, httpPort, grpcPort } = options.api;
  const [http, grpc] = socketPaths(options);
  if (http !== undefined && grpc !== undefined) return [{ socketPath: api === "http" ? http : grpc }];
  const port = api === "http" ? httpPort : grpcPort;
  return addresses.map((host) => ({ host, port }));
}

/** Socket files that replace the ports: of HTTP, of gRPC; none without --unix-domain-socket. */
export function socketPaths({ appId, api }: SidecarOptions): string[] {
  if (api.socketDirectory === undefined) return [];
  return ["http", "grpc"].map((name) => `${api.socketDirectory}/dapr-${appId}-${name}.socket`);
}

function listen(
  start: (target: ListenTarget) => Promise<number>,
  where: readonly ListenTarget[],
  clock: Clock,
  log: Log,
): Promise<number> {
  return listenOnAny(start, where, portPatienceMs, clock, (text) => log.warn(text));
}
