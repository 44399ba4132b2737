/** Resources to policies: which timeout, retry and circuit breaker stand around which target. */
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
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
};

/** Targets under a default policy that are remembered, each with its breakers. */
const maxDefaultTargets = 1_000;
/** Breakers of such a target. */
const defaultBreakers = { app: 100, actor: 5_000 } as const;

/** The policies of some resources; they do not change. */
export type CompiledPolicies = Omit<Policies, "component"> & {
  component(name: string, kind: ComponentKind, direction: Direction): Policy | undefined;
};

/** Makes the policies of one set of resources after another. Breakers of an unchanged rule go on as they are. */
export class PolicyCompiler {
  readonly #init: PoliciesInit;
  readonly #monitors: Monitors;
  readonly #breakers = new Breakers();
  #table: PolicyTable | undefined;

  constructor(init: PoliciesInit) {
    this.#init = init;
    this.#monitors = createMonitors(init.metrics, init.log);
  }

  /** A resource that cannot be used is logged; the last one of its name that could be used counts instead. */
  compile(resources: readonly ResiliencyResource[]): CompiledPolicies {
    const { log } = this.#init;
    const before = this.#table?.used ?? [];
    const table = mergeResources(resources, log, this.#table);
    this.#table = table;
    for (const { source } of table.used)
      if (before.every((used) => used.source !== source)) this.#monitors.loaded(source);
    for (const { source } of before)
      if (table.used.every((used) => used.source.name !== source.name))
        log.info(`Resiliency removed: ${source.name}`);
    return policiesOf(table, new Forge(this.#init, table, this.#monitors, this.#breakers));
  }
}

function policiesOf(table: PolicyTable, forge: Forge): CompiledPolicies {
  const apps = new Map(
    [...table.apps].map(([id, target]) => [id, forge.app(id, target, target.breakerCount)]),
  );
  const defaultApps = forge.defaults("App") && new Recent<PolicyOf>(maxDefaultTargets);
  const defaultApp = (id: string): PolicyOf => forge.defaultApp(id);
  const actors = new Map(
    [...table.actors].map(([type, target]) => [type, forge.actor(type, target, target)] as const),
  );
  const defaultActors = forge.defaults("Actor") && new Recent<ActorPoliciesOf>(maxDefaultTargets);
  const defaultActor = (type: string): ActorPoliciesOf => forge.defaultActor(type);
  return {
    app: (id, endpoint) => (apps.has(id) ? apps.get(id) : defaultApps?.get(id, defaultApp))?.(endpoint),
    targetsApp: (id) => apps.has(id),
    component: (name, kind, direction) => forge.component(name, kind, direction),
    actor: (type, id) => (actors.has(type) ? actors.get(type) : defaultActors?.get(type, defaultActor))?.(id),
    builtIn: (name) => builtInRule(table, name),
  };
}

/** The breakers of all targets. */
class Breakers {
  /** Both directions of a component share a breaker when they name the same policy. */
  readonly #components = new WeakMap<BreakerRule, Map<string, Breaker>>();
  readonly #targets = new WeakMap<BreakerRule, Recent<Recent<Breaker>>>();

  component(rule: BreakerRule, name: string, make: () => Breaker): Breaker {
    const byName = this.#components.get(rule) ?? new Map<string, Breaker>();
    this.#components.set(rule, byName);
    const breaker = byName.get(name) ?? make();
    byName.set(name, breaker);
    return breaker;
  }

  /** Of an app or actor type, by endpoint. */
  target(rule: BreakerRule, target: string, count: number): Recent<Breaker> {
    const byTarget = this.#targets.get(rule) ?? new Recent<Recent<Breaker>>(maxDefaultTargets);
    this.#targets.set(rule, byTarget);
    return byTarget.get(`${count} ${target}`, () => new Recent<Breaker>(count));
  }
}

/** The parts that apply to a target, with their resources. */
type Parts = {
  readonly timeout: Sourced<number> | undefined;
  readonly retry: Sourced<RetryRule> | undefined;
  readonly breaker: Sourced<BreakerRule> | undefined;
};

/** A policy by what tells its breakers apart; undefined when no part applies. */
type PolicyOf = ((endpoint: string) => Policy) | undefined;
type ActorPoliciesOf = ((id: string) => ActorPolicies) | undefined;

class Forge {
  readonly #init: PoliciesInit;
  readonly #table: PolicyTable;
  readonly #monitors: Monitors;
  readonly #breakers: Breakers;

  constructor(init: PoliciesInit, table: PolicyTable, monitors: Monitors, breakers: Breakers) {
    this.#init = init;
    this.#table = table;
    this.#monitors = monitors;
    this.#breakers = breakers;
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
    const rule = parts.breaker?.rule;
    const make = (): Breaker => this.#breaker(rule!, monitor, "");
    return this.#policy(parts, monitor, rule && this.#breakers.component(rule, name, make));
  }

  actor(
    type: string,
    names: PolicyNames,
    { breakerScope, breakerCount }: { readonly breakerScope: string; readonly breakerCount: number },
  ): ActorPoliciesOf {
    return this.#actor(type, this.#named(names), breakerScope === "type", breakerCount);
  }

  defaultActor(type: string): ActorPoliciesOf {
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
    const rule = parts.breaker?.rule;
    if (rule === undefined) {
      const policy = this.#policy(parts, monitor, undefined);
      return () => policy;
    }
    const breakers = this.#breakers.target(rule, target, breakerCount);
    const newBreaker = (endpoint: string): Breaker => this.#breaker(rule, monitor, endpoint);
    const policies = new Recent<Policy>(breakerCount);
    const newPolicy = (endpoint: string): Policy =>
      this.#policy(parts, monitor, breakers.get(endpoint, newBreaker));
    return (endpoint) => policies.get(endpoint, newPolicy);
  }

  #actor(type: string, parts: Parts | undefined, byType: boolean, breakerCount: number): ActorPoliciesOf {
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

  #breaker(rule: BreakerRule, monitor: Monitor, part: string): Breaker {
    return new Breaker(rule, this.#init.clock, (state) => monitor.breaker(state, part));
  }
}

function ifAny(parts: Parts): Parts | undefined {
  const { timeout, retry, breaker } = parts;
  return timeout === undefined && retry === undefined && breaker === undefined ? undefined : parts;
}
