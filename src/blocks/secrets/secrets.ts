/**
 * The secrets API without its protocols: finds the store, keeps the scopes of the Configuration, asks the store and
 * names its failures. http.ts and grpc.ts decode and encode.
 */
import type { Clock } from "../../../mesh/index.ts";
import type { OpenComponents } from "../../components/open.ts";
import type { SecretScope } from "../../config/kinds/configuration.ts";
import type { Policies } from "../../resiliency/policies.ts";
import { callUnder } from "../../resiliency/policy.ts";
import type { Log } from "../../telemetry/log.ts";
import type { CountFamily, LatencyFamily, Metrics } from "../../telemetry/metrics.ts";
import * as errors from "./errors.ts";
import type { Secret, SecretStore } from "./port.ts";
import { compileScopes, type SecretPolicy } from "./scopes.ts";

export type Metadata = Readonly<Record<string, string>>;

export type SecretsInit = {
  readonly components: OpenComponents;
  readonly namespace: string;
  readonly clock: Clock;
  readonly policies: Policies;
  readonly metrics: Metrics;
  readonly log: Log;
};

/** The secret stores of this sidecar as its app may use them. Methods reject with ApiError. */
export class Secrets {
  readonly #components: OpenComponents;
  readonly #log: Log;
  #isAllowed: SecretPolicy = () => true;
  readonly #namespace: string;
  readonly #clock: Clock;
  readonly #policies: Policies;
  readonly #count: CountFamily;
  readonly #latency: LatencyFamily;

  constructor({ components, namespace, clock, policies, metrics, log }: SecretsInit) {
    const labels = ["component", "namespace", "operation", "success"];
    this.#components = components;
    this.#log = log;
    this.#namespace = namespace;
    this.#clock = clock;
    this.#policies = policies;
    this.#count = metrics.count("component_secret_count", "Calls of secret stores.", labels);
    this.#latency = metrics.latency(
      "component_secret_latencies",
      "Time of calls of secret stores, ms.",
      labels,
    );
  }

  /** Which secrets the app may read from here on. */
  setScopes(scopes: readonly SecretScope[]): void {
    this.#isAllowed = compileScopes(scopes);
    for (const { storeName } of scopes) {
      if (this.#components.get("secretstores", storeName) !== undefined) continue;
      this.#log.warn(
        `Configuration: spec.secrets.scopes names the secret store ${storeName}, which is not loaded; ` +
          "correct storeName or add the component",
      );
    }
  }

  /** Undefined when the store holds no data under that name. */
  async get(
    store: string,
    name: string,
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<Secret | undefined> {
    const port = this.#port(store);
    if (!this.#isAllowed(store, name)) throw errors.accessDenied(store, name);
    try {
      return await this.#call(store, "get", signal, (now) => port.get(name, metadata, now));
    } catch (cause) {
      throw errors.getFailed(store, name, cause);
    }
  }

  /** Every secret of the store that the app may read. */
  async getAll(
    store: string,
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<Readonly<Record<string, Secret>>> {
    const port = this.#port(store);
    try {
      const all = await this.#call(store, "bulk_get", signal, (now) => port.getAll(metadata, now));
      return Object.fromEntries(Object.entries(all).filter(([name]) => this.#isAllowed(store, name)));
    } catch (cause) {
      throw errors.getAllFailed(store, cause);
    }
  }

  #port(store: string): SecretStore {
    const found = this.#components.get<SecretStore>("secretstores", store);
    if (found !== undefined) return found.port;
    throw this.#components.all("secretstores").length === 0
      ? errors.storesNotConfigured()
      : errors.storeNotFound(store);
  }

  /** A call of the store, under its policy; counted and timed as a whole. */
  async #call<T>(
    store: string,
    operation: string,
    signal: AbortSignal,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const startMs = this.#clock.monotonicMs();
    let success = "false";
    try {
      const value = await callUnder(this.#policies.component(store, "Secretstore", "outbound"), signal, run);
      success = "true";
      return value;
    } finally {
      const latencyMs = this.#clock.monotonicMs() - startMs;
      this.#count(store, this.#namespace, operation, success);
      if (latencyMs > 0) this.#latency(latencyMs, store, this.#namespace, operation, success);
    }
  }
}
