/**
 * The policies of all resources in one table, the last of a name wins, with their rules made ready. What is named and
 * missing is told once, here.
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
import { formatProblem } from "../config/problem.ts";
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
  /** Resources that have an effect. */
  readonly loaded: readonly Source[];
};

/** Resources that cannot be used are logged and left out. */
export function mergeResources(resources: readonly ResiliencyResource[], log: Log): PolicyTable {
  const table = {
    timeouts: new Map<string, Sourced<number>>(),
    retries: new Map<string, Sourced<RetryRule>>(),
    breakers: new Map<string, Sourced<BreakerRule>>(),
    apps: new Map<string, AppTarget>(),
    actors: new Map<string, ActorTarget>(),
    components: new Map<string, ComponentTarget>(),
    loaded: [] as Source[],
  };
  for (const resource of resources) {
    const breakers = readBreakers(resource, log);
    if (breakers === undefined) continue;
    const source = { name: resource.name, namespace: resource.namespace ?? "" };
    table.loaded.push(source);
    for (const { name, timeoutMs } of resource.timeouts)
      table.timeouts.set(name, { rule: timeoutMs, source });
    for (const retry of resource.retries) table.retries.set(retry.name, { rule: retryRule(retry), source });
    for (const [name, rule] of breakers) table.breakers.set(name, { rule, source });
    for (const target of resource.apps) table.apps.set(target.id, target);
    for (const target of resource.actors) table.actors.set(target.type, target);
    for (const target of resource.components) table.components.set(target.name, target);
    log.info(`Loading Resiliency configuration: ${resource.name}`);
  }
  warnMissing(table, log);
  return table;
}

/** The breakers by name; undefined after logging why the resource cannot be used. */
function readBreakers(resource: ResiliencyResource, log: Log): Map<string, BreakerRule> | undefined {
  const faults = resource.faults.map(formatProblem);
  const rules = new Map<string, BreakerRule>();
  for (const policy of resource.circuitBreakers) {
    try {
      rules.set(policy.name, breakerRule(policy, log));
    } catch (error) {
      if (!(error instanceof CelError)) throw error;
      const path = `spec.policies.circuitBreakers.${policy.name}.trip`;
      const fix = `write for example consecutiveFailures > 5, over ${Object.keys(countTypes).join(", ")}`;
      const message = `${path} ${JSON.stringify(policy.trip)}: ${error.message}; ${fix}`;
      faults.push(formatProblem({ ...policy.origin, severity: "error", message }));
    }
  }
  for (const fault of faults) log.error(`Could not read resiliency policy ${resource.name}: ${fault}`);
  return faults.length === 0 ? rules : undefined;
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

function warnMissing(table: PolicyTable, log: Log): void {
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
      log.warn(
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
}

/** The rule of a built-in retry, as redefined. */
export function builtInRule(table: PolicyTable, name: BuiltInRetry): RetryRule {
  if (name === fixedBuiltIn) return builtInRetries[name];
  return table.retries.get(name)?.rule ?? builtInRetries[name];
}

export function isBuiltIn(name: string): name is BuiltInRetry {
  return Object.hasOwn(builtInRetries, name);
}
