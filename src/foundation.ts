/**
 * What blocks stand on, in the order of start: NATS, metrics and traces, policies, the way to the app, components.
 */
import { natsAccess } from "./config/nats-access.ts";
import { existsSync } from "node:fs";
import { joinMesh, type Clock, type JoinedMesh, type Mesh } from "../mesh/index.ts";
import type { Health } from "./api/health.ts";
import type { AppChannel } from "./app/channel.ts";
import { openApp } from "./app/open.ts";
import { checkComponent } from "./blocks/index.ts";
import { type ComponentEntry, componentEntries } from "./components/index.gen.ts";
import { openComponents, type RunningComponents, type WantedComponents } from "./components/open.ts";
import { HttpEndpoints } from "./config/http-endpoints.ts";
import { type ConfigurationResource, enabledFeatures } from "./config/kinds/configuration.ts";
import type { LoadedResources } from "./config/resources.ts";
import { systemRandom } from "./lib/random.ts";
import { type Observation, openObservation } from "./observation.ts";
import { Pipelines } from "./pipelines.ts";
import { RunningPolicies } from "./resiliency/running.ts";
import type { SidecarInit } from "./runtime.ts";
import type { Log } from "./telemetry/log.ts";
import { version } from "./version.ts";

/** What has a `set` or `apply` follows changed files (changes.ts). */
export type Foundation = Observation & {
  readonly mesh: Mesh;
  readonly app: AppChannel;
  readonly components: RunningComponents;
  readonly endpoints: HttpEndpoints;
  readonly pipelines: Pipelines;
  readonly policies: RunningPolicies;
};

/** Opens everything that blocks stand on, in this order; each is closed by `opened`, the last first. */
export async function openFoundation(
  init: SidecarInit,
  clock: Clock,
  health: Health,
  opened: AsyncDisposableStack,
): Promise<Foundation> {
  const { options, log, env, configuration, resources } = init;

  // 1. NATS: connects in the background; everything below works as soon as it is there.
  const mesh = join(init, clock);
  opened.defer(() => mesh.close());
  mesh.onStatus((status) => health.set("nats", status.connected));

  // 2. What blocks stand on: metrics, the app, components.
  const observed = { ...init, counts: () => ({ mesh: mesh.counts() }) };
  const { metrics, tracing } = await openObservation(observed, clock, opened);
  const policies = new RunningPolicies({
    clock,
    random: systemRandom,
    log: log.scope("dapr.runtime.resiliency"),
    metrics,
  });
  await policies.set(resources.resiliencies);
  const pipelines = new Pipelines({ ...init, components: () => components });
  pipelines.set(configuration);
  const app = openApp(options, clock, log, metrics, pipelines);
  opened.defer(() => app.close());
  const wanted = wantedComponents(configuration, resources);
  const reloadable = enabledFeatures(configuration).includes("HotReload");
  const entries = await withPlugins(env, clock, log);
  const own = { options, wanted, reloadable, entries, check: checkComponent };
  const components = await openComponents({ ...own, mesh, clock, log, metrics, env });
  opened.defer(() => components.close());
  pipelines.warnSkipped();
  health.set("components", true);
  const surroundings = { env, namespace: options.namespace, ...components.secrets };
  const endpoints = new HttpEndpoints(surroundings, (text) => log.warn(text));
  await endpoints.set(resources.httpEndpoints);
  return { mesh, metrics, tracing, app, components, endpoints, pipelines, policies };
}

/** The components that files and Configuration ask for. */
export function wantedComponents(
  { deniedComponents, wasmStrictSandbox }: ConfigurationResource,
  { components }: LoadedResources,
): WantedComponents {
  return { resources: components, deny: deniedComponents, strictWasm: wasmStrictSandbox };
}

/** Component types, those of plug-ins among them. The code for these is loaded only where their folder is. */
async function withPlugins(
  env: NodeJS.ProcessEnv,
  clock: Clock,
  log: Log,
): Promise<readonly ComponentEntry[]> {
  const folder = env["DAPR_COMPONENTS_SOCKETS_FOLDER"] || "/tmp/dapr-components-sockets";
  if (!existsSync(folder)) return componentEntries;
  const { findPlugins } = await import("./components/pluggable/find.ts");
  // Behind ours: whoever may write to the folder shall not get what is meant for a type of this build.
  return [...componentEntries, ...(await findPlugins(folder, clock, log.scope("dapr.runtime")))];
}

function join(init: SidecarInit, clock: Clock): JoinedMesh {
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
    access: natsAccess(mesh),
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
