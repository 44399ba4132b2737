/**
 * What a building block is to the runtime: routes for both protocols, and a life.
 * Each folder beside this file exports one function `BlockHost -> Block` from its index.ts.
 */
import type { Mesh, Clock } from "../../mesh/index.ts";
import type { HttpRoute } from "../api/http.ts";
import type { GrpcMethod } from "../api/grpc.ts";
import type { AppPipelines } from "../app/app-pipeline.ts";
import type { AppChannel } from "../app/channel.ts";
import type { AppConfig } from "../app/config.ts";
import type { ComponentChange, OpenComponents } from "../components/open.ts";
import type { HttpEndpoint } from "../config/http-endpoints.ts";
import type { ConfigurationResource } from "../config/kinds/configuration.ts";
import type { SidecarOptions } from "../config/options.ts";
import type { SubscriptionResource } from "../config/resources.ts";
import type { Policies } from "../resiliency/policies.ts";
import type { Random } from "../lib/random.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { Tracing } from "../telemetry/tracing/tracer.ts";

/** Everything a block may use; made once by runtime.ts. */
export type BlockHost = {
  readonly options: SidecarOptions;
  /** All `--config` files merged, as they are at the start. */
  readonly configuration: ConfigurationResource;
  readonly mesh: Mesh;
  readonly clock: Clock;
  readonly random: Random;
  readonly app: AppChannel;
  readonly components: OpenComponents;
  /** Declarative subscriptions of the resource files at the start, already scoped to this app. */
  readonly subscriptions: readonly SubscriptionResource[];
  /** Servers outside that are called under a name at the start, already scoped to this app. */
  readonly httpEndpoints: readonly HttpEndpoint[];
  /** `spec.appHttpPipeline`, which the app's channel has already. */
  readonly pipelines: AppPipelines;
  /** Timeouts, retries and circuit breakers by target. */
  readonly policies: Policies;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Makes spans of what the sidecar begins itself. */
  readonly tracing: Tracing;
};

export type Block = {
  readonly name: string;
  readonly http: readonly HttpRoute[];
  /** Imports the block's grpc.ts: generated messages cost start time, so they wait for the first gRPC connection. */
  readonly grpc: () => Promise<readonly GrpcMethod[]>;
  /** What the app says about itself; called once, before the first `appReady`. Must not throw. */
  appConfigured?(config: AppConfig): void;
  /**
   * The app answers now (also at once when there is no app): begin what delivers to the app. Called again when it is
   * well after `appUnready`.
   */
  appReady?(): Promise<void>;
  /**
   * End what delivers to the app within `graceMs`; everything else goes on. `ill`: the app fails its health checks,
   * `appReady` may follow. `ending`: the sidecar holds back its stop (--dapr-block-shutdown-duration), `stop` follows.
   * May be called while `appReady` runs, and more than once.
   */
  appUnready?(graceMs: number, why: "ill" | "ending"): Promise<void>;
  /**
   * Hot reload: calls find `now` in place of `before` from here on. Move to it what hangs on `before` within `graceMs`;
   * `before` is closed when this resolves and its calls have ended.
   */
  componentChanged?(change: ComponentChange, graceMs: number): Promise<void>;
  /** Hot reload: the declarative subscriptions are these now. */
  subscriptionsChanged?(subscriptions: readonly SubscriptionResource[], graceMs: number): Promise<void>;
  /** Hot reload: the Configuration is this now. Must not throw. */
  configurationChanged?(configuration: ConfigurationResource): void;
  /** Hot reload: the servers that are called under a name are these now. Must not throw. */
  httpEndpointsChanged?(endpoints: readonly HttpEndpoint[]): void;
  /** Stop intake and end what runs within `graceMs`. Called once, before components close. */
  stop?(graceMs: number): Promise<void>;
  /** Parts of GET /v1.0/metadata that this block owns, in wire form. */
  metadata?(): Readonly<Record<string, unknown>>;
};
