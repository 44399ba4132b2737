/**
 * The assembly file of a sidecar. Read top-down it is the order of start; `stop` is the same list from the bottom up.
 * A process may host many sidecars: everything here lives in the object that `startSidecar` returns.
 */
import { hostname } from "node:os";
import { joinMesh, systemClock, type Clock, type Mesh } from "../mesh/index.ts";
import { Health } from "./api/health.ts";
import { Metadata } from "./api/metadata.ts";
import { openApis } from "./apis.ts";
import type { AppChannel } from "./app/channel.ts";
import { openApp } from "./app/open.ts";
import { createUpdate } from "./changes.ts";
import { makeBlocks } from "./blocks/index.ts";
import type { BlockHost } from "./blocks/block.ts";
import { openComponents } from "./components/open.ts";
import { resolveHttpEndpoints } from "./config/http-endpoints.ts";
import type { ApiLoggingSettings, ConfigurationResource } from "./config/kinds/configuration.ts";
import type { SidecarOptions } from "./config/options.ts";
import { formatProblem, type LoadedResources } from "./config/resources.ts";
import { Serving } from "./serving.ts";
import { createMetricsServer } from "./telemetry/metrics-server.ts";
import { createMetrics, type Metrics, noMetrics } from "./telemetry/metrics.ts";
import type { Log } from "./telemetry/log.ts";
import { daprVersion, version } from "./version.ts";

export type SidecarInit = {
  readonly options: SidecarOptions;
  readonly resources: LoadedResources;
  readonly configuration: ConfigurationResource;
  /** The flag beside the Configuration decides. */
  readonly apiLogging: ApiLoggingSettings;
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
  /** Hot reload: follows changed components and subscriptions. Never rejects; calls must not overlap. */
  update(resources: LoadedResources): Promise<void>;
  /** Ends deliveries to the app and healthz; calls both ways and the APIs go on. Before `stop`, not after it. */
  hold(graceMs: number): Promise<void>;
  /** Resolves when the app falls ill by its health checks (or already is); never without them. */
  appIll(): Promise<void>;
  /** Graceful end within `graceMs`: intake stops first, then calls in flight, components, NATS. */
  stop(graceMs: number): Promise<void>;
};

/**
 * Resolves when the APIs accept calls. Rejects with a readable Error when a component or a port fails, leaving nothing
 * behind.
 */
export async function startSidecar(init: SidecarInit): Promise<Sidecar> {
  // Closed from the last opened to the first, at the end or when the start fails.
  const opened = new AsyncDisposableStack();
  try {
    return await assemble(init, opened);
  } catch (error) {
    await opened.disposeAsync();
    throw error;
  }
}

async function assemble(init: SidecarInit, opened: AsyncDisposableStack): Promise<Sidecar> {
  const { options, configuration, resources, log, clock = systemClock } = init;
  const startedMs = clock.monotonicMs();
  const stopping = new AbortController();
  const health = new Health(["nats", "components", "grpc-api-server", "http-api-server", "app"]);
  const { mesh, metrics, app, components, httpEndpoints } = await openFoundation(init, clock, health, opened);

  // 3. Building blocks and the small APIs beside them.
  const { subscriptions } = resources;
  let { others } = resources;
  const foundation = { options, configuration, mesh, clock, app, components, log, metrics };
  const host: BlockHost = { ...foundation, subscriptions, httpEndpoints };
  const { blocks, invocation } = await makeBlocks(host);
  opened.defer(() => invocation.close());
  const metadata = new Metadata({
    options,
    version: daprVersion,
    features: init.features,
    components: () => components.list(),
    others: () => others,
    appUp: () => health.isReady("app"),
    parts: () => Object.assign({}, ...blocks.map((block) => block.metadata?.() ?? {})),
  });

  // 4. API servers: gRPC, then HTTP.
  const { fallback, receive } = invocation;
  const apis = await openApis({ ...init, clock, metrics, health, metadata, blocks, fallback });

  // 5. The app: wait for its port, watch its health, serve calls from the mesh and deliver to it while it is well.
  const initialized = (): void => {
    if (health.isReady("app") || stopping.signal.aborted) return;
    health.set("app", true);
    const elapsedMs = Math.round(clock.monotonicMs() - startedMs);
    log.info(`dapr initialized. Status: Running. Init Elapsed ${elapsedMs}ms`);
  };
  const serving = new Serving({ mesh, receive, blocks, clock, log, onServing: initialized });
  const running = follow(app, serving, stopping.signal, initialized);
  const update = createUpdate({ components, blocks, subscriptions, log, stopping: stopping.signal });

  return {
    httpPort: apis.httpPort,
    grpcPort: apis.grpcPort,
    health,
    running,
    async update(changed) {
      ({ others } = changed);
      await update(changed);
    },
    async hold(graceMs) {
      health.set("security-provider", false);
      await serving.hold(graceMs);
    },
    appIll: () => app.health?.whenIll() ?? new Promise(() => {}),
    async stop(graceMs) {
      const endMs = clock.monotonicMs() + graceMs;
      stopping.abort(new Error("the sidecar stops"));
      health.set("app", false);
      try {
        await serving.stop(graceMs);
        await apis.close(Math.max(0, endMs - clock.monotonicMs()));
      } finally {
        await opened.disposeAsync();
      }
    },
  };
}

/** Serves the app while it is up and well. Rejects when serving fails, never at the stop. */
async function follow(
  app: AppChannel,
  serving: Serving,
  stopping: AbortSignal,
  initialized: () => void,
): Promise<void> {
  try {
    await app.listening(stopping);
    if (app.health === undefined) return await serving.set(true);
    const following = serving.follow(app.health, stopping);
    initialized();
    await following;
  } catch (error) {
    if (!stopping.aborted) throw error;
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
  const metrics = init.configuration.metrics.enabled ? createMetrics(options.appId) : noMetrics;
  if (options.metrics.enabled) {
    const server = await createMetricsServer(metrics, options.metrics, log);
    opened.defer(() => server.close());
  }
  const profiling = await openProfiling(options, clock, log);
  opened.defer(() => profiling?.close());
  const app = openApp(options, clock, log);
  opened.defer(() => app.close());
  const resources = init.resources.components;
  const { deniedComponents: deny } = init.configuration;
  const reloadable = init.features.includes("HotReload");
  const parts = { options, resources, deny, mesh, clock, log, metrics, env, reloadable };
  const components = await openComponents(parts);
  opened.defer(() => components.close());
  health.set("components", true);
  const { endpoints: httpEndpoints, problems } = await resolveHttpEndpoints(init.resources.httpEndpoints, {
    env,
    namespace: options.namespace,
    ...components.secrets,
  });
  for (const problem of problems) log.warn(formatProblem(problem));
  return { mesh, metrics, app, components, httpEndpoints };
}

/** The profiler is loaded only where it is wanted. */
async function openProfiling(
  options: SidecarOptions,
  clock: Clock,
  log: Log,
): Promise<{ close(): Promise<void> } | undefined> {
  if (!options.profiling.enabled) return undefined;
  const { createProfilingServer } = await import("./telemetry/profiling.ts");
  const { port } = options.profiling;
  const server = await createProfilingServer({ addresses: options.api.addresses, port }, clock);
  log.info(`profiling on port ${port}: /debug/pprof/`);
  return server;
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

/** Name of this host in log lines. */
export const instanceName = hostname();
