/**
 * The assembly file of a sidecar. Read top-down it is the order of start; `stop` is the same list from the bottom up.
 * A process may host many sidecars: everything here lives in the object that `startSidecar` returns.
 */
import { hostname } from "node:os";
import { joinMesh, systemClock, type Clock, type Mesh, type Served } from "../mesh/index.ts";
import { Health, healthRoutes } from "./api/health.ts";
import { Metadata, metadataMethods, metadataRoutes } from "./api/metadata.ts";
import { shutdownMethods, shutdownRoutes } from "./api/shutdown.ts";
import type { AppChannel } from "./app/channel.ts";
import { openApp } from "./app/open.ts";
import { makeBlocks } from "./blocks/index.ts";
import type { Block, BlockHost } from "./blocks/block.ts";
import type { InvocationBlock } from "./blocks/invocation/index.ts";
import { openComponents } from "./components/open.ts";
import { resolveHttpEndpoints } from "./config/http-endpoints.ts";
import type { SidecarOptions } from "./config/options.ts";
import { formatProblem, type LoadedResources } from "./config/resources.ts";
import { createGrpcServer } from "./ingress/grpc.ts";
import { createHttpServer } from "./ingress/http.ts";
import { listenOnAny, type ListenTarget } from "./ingress/listen.ts";
import { createMetricsServer } from "./telemetry/metrics-server.ts";
import { createMetrics, noMetrics, type Metrics } from "./telemetry/metrics.ts";
import type { Log } from "./telemetry/log.ts";
import { daprVersion, version } from "./version.ts";

/** A taken API port is tried for this long before the start fails, ms (Dapr's). */
const portPatienceMs = 10_000;

export type SidecarInit = {
  readonly options: SidecarOptions;
  readonly resources: LoadedResources;
  readonly apiLogging: boolean;
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
  /** Resolves when the app is reachable and everything that delivers to it has begun. */
  readonly running: Promise<void>;
  /** Graceful end within `graceMs`: intake stops first, then calls in flight, components, NATS. */
  stop(graceMs: number): Promise<void>;
};

/**
 * Resolves when the APIs accept calls. Rejects with a readable Error when a component or a port fails, leaving nothing
 * behind.
 */
export async function startSidecar(init: SidecarInit): Promise<Sidecar> {
  const { options, log, clock = systemClock } = init;
  const startedMs = clock.monotonicMs();
  const stopping = new AbortController();
  const health = new Health(["nats", "components", "grpc-api-server", "http-api-server", "app"]);
  // Closed from the last opened to the first, at the end or when the start fails.
  const opened = new AsyncDisposableStack();
  try {
    const { mesh, metrics, app, components, httpEndpoints } = await openFoundation(init, clock, health, opened);

    // 3. Building blocks and the small APIs beside them.
    const { subscriptions } = init.resources;
    const foundation = { options, mesh, clock, app, components, log, metrics };
    const host: BlockHost = { ...foundation, subscriptions, httpEndpoints };
    const { blocks, invocation } = makeBlocks(host);
    opened.defer(() => invocation.close());
    const metadata = new Metadata({
      options,
      version: daprVersion,
      features: init.features,
      components: () => components.list(),
      parts: () => Object.assign({}, ...blocks.map((block) => block.metadata?.() ?? {})),
    });

    // 4. API servers: gRPC, then HTTP.
    const apis = await startApis(init, { blocks, invocation, metadata, health, metrics, clock }, opened);

    // 5. The app: wait for its port, then serve calls from the mesh and deliver to it.
    let served: Served | undefined;
    const running = (async () => {
      await app.listening(stopping.signal);
      served = await mesh.serve(invocation.receive);
      await mesh.announce();
      health.set("app", true);
      const elapsedMs = Math.round(clock.monotonicMs() - startedMs);
      log.info(`dapr initialized. Status: Running. Init Elapsed ${elapsedMs}ms`);
      await Promise.all(blocks.map(async (block) => block.appReady?.()));
    })().catch((error: unknown) => {
      if (!stopping.signal.aborted) throw error;
    });

    return {
      httpPort: apis.httpPort,
      grpcPort: apis.grpcPort,
      health,
      running,
      async stop(graceMs) {
        stopping.abort(new Error("the sidecar stops"));
        health.set("app", false);
        await Promise.all([served?.drain(graceMs), ...blocks.map(async (block) => block.stop?.(graceMs))]);
        await apis.close(graceMs);
        await opened.disposeAsync();
      },
    };
  } catch (error) {
    await opened.disposeAsync();
    throw error;
  }
}

type Foundation = {
  readonly mesh: Mesh;
  readonly metrics: Metrics;
  readonly app: AppChannel;
  readonly components: Awaited<ReturnType<typeof openComponents>>;
  readonly httpEndpoints: BlockHost["httpEndpoints"];
};

async function openFoundation(
  init: SidecarInit,
  clock: Clock,
  health: Health,
  opened: AsyncDisposableStack,
): Promise<Foundation> {
  const { options, log, env } = init;

  // 1. NATS: connects in the background; everything below works as soon as it is there.
  const mesh = join(init, clock);
  opened.defer(() => mesh.close());
  mesh.onStatus((status) => health.set("nats", status.connected));

  // 2. What blocks stand on: metrics, the app, components.
  const metrics = init.metricsEnabled ? createMetrics(options.appId) : noMetrics;
  if (options.metrics.enabled) {
    const server = await createMetricsServer(metrics, options.metrics);
    opened.defer(() => server.close());
  }
  const app = openApp(options, clock, log);
  opened.defer(() => app.close());
  const resources = init.resources.components;
  const components = await openComponents({ options, resources, mesh, clock, log, metrics, env });
  opened.defer(() => components.close());
  health.set("components", true);
  const { endpoints: httpEndpoints, problems } = await resolveHttpEndpoints(init.resources.httpEndpoints, env);
  for (const problem of problems) log.warn(formatProblem(problem));
  return { mesh, metrics, app, components, httpEndpoints };
}

type ApiParts = {
  readonly blocks: readonly Block[];
  readonly invocation: InvocationBlock;
  readonly metadata: Metadata;
  readonly health: Health;
  readonly metrics: Metrics;
  readonly clock: Clock;
};

type Apis = { readonly httpPort: number; readonly grpcPort: number; close(graceMs: number): Promise<void> };

/** Mounts the tables of all blocks on both protocols and listens. */
async function startApis(init: SidecarInit, parts: ApiParts, opened: AsyncDisposableStack): Promise<Apis> {
  const { options, log } = init;
  const { blocks, metadata, health, metrics, clock } = parts;
  const { apiToken, maxBodyBytes, readBufferBytes } = options.api;
  const grpc = createGrpcServer({
    methods: async () => [
      ...(await metadataMethods(metadata)),
      ...(await shutdownMethods(init.onShutdownRequest)),
      ...(await Promise.all(blocks.map((block) => block.grpc()))).flat(),
    ],
    maxMessageBytes: maxBodyBytes,
    apiToken,
    apiLogging: init.apiLogging,
    clock,
    log,
    metrics,
  });
  opened.defer(() => grpc.close(0));
  const grpcPort = await listen((target) => grpc.listen(target), targets(options, "grpc"), clock, log);
  health.set("grpc-api-server", true);
  const http = createHttpServer({
    routes: [
      ...healthRoutes(health, options.appId),
      ...metadataRoutes(metadata),
      ...shutdownRoutes(init.onShutdownRequest),
      ...blocks.flatMap((block) => block.http),
    ],
    fallback: parts.invocation.fallback,
    maxBodyBytes,
    readBufferBytes,
    apiToken,
    apiLogging: init.apiLogging,
    clock,
    log,
    metrics,
  });
  opened.defer(() => http.close(0));
  const httpPort = await listen((target) => http.listen(target), targets(options, "http"), clock, log);
  health.set("http-api-server", true);
  log.info(`HTTP API on port ${httpPort}, gRPC API on port ${grpcPort}`);
  return {
    httpPort,
    grpcPort,
    close: async (graceMs) => void (await Promise.all([http.close(graceMs), grpc.close(graceMs)])),
  };
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
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: string;
  };
}

/** Where an API listens: socket file, or its port on every listen address. */
function targets(options: SidecarOptions, api: "http" | "grpc"): ListenTarget[] {
  const { socketDirectory, addresses, httpPort, grpcPort } = options.api;
  if (socketDirectory !== undefined)
    return [{ socketPath: `${socketDirectory}/dapr-${options.appId}-${api}.socket` }];
  const port = api === "http" ? httpPort : grpcPort;
  return addresses.map((host) => ({ host, port }));
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
