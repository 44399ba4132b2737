/**
 * The assembly file of a sidecar. Read top-down it is the order of start; `stop` is the same list from the bottom up.
 * A process may host many sidecars: everything here lives in the object that `startSidecar` returns.
 */
import { hostname } from "node:os";
import { joinMesh, systemClock, type Clock, type Mesh } from "../mesh/index.ts";
import { Health, healthRoutes } from "./api/health.ts";
import type { AppHealth } from "./app/health.ts";
import { Metadata, metadataMethods, metadataRoutes } from "./api/metadata.ts";
import { shutdownMethods, shutdownRoutes } from "./api/shutdown.ts";
import { openApp } from "./app/open.ts";
import { makeBlocks } from "./blocks/index.ts";
import type { BlockHost } from "./blocks/block.ts";
import { openComponents } from "./components/open.ts";
import type { ApiLoggingSettings } from "./config/kinds/configuration.ts";
import type { SidecarOptions } from "./config/options.ts";
import type { LoadedResources } from "./config/resources.ts";
import { createGrpcServer } from "./ingress/grpc.ts";
import { createHttpServer, createPublicServer, type HttpServer } from "./ingress/http.ts";
import { listenOnAny, type ListenTarget } from "./ingress/listen.ts";
import { Serving } from "./serving.ts";
import { createMetricsServer } from "./telemetry/metrics-server.ts";
import { createMetrics, noMetrics } from "./telemetry/metrics.ts";
import type { Log } from "./telemetry/log.ts";
import { daprVersion, version } from "./version.ts";

/** A taken API port is tried for this long before the start fails, ms (Dapr's). */
const portPatienceMs = 10_000;

export type SidecarInit = {
  readonly options: SidecarOptions;
  readonly resources: LoadedResources;
  readonly apiLogging: ApiLoggingSettings;
  readonly metricsEnabled: boolean;
  readonly features: readonly string[];
  readonly log: Log;
  readonly env: NodeJS.ProcessEnv;
  readonly clock?: Clock;
  /** The shutdown API was called; `force` asks for an immediate end. */
  readonly onShutdownRequest: (force: boolean) => void;
};

export type Sidecar = {
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly health: Health;
  /** Rejects when what serves or watches the app breaks; without that there is nothing to wait for. */
  readonly running: Promise<void>;
  /** Ends deliveries to the app and healthz; calls both ways and the APIs go on. Before `stop`, not after it. */
  hold(graceMs: number): Promise<void>;
  /** Resolves when the app falls ill by its health checks (or already is); never without them. */
  appIll(): Promise<void>;
  /** Graceful end within `graceMs`: intake stops first, then calls in flight, components, NATS. */
  stop(graceMs: number): Promise<void>;
};

/** Resolves when the APIs accept calls. Rejects with a readable Error when a component or a port fails. */
export async function startSidecar(init: SidecarInit): Promise<Sidecar> {
  const { options, resources, log, clock = systemClock } = init;
  const startedMs = clock.monotonicMs();
  const stopping = new AbortController();
  const health = new Health(["nats", "components", "grpc-api-server", "http-api-server", "app"]);

  // 1. NATS: connects in the background; everything below works as soon as it is there.
  const mesh = join(init, clock);
  mesh.onStatus((status) => health.set("nats", status.connected));

  // 2. What blocks stand on: metrics, the app, components.
  const metrics = init.metricsEnabled ? createMetrics(options.appId) : noMetrics;
  const metricsServer = options.metrics.enabled ? await createMetricsServer(metrics, options.metrics) : undefined;
  const profiling = await openProfiling(options, clock, log);
  const app = openApp(options, clock, log);
  const components = await openComponents({ options, resources: resources.components, mesh, clock, log, metrics, env: init.env });
  health.set("components", true);

  // 3. Building blocks and the small APIs beside them.
  const host: BlockHost = { options, mesh, clock, app, components, subscriptions: resources.subscriptions, log, metrics };
  const { blocks, invocation } = makeBlocks(host);
  const metadata = new Metadata({
    options,
    version: daprVersion,
    features: init.features,
    components: () => components.list(),
    others: resources.others,
    appUp: () => health.isReady("app"),
    parts: () => Object.assign({}, ...blocks.map((block) => block.metadata?.() ?? {})),
  });

  // 4. API servers: gRPC, then HTTP.
  const grpc = createGrpcServer({
    methods: async () => [
      ...(await metadataMethods(metadata)),
      ...(await shutdownMethods(init.onShutdownRequest)),
      ...(await Promise.all(blocks.map((block) => block.grpc()))).flat(),
    ],
    maxMessageBytes: options.api.maxBodyBytes,
    apiToken: options.api.apiToken,
    apiLogging: init.apiLogging.enabled,
    clock,
    log,
    metrics,
  });
  const grpcPort = await listen((target) => grpc.listen(target), targets(options, "grpc"), clock, log);
  health.set("grpc-api-server", true);
  const smallRoutes = [...healthRoutes(health, options.appId), ...metadataRoutes(metadata)];
  const shared = { clock, log, metrics, readBufferBytes: options.api.readBufferBytes, h2c: options.api.h2c };
  const http = createHttpServer({
    ...shared,
    routes: [...smallRoutes, ...shutdownRoutes(init.onShutdownRequest), ...blocks.flatMap((block) => block.http)],
    fallback: invocation.fallback,
    maxBodyBytes: options.api.maxBodyBytes,
    apiToken: options.api.apiToken,
    allowedOrigins: options.api.allowedOrigins,
    apiLogging: init.apiLogging,
  });
  const publicHttp = createPublicServer({ ...shared, routes: smallRoutes });
  await listenPublic(publicHttp, options, log);
  const httpPort = await listen((target) => http.listen(target), targets(options, "http"), clock, log);
  health.set("http-api-server", true);
  log.info(`HTTP API on port ${httpPort}, gRPC API on port ${grpcPort}`);

  // 5. The app: wait for its port, watch its health, serve calls from the mesh and deliver to it while it is well.
  const initialized = (): void => {
    if (health.isReady("app") || stopping.signal.aborted) return;
    health.set("app", true);
    log.info(`dapr initialized. Status: Running. Init Elapsed ${Math.round(clock.monotonicMs() - startedMs)}ms`);
  };
  const serving = new Serving({ mesh, receive: invocation.receive, blocks, log, onServing: initialized });
  const running = (async () => {
    await app.listening(stopping.signal);
    if (app.health === undefined) return serving.set(true);
    const following = follow(app.health, serving, stopping.signal);
    initialized();
    await following;
  })().catch((error: unknown) => {
    if (!stopping.signal.aborted) throw error;
  });

  return {
    httpPort,
    grpcPort,
    health,
    running,
    async hold(graceMs) {
      health.set("security-provider", false);
      await serving.hold(graceMs);
    },
    appIll: () => illness(app.health),
    async stop(graceMs) {
      const endMs = clock.monotonicMs() + graceMs;
      const leftMs = (): number => Math.max(0, endMs - clock.monotonicMs());
      stopping.abort(new Error("the sidecar stops"));
      health.set("app", false);
      await serving.stop(graceMs);
      await Promise.all([http, grpc, publicHttp].map((server) => server.close(leftMs())));
      await components.close();
      await app.close();
      await mesh.close();
      await Promise.all([metricsServer?.close(), profiling?.close()]);
    },
  };
}

/** Serves the app while it is well. Resolves when the signal is aborted. */
async function follow(health: AppHealth, serving: Serving, signal: AbortSignal): Promise<void> {
  const failure = Promise.withResolvers<never>();
  health.onChange((healthy) => void serving.set(healthy).catch(failure.reject));
  await Promise.race([health.run(signal), failure.promise]);
}

function illness(health: AppHealth | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (health === undefined) return;
    if (!health.healthy) return resolve();
    health.onChange((healthy) => void (healthy || resolve()));
  });
}

/** The profiler is loaded only where it is wanted. */
async function openProfiling(options: SidecarOptions, clock: Clock, log: Log): Promise<{ close(): Promise<void> } | undefined> {
  if (!options.profiling.enabled) return undefined;
  const { createProfilingServer } = await import("./telemetry/profiling.ts");
  const { port } = options.profiling;
  const server = await createProfilingServer({ addresses: options.api.addresses, port }, clock);
  log.info(`profiling on port ${port}: /debug/pprof/`);
  return server;
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

function join(init: SidecarInit, clock: Clock): Mesh {
  const { options, log, env } = init;
  const { mesh } = options;
  const meshLog = log.scope("dapr.runtime.mesh");
  return joinMesh({
    namespace: options.namespace,
    app: options.appId,
    root: mesh.root,
    env,
    clock,
    version,
    log: (level, text) => meshLog[level](text),
    access: definedOnly({
      credsFile: mesh.credsFile,
      nkeyFile: mesh.nkeyFile,
      user: mesh.user,
      password: mesh.password,
      tlsCa: mesh.tlsCaFile,
      tlsCert: mesh.tlsCertFile,
      tlsKey: mesh.tlsKeyFile,
    }),
    natsPort: mesh.natsPort,
    ...(mesh.natsUrls.length === 0 ? {} : { natsUrls: mesh.natsUrls }),
    ...definedOnly({ home: mesh.home, natsServer: mesh.serverBinary }),
  });
}

function definedOnly<T extends Record<string, string | undefined>>(members: T): { [K in keyof T]?: string } {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: string };
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

/** Name of this host in log lines. */
export const instanceName = hostname();
