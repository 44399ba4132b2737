/**
 * The configuration API without its protocols: finds the store, asks it under its policy, and holds the subscriptions
 * of this sidecar by id. http.ts and grpc.ts decode and encode; http-app.ts tells the app.
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "../../../mesh/index.ts";
import type { ComponentChange, OpenComponents } from "../../components/open.ts";
import { textOf } from "../../lib/thrown.ts";
import type { Policies } from "../../resiliency/policies.ts";
import { callUnder } from "../../resiliency/policy.ts";
import type { Log } from "../../telemetry/log.ts";
import type { CountFamily, LatencyFamily, Metrics } from "../../telemetry/metrics.ts";
import { Changes } from "./changes.ts";
import * as errors from "./errors.ts";
import type { ConfigurationItem, ConfigurationStore, ConfigurationSubscription, Metadata } from "./port.ts";

export type ConfigurationsInit = {
  readonly components: OpenComponents;
  readonly namespace: string;
  readonly clock: Clock;
  readonly policies: Policies;
  readonly metrics: Metrics;
  readonly log: Log;
};

/** A subscription of the app. `changes` ends when it is over. */
export type Watch = { readonly id: string; readonly changes: Changes };

type Held = {
  readonly store: string;
  readonly keys: readonly string[];
  readonly metadata: Metadata;
  readonly changes: Changes;
  subscription: ConfigurationSubscription;
};

/** Subscriptions of one sidecar at once; apps that forget theirs would fill the memory. */
const maxSubscriptions = 10_000;

/** The configuration stores of this sidecar as its app may use them. Methods reject with ApiError. */
export class Configurations {
  readonly #components: OpenComponents;
  readonly #namespace: string;
  readonly #clock: Clock;
  readonly #policies: Policies;
  readonly #log: Log;
  readonly #count: CountFamily;
  readonly #latency: LatencyFamily;
  readonly #held = new Map<string, Held>();
  #stopping = false;

  constructor({ components, namespace, clock, policies, metrics, log }: ConfigurationsInit) {
    const labels = ["component", "namespace", "operation", "success"];
    this.#components = components;
    this.#namespace = namespace;
    this.#clock = clock;
    this.#policies = policies;
    this.#log = log;
    this.#count = metrics.count("component_configuration_count", "Calls of configuration stores.", labels);
    this.#latency = metrics.latency(
      "component_configuration_latencies",
      "Time of calls of configuration stores, ms.",
      labels,
    );
  }

  async get(
    store: string,
    keys: readonly string[],
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, ConfigurationItem>> {
    const port = this.check(store);
    try {
      return await this.#call(store, "get", signal, (now) => port.get(keys, metadata, now));
    } catch (cause) {
      throw errors.getFailed(store, keys, cause);
    }
  }

  /** The caller reads the changes until they end, and calls `unsubscribe` when it wants no more. */
  async subscribe(
    store: string,
    keys: readonly string[],
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<Watch> {
    const port = this.check(store);
    const id = randomUUID();
    const changes = new Changes((key) =>
      this.#log.warn(
        `configuration store ${store}: the app takes changes too slowly, one of ${key} is not told`,
      ),
    );
    try {
      if (this.#held.size >= maxSubscriptions)
        throw new Error(`there are ${maxSubscriptions} subscriptions already; end those that are not needed`);
      const subscription = await this.#call(store, "subscribe", signal, (now) =>
        port.subscribe(keys, metadata, changes.push, now),
      );
      this.#held.set(id, { store, keys, metadata, changes, subscription });
      if (signal.aborted || this.#stopping) await this.unsubscribe(id);
      return { id, changes };
    } catch (cause) {
      throw errors.subscribeFailed(store, keys, cause);
    }
  }

  /** False when there is no such subscription. Rejects with a plain Error when the store fails. */
  async unsubscribe(id: string): Promise<boolean> {
    const held = this.#held.get(id);
    if (held === undefined) return false;
    this.#held.delete(id);
    held.changes.end();
    const { signal } = new AbortController();
    await this.#call(held.store, "unsubscribe", signal, () => held.subscription.stop());
    return true;
  }

  /** Another component stands in the place of one, or none: subscriptions move to it, or end. */
  async changed({ name, before, now }: ComponentChange): Promise<void> {
    if (before === undefined) return;
    const port = now?.port as ConfigurationStore | undefined;
    const { signal } = new AbortController();
    for (const [id, held] of this.#held) {
      if (held.store !== name) continue;
      const old = held.subscription;
      try {
        if (port === undefined) await this.unsubscribe(id);
        else {
          held.subscription = await port.subscribe(held.keys, held.metadata, held.changes.push, signal);
          await old.stop();
          // It was ended meanwhile, with the old one.
          if (!this.#held.has(id)) await held.subscription.stop();
        }
      } catch (error) {
        this.#log.error(`configuration store ${name}: a subscription is lost: ${textOf(error)}`);
        await this.unsubscribe(id).catch(() => false);
      }
    }
  }

  /** Ends every subscription, those that are being made too. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.allSettled([...this.#held.keys()].map((id) => this.unsubscribe(id)));
  }

  /** The store of that name. Throws when there is none. */
  check(store: string): ConfigurationStore {
    const found = this.#components.get<ConfigurationStore>("configuration", store);
    if (found !== undefined) return found.port;
    throw this.#components.all("configuration").length === 0
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
      const value = await callUnder(
        this.#policies.component(store, "Configuration", "outbound"),
        signal,
        run,
      );
      success = "true";
      return value;
    } finally {
      const latencyMs = this.#clock.monotonicMs() - startMs;
      this.#count(store, this.#namespace, operation, success);
      if (latencyMs > 0) this.#latency(latencyMs, store, this.#namespace, operation, success);
    }
  }
}
