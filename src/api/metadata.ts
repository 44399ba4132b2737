/** The metadata API: what this sidecar is, what it has loaded, and free text that tools attach to it. */
import { directionOf } from "../components/component.ts";
import type { AwayComponent, OpenComponent } from "../components/open.ts";
import type { GenericResource } from "../config/kinds/generic.ts";
import type { AppHealthOptions, AppProtocol, SidecarOptions } from "../config/options.ts";
import { formatGoDuration } from "../lib/duration.ts";
import { goJsonInOrder } from "../lib/go-json.ts";
import { ApiError, GrpcCode } from "./errors.ts";
import type { GrpcMethod } from "./grpc.ts";
import { jsonReply, noContent, type HttpRoute } from "./http.ts";

/** Extended keys kept, and the longest value, so that a client cannot fill the memory. */
const maxExtended = 1_000;
const maxValueBytes = 64 * 1024;
const maxKeyBytes = 1024;

export type MetadataSource = {
  readonly options: SidecarOptions;
  readonly version: string;
  readonly features: () => readonly string[];
  readonly components: () => readonly OpenComponent[];
  /** Those that do not work now. */
  readonly away: () => readonly AwayComponent[];
  /** Resources that are listed by name only. */
  readonly others: () => readonly GenericResource[];
  readonly resiliencies: () => readonly { readonly name: string }[];
  /** The app accepts connections, or there is none. */
  readonly appUp: () => boolean;
  /** Parts that blocks own, e.g. `subscriptions`, in wire form. */
  readonly parts: () => Readonly<Record<string, unknown>>;
};

export class Metadata {
  readonly #source: MetadataSource;
  readonly #extended = new Map<string, string>();

  constructor(source: MetadataSource) {
    this.#source = source;
    this.#extended.set("daprRuntimeVersion", source.version);
  }

  /** Throws ApiError when the bounds are reached. */
  set(key: string, value: string): void {
    const full = this.#extended.size >= maxExtended && !this.#extended.has(key);
    if (full || Buffer.byteLength(value) > maxValueBytes || Buffer.byteLength(key) > maxKeyBytes) {
      const limits = `${maxExtended} keys of at most ${maxKeyBytes} bytes with values of at most ${maxValueBytes}`;
      const message = `metadata holds at most ${limits}`;
      throw new ApiError({
        code: "ERR_BAD_REQUEST",
        httpStatus: 400,
        grpcCode: GrpcCode.ResourceExhausted,
        message,
      });
    }
    this.#extended.set(key, value);
  }

  /** The document of GET /v1.0/metadata; members in the contract's order, empty ones left out. */
  document(): Readonly<Record<string, unknown>> {
    const { options, version, features, parts, appUp } = this.#source;
    const others = this.#source.others();
    const { subscriptions, httpEndpoints, ...otherParts } = parts();
    return withoutEmpty({
      id: options.appId,
      runtimeVersion: version,
      enabledFeatures: features(),
      components: this.#source.components().map(describeComponent),
      extended: this.#extendedNow(),
      subscriptions,
      httpEndpoints,
      appConnectionProperties: describeApp(options),
      actorRuntime: appUp() ? noActors : actorsLater,
      scheduler: { connected_addresses: [] },
      workflows: { connectedWorkers: 0 },
      mcpServers: namesOf(others, "MCPServer"),
      workflowAccessPolicies: namesOf(others, "WorkflowAccessPolicy"),
      resiliencies: this.#source.resiliencies().map(({ name }) => ({ name })),
      ...otherParts,
    });
  }

  /** Beside what clients have set: which components do not work, in a form that every Dapr client hands on. */
  #extendedNow(): Readonly<Record<string, string>> {
    const away = this.#source.away().map(({ name, opened, sinceMs }): [string, string] => {
      const since = new Date(sinceMs).toISOString();
      return [`weft.component.${name}`, opened ? `away since ${since}` : `not open, tried since ${since}`];
    });
    return Object.fromEntries([...this.#extended, ...away].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

export function metadataRoutes(metadata: Metadata): HttpRoute[] {
  return [
    {
      verbs: ["GET"],
      path: "/v1.0/metadata",
      name: "GetMetadata",
      group: "metadata",
      handle: () => jsonReply(`${goJsonInOrder(metadata.document())}\n`),
    },
    {
      verbs: ["PUT"],
      path: "/v1.0/metadata/{key}",
      name: "PutMetadata",
      group: "metadata",
      handle: async (call) => {
        metadata.set(call.params[0]!, (await call.body()).toString("utf8"));
        return noContent;
      },
    },
  ];
}

/** Loaded with the first gRPC connection. */
export async function metadataMethods(metadata: Metadata): Promise<GrpcMethod[]> {
  const { metadataGrpcMethods } = await import("./metadata-grpc.ts");
  return metadataGrpcMethods(metadata);
}

const noActors = Object.freeze({
  runtimeStatus: "DISABLED",
  hostReady: false,
  placement: "placement: disconnected",
});
const actorsLater = Object.freeze({ runtimeStatus: "INITIALIZING", hostReady: false });

function namesOf(resources: readonly GenericResource[], kind: string): { name: string }[] {
  return resources.filter((resource) => resource.kind === kind).map(({ name }) => ({ name }));
}

function describeComponent(component: OpenComponent): Readonly<Record<string, unknown>> {
  const { name, type, version } = component.resource;
  const { capabilities } = component;
  const shown = type.startsWith("bindings.") ? inDirection(component) : withActor(type, capabilities);
  return withoutEmpty({ name, type, version, capabilities: shown });
}

/** A binding that can do both is used as its metadata `direction` says. */
function inDirection({ capabilities, properties }: OpenComponent): readonly string[] {
  const { input, output } = directionOf(properties);
  return capabilities.filter((capability) => (capability === "INPUT_BINDING" ? input : output));
}

/** State stores with etags and transactions can hold actors. */
function withActor(type: string, capabilities: readonly string[]): readonly string[] {
  const able = capabilities.includes("ETAG") && capabilities.includes("TRANSACTIONAL");
  return type.startsWith("state.") && able && !capabilities.includes("ACTOR")
    ? [...capabilities, "ACTOR"]
    : capabilities;
}

function describeApp(options: SidecarOptions): Readonly<Record<string, unknown>> | undefined {
  const { port, protocol, address, maxConcurrency, health } = options.app;
  if (port === 0) return undefined;
  return withoutEmpty({
    port,
    protocol,
    channelAddress: address,
    maxConcurrency: Number.isFinite(maxConcurrency) ? maxConcurrency : undefined,
    health: health === undefined ? undefined : describeHealth(health, protocol),
  });
}

/** A gRPC app is probed by a method, not by a path. */
function describeHealth(health: AppHealthOptions, protocol: AppProtocol): Readonly<Record<string, unknown>> {
  return withoutEmpty({
    healthCheckPath: protocol === "grpc" || protocol === "grpcs" ? undefined : health.path,
    healthProbeInterval: formatGoDuration(health.intervalMs),
    healthProbeTimeout: formatGoDuration(health.timeoutMs),
    healthThreshold: health.threshold,
  });
}

function withoutEmpty(members: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => !isEmpty(value)));
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === "") return true;
  return Array.isArray(value) && value.length === 0;
}
