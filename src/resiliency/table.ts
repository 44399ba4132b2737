/**
 * The policies of all resources in one table, the last of a name wins, with their rules made ready. Names that lead
 * nowhere, and policies that no name leads to, are told here.
 */
import type {
  ActorTarget,
  AppTarget,
  BreakerPolicy,
  ComponentTarget,
  PolicyNames,
  ResiliencyResource,
  RetryPolicy,
} from "../config/kinds/resiliency.ts";
import { definitionText } from "../config/definition.ts";
import { formatProblem, type Origin } from "../config/problem.ts";
import { type CelExpression, celCompiler, CelError } from "../lib/cel.ts";
import { didYouMean } from "../lib/nearest.ts";
import type { Log } from "../telemetry/log.ts";
import type { BreakerRule, Counts } from "./breaker.ts";
import {
  type BuiltInRetry,
  builtInRetries,
  firstGrowingWaitMs,
  fixedBuiltIn,
  maxGrowingElapsedMs,
  minBuiltInRetries,
} from "./built-in.ts";
import type { Source } from "./monitor.ts";
import type { RetryRule } from "./retry.ts";

/** A rule and the resource that it comes from. */
export type Sourced<R> = { readonly rule: R; readonly source: Source };

export type PolicyTable = {
  readonly timeouts: ReadonlyMap<string, Sourced<number>>;
  readonly retries: ReadonlyMap<string, Sourced<RetryRule>>;
  readonly breakers: ReadonlyMap<string, Sourced<BreakerRule>>;
  readonly apps: ReadonlyMap<string, AppTarget>;
  readonly actors: ReadonlyMap<string, ActorTarget>;
  readonly components: ReadonlyMap<string, ComponentTarget>;
  /** Resources that have an effect, in load order. */
  readonly used: readonly UsedResource[];
  /** What was said about names. */
  readonly warnings: readonly string[];
};

/** A resource with its breakers by name. `source` is the same object as long as the resource says the same. */
export type UsedResource = {
  readonly resource: ResiliencyResource;
  readonly source: Source;
  readonly breakers: ReadonlyMap<string, { readonly policy: BreakerPolicy; readonly rule: BreakerRule }>;
};

/**
 * A resource that cannot be used is logged. What it was in `before`, the table up to now, stays in its place; without
 * that it is left out. Breakers that are as they were have the same rule, as an object.
 */
export function mergeResources(
  resources: readonly ResiliencyResource[],
  log: Log,
  before: PolicyTable | undefined,
): PolicyTable {
  const table = {
    timeouts: new Map<string, Sourced<number>>(),
    retries: new Map<string, Sourced<RetryRule>>(),
    breakers: new Map<string, Sourced<BreakerRule>>(),
    apps: new Map<string, AppTarget>(),
    actors: new Map<string, ActorTarget>(),
    components: new Map<string, ComponentTarget>(),
    used: [] as UsedResource[],
  };
  for (const each of resources) {
    const used = readResource(each, log, before);
    if (used === undefined) continue;
    table.used.push(used);
    const { resource, source, breakers } = used;
    for (const { name, timeoutMs } of resource.timeouts)
      table.timeouts.set(name, { rule: timeoutMs, source });
    for (const retry of resource.retries) table.retries.set(retry.name, { rule: retryRule(retry), source });
    for (const [name, { rule }] of breakers) table.breakers.set(name, { rule, source });
    for (const target of resource.apps) table.apps.set(target.id, target);
    for (const target of resource.actors) table.actors.set(target.type, target);
    for (const target of resource.components) table.components.set(target.name, target);
  }
  const warnings = [...missing(table), ...unused(table)];
  for (const line of warnings) if (before?.warnings.includes(line) !== true) log.warn(line);
  return { ...table, warnings };
}

function readResource(
  resource: ResiliencyResource,
  log: Log,
  before: PolicyTable | undefined,
): UsedResource | undefined {
  const { name, origin } = resource;
  const namesakes = before?.used.filter((used) => isNamesake(used.resource, resource)) ?? [];
  const old = namesakes.find((used) => used.resource.origin.file === origin.file) ?? namesakes[0];
  if (old !== undefined && definitionText(old.resource) === definitionText(resource))
    return { ...old, resource };
  const faults = resource.faults.map(formatProblem);
  const breakers = readBreakers(resource, old, faults, log);
  if (faults.length === 0) {
    log.info(`Loading Resiliency configuration: ${name}`);
    return { resource, breakers, source: { name, namespace: resource.namespace ?? "" } };
  }
  const instead = old === undefined ? "" : "; meanwhile it is as it was before";
  for (const fault of faults) log.error(`Could not read resiliency policy ${name}: ${fault}${instead}`);
  return old;
}

function isNamesake(a: ResiliencyResource, b: ResiliencyResource): boolean {
  return a.name === b.name && a.namespace === b.namespace;
}

/** The breakers by name. Expressions that cannot be used are added to `faults`. */
function readBreakers(
  resource: ResiliencyResource,
  old: UsedResource | undefined,
  faults: string[],
  log: Log,
): UsedResource["breakers"] {
  const breakers = new Map<string, { policy: BreakerPolicy; rule: BreakerRule }>();
  for (const policy of resource.circuitBreakers) {
    const found = old?.breakers.get(policy.name);
    if (found !== undefined && definitionText(found.policy) === definitionText(policy)) {
      breakers.set(policy.name, found);
      continue;
    }
    try {
      breakers.set(policy.name, { policy, rule: breakerRule(policy, log) });
    } catch (error) {
      if (!(error instanceof CelError)) throw error;
      const path = `spec.policies.circuitBreakers.${policy.name}.trip`;
      const fix = `write for example consecutiveFailures > 5, over ${Object.keys(countTypes).join(", ")}`;
      const message = `${path} ${JSON.stringify(policy.trip)}: ${error.message}; ${fix}`;
      faults.push(formatProblem({ ...policy.tripOrigin, severity: "error", message }));
    }
  }
  return breakers;
}

function retryRule(policy: RetryPolicy): RetryRule {
  const { name, maxRetries, httpCodes, grpcCodes, maxWaitMs } = policy;
  const growing = policy.policy === "exponential";
  return {
    growing,
    waitMs: growing ? firstGrowingWaitMs : policy.waitMs,
    maxWaitMs,
    maxRetries: isBuiltIn(name) ? Math.max(minBuiltInRetries, maxRetries) : maxRetries,
    maxElapsedMs: growing ? maxGrowingElapsedMs : Infinity,
    httpCodes,
    grpcCodes,
  };
}

const countTypes = {
  requests: "int",
  totalSuccesses: "int",
  totalFailures: "int",
  consecutiveSuccesses: "int",
  consecutiveFailures: "int",
} as const;
const defaultMaxFailures = 5;

function breakerRule({ name, maxRequests, intervalMs, openMs, trip }: BreakerPolicy, log: Log): BreakerRule {
  const rule = { maxRequests, intervalMs, openMs };
  if (trip === "") return { ...rule, trips: (counts) => counts.consecutiveFailures > defaultMaxFailures };
  const expression = celCompiler(countTypes)(trip);
  if (expression.fault !== undefined) throw new CelError(expression.fault);
  if (expression.type !== "bool")
    throw new CelError(`it gives ${expression.type} where true or false is wanted`);
  return { ...rule, trips: evaluate(expression, name, log) };
}

/** An expression that fails for some counts, such as a division by zero, does not trip; that is logged once. */
function evaluate(expression: CelExpression, name: string, log: Log): (counts: Readonly<Counts>) => boolean {
  let told = false;
  return (counts) => {
    try {
      const values = Object.entries(counts).map(([key, count]) => [key, BigInt(count)] as const);
      return expression.run(Object.fromEntries(values)) === true;
    } catch (error) {
      if (!told) log.warn(`circuit breaker ${name}: its trip expression fails: ${String(error)}`);
      told = true;
      return false;
    }
  };
}

type NamesTable = Omit<PolicyTable, "warnings">;

function missing(table: NamesTable): string[] {
  const warnings: string[] = [];
  const check = (target: string, names: PolicyNames): void => {
    const parts = [
      ["timeout", names.timeout, table.timeouts],
      ["retry", names.retry, table.retries],
      ["circuitBreaker", names.circuitBreaker, table.breakers],
    ] as const;
    for (const [key, name, known] of parts) {
      if (name === "" || known.has(name) || (key === "retry" && isBuiltIn(name))) continue;
      const { file, line } = names.origin;
      const hint = didYouMean(name, known.keys());
      warnings.push(
        `${file}:${line}: ${key} ${name} of ${target} is no policy of any Resiliency${hint}; it is ignored`,
      );
    }
  };
  for (const [id, target] of table.apps) check(`app ${id}`, target);
  for (const [type, target] of table.actors) check(`actor ${type}`, target);
  for (const [name, { inbound, outbound }] of table.components) {
    if (inbound !== undefined) check(`component ${name}, inbound,`, inbound);
    if (outbound !== undefined) check(`component ${name}, outbound,`, outbound);
  }
  return warnings;
}

/** A policy that nothing leads to is a slip: the name of a default, or of the policy in a target, is mistyped. */
function unused({ used, apps, actors, components }: NamesTable): string[] {
  const warnings: string[] = [];
  const sides = [...components.values()].flatMap(({ inbound, outbound }) => [inbound, outbound]);
  const targets = [...apps.values(), ...actors.values(), ...sides].filter((names) => names !== undefined);
  const named = {
    timeout: new Set(targets.map(({ timeout }) => timeout)),
    retry: new Set(targets.map(({ retry }) => retry)),
    circuitBreaker: new Set(targets.map(({ circuitBreaker }) => circuitBreaker)),
  };
  const check = (key: keyof typeof named, name: string, { file, line }: Origin): void => {
    if (named[key].has(name) || defaultName.test(name) || isBuiltIn(name)) return;
    const fix = "name it in spec.targets, or take it out";
    warnings.push(`${file}:${line}: ${key} ${name} is named by no target and has no effect; ${fix}`);
  };
  for (const { resource } of used) {
    for (const { name, origin } of resource.timeouts) check("timeout", name, origin);
    for (const { name, origin } of resource.retries) check("retry", name, origin);
    for (const { name, origin } of resource.circuitBreakers) check("circuitBreaker", name, origin);
  }
  return warnings;
}

/** Policies that apply without a target. */
const componentKinds = "Statestore|Pubsub|Binding|Secretstore|Configuration|Lock|Crypto|Conversation";
const defaultTargets = `App|Actor|Component|(?:${componentKinds})?Component(?:Inbound|Outbound)`;
const defaultName = new RegExp(`^Default(?:${defaultTargets})?(?:Timeout|Retry|CircuitBreaker)Policy$`);

/** The rule of a built-in retry, as redefined. */
export function builtInRule(table: PolicyTable, name: BuiltInRetry): RetryRule {
  if (name === fixedBuiltIn) return builtInRetries[name];
  return table.retries.get(name)?.rule ?? builtInRetries[name];
}

export function isBuiltIn(name: string): name is BuiltInRetry {
  return Object.hasOwn(builtInRetries, name);
}
