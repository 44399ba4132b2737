/** Resources to policies: which timeout, retry and circuit breaker stand around which target. Loaded with the first. */
import type { Clock } from "../../mesh/index.ts";
import type { PolicyNames, ResiliencyResource } from "../config/kinds/resiliency.ts";
import type { Random } from "../lib/random.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { Breaker, type BreakerRule } from "./breaker.ts";
import { builtInRetries } from "./built-in.ts";
import { createMonitors, type Direction, type Monitor, type Monitors, type Source } from "./monitor.ts";
import type { ActorPolicies, ComponentKind, Policies } from "./policies.ts";
import { Policy } from "./policy.ts";
import { Recent } from "./recent.ts";
import type { RetryRule } from "./retry.ts";
import { builtInRule, isBuiltIn, mergeResources, type PolicyTable, type Sourced } from "./table.ts";

export type PoliciesInit = {
  readonly resources: readonly ResiliencyResource[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
};

/** Targets under a default policy that are remembered, each with its breakers. */
const maxDefaultTargets = 1_000;
/** Breakers of such a target. */
const defaultBreakers = { app: 100, actor: 5_000 } as const;

/** Makes the policies of a sidecar; resources that cannot be used are logged and have no effect. */
export function compilePolicies(init: PoliciesInit): Policies {
  const table = mergeResources(init.resources, init.log);
  const monitors = createMonitors(init.metrics, init.log);
  for (const source of table.loaded) monitors.loaded(source);
  const forge = new Forge(init, table, monitors);
  const apps = new Map(
    [...table.apps].map(([id, target]) => [id, forge.app(id, target, target.breakerCount)]),
  );
  const defaultApps = forge.defaults("App") && new Recent(maxDefaultTargets, (id) => forge.defaultApp(id));
  const actors = new Map(
    [...table.actors].map(([type, target]) => [type, forge.actor(type, target, target)] as const),
  );
  const defaultActors =
    forge.defaults("Actor") && new Recent(maxDefaultTargets, (type) => forge.defaultActor(type));
  const components = new Map<string, Policy | undefined>();
  return {
    app: (id, endpoint) => (apps.has(id) ? apps.get(id) : defaultApps?.get(id))?.(endpoint),
    targetsApp: (id) => apps.has(id),
    component(name, kind, direction) {
      const key = `${direction} ${kind} ${name}`;
      if (!components.has(key)) components.set(key, forge.component(name, kind, direction));
      return components.get(key);
    },
    actor: (type, id) => (actors.has(type) ? actors.get(type) : defaultActors?.get(type))?.(id),
    builtIn: (name) => builtInRule(table, name),
  };
}

/** The parts that apply to a target, with their resources. */
type Parts = {
  readonly timeout: Sourced<number> | undefined;
  readonly retry: Sourced<RetryRule> | undefined;
  readonly breaker: Sourced<BreakerRule> | undefined;
};

/** A policy by what tells its breakers apart; undefined when no part applies. */
type PolicyOf = ((endpoint: string) => Policy) | undefined;

class Forge {
  readonly #init: PoliciesInit;
  readonly #table: PolicyTable;
  readonly #monitors: Monitors;
  /** Both directions of a component share a breaker when they name the same policy. */
  readonly #componentBreakers = new Map<BreakerRule, Map<string, Breaker>>();

  constructor(init: PoliciesInit, table: PolicyTable, monitors: Monitors) {
    this.#init = init;
    this.#table = table;
    this.#monitors = monitors;
  }

  app(id: string, names: PolicyNames, breakerCount: number): PolicyOf {
    return this.#many(this.#named(names), breakerCount, `calls to ${id}`, `app_${id}`);
  }

  defaultApp(id: string): PolicyOf {
    return this.#many(this.defaults("App"), defaultBreakers.app, `calls to ${id}`, `app_${id}`);
  }

  component(name: string, kind: ComponentKind, direction: Direction): Policy | undefined {
    const target = this.#table.components.get(name);
    const side = direction === "inbound" ? "Inbound" : "Outbound";
    const parts =
      target === undefined
        ? this.defaults(`${kind}Component${side}`, `Component${side}`, "Component")
        : this.#named(target[direction]);
    if (parts === undefined) return undefined;
    const monitor = this.#monitor(parts, `component ${name}, ${direction}`, `${kind}_${name}`, direction);
    return this.#policy(parts, monitor, parts.breaker && this.#sharedBreaker(name, parts.breaker, monitor));
  }

  actor(
    type: string,
    names: PolicyNames,
    { breakerScope, breakerCount }: { readonly breakerScope: string; readonly breakerCount: number },
  ): ((id: string) => ActorPolicies) | undefined {
    return this.#actor(type, this.#named(names), breakerScope === "type", breakerCount);
  }

  defaultActor(type: string): ((id: string) => ActorPolicies) | undefined {
    return this.#actor(type, this.defaults("Actor"), true, defaultBreakers.actor);
  }

  /** The most specific `Default<T><K>` of each kind K; undefined when there is none at all. */
  defaults(...targets: string[]): Parts | undefined {
    const find = <R>(policies: ReadonlyMap<string, R>, kind: string): R | undefined => {
      for (const target of [...targets, ""]) {
        const found = policies.get(`Default${target}${kind}`);
        if (found !== undefined) return found;
      }
      return undefined;
    };
    const { timeouts, retries, breakers } = this.#table;
    return ifAny({
      timeout: find(timeouts, "TimeoutPolicy"),
      retry: find(retries, "RetryPolicy"),
      breaker: find(breakers, "CircuitBreakerPolicy"),
    });
  }

  #named(names: PolicyNames | undefined): Parts | undefined {
    if (names === undefined) return undefined;
    const { timeouts, breakers } = this.#table;
    return ifAny({
      timeout: timeouts.get(names.timeout),
      retry: this.#retry(names.retry),
      breaker: breakers.get(names.circuitBreaker),
    });
  }

  /** A target may also name a built-in policy. */
  #retry(name: string): Sourced<RetryRule> | undefined {
    const found = this.#table.retries.get(name);
    if (found !== undefined || !isBuiltIn(name)) return found;
    return { rule: builtInRetries[name], source: { name: "", namespace: "" } };
  }

  /** Without a breaker one policy serves all endpoints. */
  #many(parts: Parts | undefined, breakerCount: number, words: string, target: string): PolicyOf {
    if (parts === undefined) return undefined;
    const monitor = this.#monitor(parts, words, target, "outbound");
    const { breaker } = parts;
    if (breaker === undefined) {
      const policy = this.#policy(parts, monitor, undefined);
      return () => policy;
    }
    const recent = new Recent(breakerCount, (endpoint) =>
      this.#policy(parts, monitor, this.#breaker(breaker, monitor, endpoint)),
    );
    return (endpoint) => recent.get(endpoint);
  }

  #actor(
    type: string,
    parts: Parts | undefined,
    byType: boolean,
    breakerCount: number,
  ): ((id: string) => ActorPolicies) | undefined {
    if (parts === undefined) return undefined;
    const { timeout, retry, breaker } = parts;
    const words = `calls to actors of type ${type}`;
    const around = ifAny({ timeout: undefined, retry, breaker });
    const call = this.#many(around, breakerCount, words, `actor_${type}`);
    const turn = this.#many(
      ifAny({ timeout, retry: undefined, breaker: undefined }),
      1,
      words,
      `actor_${type}`,
    )?.("");
    return (id) => ({ call: call?.(byType ? type : `${type}-${id}`), turn });
  }

  #monitor(parts: Parts, words: string, target: string, direction: Direction): Monitor {
    const source = (part: Sourced<unknown> | undefined): Source | undefined => part?.source;
    return this.#monitors.of({
      words,
      target,
      direction,
      timeout: source(parts.timeout),
      retry: source(parts.retry),
      circuitBreaker: source(parts.breaker),
    });
  }

  #policy(parts: Parts, monitor: Monitor, breaker: Breaker | undefined): Policy {
    const { clock, random } = this.#init;
    const timeoutMs = parts.timeout?.rule || undefined;
    return new Policy({ timeoutMs, retry: parts.retry?.rule, breaker, clock, random, monitor });
  }

  #sharedBreaker(name: string, rule: Sourced<BreakerRule>, monitor: Monitor): Breaker {
    const byName = this.#componentBreakers.get(rule.rule) ?? new Map<string, Breaker>();
    this.#componentBreakers.set(rule.rule, byName);
    const breaker = byName.get(name) ?? this.#breaker(rule, monitor, "");
    byName.set(name, breaker);
    return breaker;
  }

  #breaker({ rule }: Sourced<BreakerRule>, monitor: Monitor, part: string): Breaker {
    return new Breaker(rule, this.#init.clock, (state) => monitor.breaker(state, part));
  }
}

function ifAny(parts: Parts): Parts | undefined {
  const { timeout, retry, breaker } = parts;
  return timeout === undefined && retry === undefined && breaker === undefined ? undefined : parts;
}
