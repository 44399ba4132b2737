/**
 * What blocks stand on, in the order of start: NATS, metrics and traces, policies, the way to the app, components.
 */
import { natsAccess } from "./config/nats-access.ts";
import { existsSync } from "node:fs";
import { joinMesh, type Clock, type JoinedMesh, type Mesh } from "../mesh/index.ts";
import type { Health } from "./api/health.ts";
import type { AppChannel } from "./app/channel.ts";
import { openApp } from "./app/open.ts";
import type { BlockHost } from "./blocks/block.ts";
import { type ComponentEntry, componentEntries } from "./components/index.gen.ts";
import { openComponents } from "./components/open.ts";
import { resolveHttpEndpoints } from "./config/http-endpoints.ts";
import { formatProblem } from "./config/resources.ts";
import { systemRandom } from "./lib/random.ts";
import { openObservation } from "./observation.ts";
import { makePipelines, type Pipelines } from "./pipelines.ts";
import { noPolicies, type Policies } from "./resiliency/policies.ts";
import type { SidecarInit } from "./runtime.ts";
import type { Log } from "./telemetry/log.ts";
import type { Metrics } from "./telemetry/metrics.ts";
import type { Tracer } from "./telemetry/tracing/tracer.ts";
import { version } from "./version.ts";

export type Foundation = {
  readonly mesh: Mesh;
  readonly metrics: Metrics;
  /** Undefined when tracing is off. */
  readonly tracer: Tracer | undefined;
  readonly app: AppChannel;
  readonly components: Awaited<ReturnType<typeof openComponents>>;
  readonly httpEndpoints: BlockHost["httpEndpoints"];
  readonly pipelines: Pipelines;
  readonly policies: Policies;
};

/** Opens everything that blocks stand on, in this order; each is closed by `opened`, the last first. */
export async function openFoundation(
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
  const { metrics, tracer } = await openObservation(
    { ...init, counts: () => ({ mesh: mesh.counts() }) },
    clock,
    opened,
  );
  const policies = await openPolicies(init, clock, metrics);
  const pipelines = makePipelines({ ...init, components: () => components });
  const app = openApp(options, clock, log, metrics, pipelines.app);
  opened.defer(() => app.close());
  const resources = init.resources.components;
  const { deniedComponents: deny, wasmStrictSandbox: strictWasm } = init.configuration;
  const reloadable = init.features.includes("HotReload");
  const own = { options, resources, deny, strictWasm, reloadable };
  const entries = await withPlugins(env, clock, log);
  const components = await openComponents({ ...own, mesh, clock, log, metrics, env, entries });
  opened.defer(() => components.close());
  pipelines.warnSkipped();
  health.set("components", true);
  const { endpoints: httpEndpoints, problems } = await resolveHttpEndpoints(init.resources.httpEndpoints, {
    env,
    namespace: options.namespace,
    ...components.secrets,
  });
  for (const problem of problems) log.warn(formatProblem(problem));
  return { mesh, metrics, tracer, app, components, httpEndpoints, pipelines, policies };
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

/** Loaded only where there is a Resiliency resource. */
async function openPolicies(init: SidecarInit, clock: Clock, metrics: Metrics): Promise<Policies> {
  const resources = init.resources.resiliencies;
  if (resources.length === 0) return noPolicies;
  const { compilePolicies } = await import("./resiliency/compile.ts");
  const log = init.log.scope("dapr.runtime.resiliency");
  return compilePolicies({ resources, clock, random: systemRandom, log, metrics });
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
