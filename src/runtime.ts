/**
 * The assembly file of a sidecar. Read top-down it is the order of start; `stop` is the same list from the bottom up.
 * A process may host many sidecars: everything here lives in the object that `startSidecar` returns.
 */
import { hostname } from "node:os";
import { systemClock, type Clock } from "../mesh/index.ts";
import { Health } from "./api/health.ts";
import { Metadata } from "./api/metadata.ts";
import { type Apis, openApis } from "./apis.ts";
import type { AppChannel } from "./app/channel.ts";
import { type AppConfig, askForConfig, emptyAppConfig } from "./app/config.ts";
import { appAddress } from "./app/open.ts";
import { Changes, type Files } from "./changes.ts";
import { makeBlocks } from "./blocks/index.ts";
import type { BlockHost } from "./blocks/block.ts";
import { enabledFeatures } from "./config/kinds/configuration.ts";
import type { SidecarOptions } from "./config/options.ts";
import { systemRandom } from "./lib/random.ts";
import { openFoundation } from "./foundation.ts";
import { Serving } from "./serving.ts";
import type { Log } from "./telemetry/log.ts";
import { daprVersion } from "./version.ts";

export type SidecarInit = Files & {
  readonly options: SidecarOptions;
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
  /** Hot reload: follows changed files. Never rejects; calls must not overlap. */
  update(files: Files): Promise<void>;
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

  // 1. and 2. NATS, metrics, policies, the app's channel, components (foundation.ts).
  const foundation = await openFoundation(init, clock, health, opened);
  const { mesh, metrics, tracing, app, components, endpoints, pipelines } = foundation;

  // 3. Building blocks and the small APIs beside them.
  const { subscriptions } = resources;
  const httpEndpoints = endpoints.all;
  const shared = { options, configuration, clock, log, subscriptions, httpEndpoints, random: systemRandom };
  const host: BlockHost = { ...foundation, ...shared };
  const { blocks, invocation } = await makeBlocks(host);
  opened.defer(() => invocation.close());
  const files = { configuration, resources };
  const changes = new Changes({ ...foundation, blocks, log, stopping: stopping.signal, files });
  health.away = () => components.away().map(({ name }) => name);
  const metadata = new Metadata({
    options,
    version: daprVersion,
    features: () => enabledFeatures(changes.files.configuration),
    components: () => components.list(),
    away: () => components.away(),
    others: () => changes.files.resources.others,
    resiliencies: () => changes.files.resources.resiliencies,
    appUp: () => health.isReady("app"),
    parts: () => Object.assign({}, ...blocks.map((block) => block.metadata?.() ?? {})),
  });

  // 4. API servers: gRPC, then HTTP.
  const { fallback, proxy, receive } = invocation;
  const parts = { clock, metrics, tracing, health, metadata, blocks, fallback, proxy, pipelines };
  const apis = await openApis({ ...init, ...parts });
  const update = (files: Files): Promise<void> => changes.take(files, apis);

  // 5. The app: wait for its port, watch its health, serve calls from the mesh and deliver to it while it is well.
  const initialized = (): void => {
    if (health.isReady("app") || stopping.signal.aborted) return;
    health.set("app", true);
    const elapsedMs = Math.round(clock.monotonicMs() - startedMs);
    log.info(`dapr initialized. Status: Running. Init Elapsed ${elapsedMs}ms`);
  };
  const serving = new Serving({
    mesh,
    receive,
    blocks,
    clock,
    log,
    appAt: appAddress(options.app),
    askForConfig: () => configOf(app, options, clock, log),
    onServing: initialized,
  });
  const running = follow(app, serving, stopping.signal, initialized);

  return describeSidecar({ apis, health, running, serving, update, app, clock, stopping, opened });
}

type Parts = {
  readonly apis: Apis;
  readonly health: Health;
  readonly running: Promise<void>;
  readonly serving: Serving;
  readonly update: Sidecar["update"];
  readonly app: AppChannel;
  readonly clock: Clock;
  readonly stopping: AbortController;
  readonly opened: AsyncDisposableStack;
};

/** The running sidecar and the way it ends. */
function describeSidecar(parts: Parts): Sidecar {
  const { apis, health, running, serving, update, app, clock, stopping, opened } = parts;
  return {
    httpPort: apis.httpPort,
    grpcPort: apis.grpcPort,
    health,
    running,
    update,
    async hold(graceMs) {
      health.set("security-provider", false);
      await serving.hold(graceMs);
    },
    appIll: () => app.health?.whenIll() ?? new Promise(() => {}),
    async stop(graceMs) {
      const endMs = clock.monotonicMs() + graceMs;
      stopping.abort(new Error("the sidecar stops"));
      health.set("app", false);
      app.endTunnels?.();
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
    await app.listening(stopping, () => serving.tellUnready("starting"));
    if (app.health === undefined) return await serving.set(true);
    serving.tellUnready("ill");
    const following = serving.follow(app.health, stopping);
    // An app that is ill from the start does not keep its sidecar from being ready; a good probe leads to `onServing`.
    void app.health.firstProbe.then((well) => {
      if (!well) initialized();
    });
    await following;
  } catch (error) {
    if (!stopping.aborted) throw error;
  }
}

async function configOf(
  app: AppChannel,
  options: SidecarOptions,
  clock: Clock,
  log: Log,
): Promise<AppConfig> {
  const { appId, actorsDisseminateTimeoutMs: disseminateTimeoutMs } = options;
  if (options.app.skipConfig) return emptyAppConfig;
  return askForConfig({ app, appId, disseminateTimeoutMs, clock, log });
}

/** Name of this host in log lines. */
export const instanceName = hostname();
