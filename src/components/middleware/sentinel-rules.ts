/**
 * Rules of Sentinel as users write them: JSON lists, field names in any letter case. What Weft does not do is refused,
 * since a limit that is only believed to be there protects nobody.
 */

/** Requests of a resource in each interval. */
export type FlowRule = {
  readonly resource: string;
  readonly threshold: number;
  readonly intervalMs: number;
  /** 0: what is too much is refused at once. Else it waits for its turn up to so long, ms. */
  readonly maxQueueingMs: number;
  readonly throttles: boolean;
};

/** Requests of a resource at once. */
export type IsolationRule = { readonly resource: string; readonly threshold: number };

/** Opens when too many requests of a resource are slow. */
export type BreakerRule = {
  readonly resource: string;
  readonly retryMs: number;
  readonly minRequests: number;
  readonly intervalMs: number;
  readonly slowMs: number;
  /** Share of slow requests, 0 to 1. */
  readonly threshold: number;
};

/** A limit of all requests together. */
export type SystemRule = {
  readonly metric: "averageMs" | "concurrency" | "perSecond";
  readonly limit: number;
};

export type Rules = {
  readonly flow: readonly FlowRule[];
  readonly isolation: readonly IsolationRule[];
  readonly breakers: readonly BreakerRule[];
  readonly system: readonly SystemRule[];
  /** Sentences for the log: rules that can never act. */
  readonly warnings: readonly string[];
};

type Texts = Readonly<
  Partial<
    Record<
      "flowRules" | "isolationRules" | "circuitBreakerRules" | "systemRules" | "hotSpotParamRules",
      string | undefined
    >
  >
>;

/** Throws an Error that names field, rule and remedy. */
export function readRules(texts: Texts): Rules {
  const warnings: string[] = [];
  const breakers = readList("circuitBreakerRules", texts.circuitBreakerRules);
  if (breakers.some((rule) => rule.number("strategy", 0) !== 0))
    warnings.push("circuitBreakerRules of errors never act: to Sentinel's middleware no answer is an error");
  if (readList("hotSpotParamRules", texts.hotSpotParamRules).length > 0)
    warnings.push("hotSpotParamRules never act: Sentinel's middleware gives them no parameters");
  return {
    flow: readList("flowRules", texts.flowRules).map(flowRule),
    isolation: readList("isolationRules", texts.isolationRules).map((rule) => ({
      resource: rule.resource(),
      threshold: rule.number("threshold"),
    })),
    breakers: breakers.filter((rule) => rule.number("strategy", 0) === 0).map(breakerRule),
    system: readList("systemRules", texts.systemRules).map(systemRule),
    warnings,
  };
}

function flowRule(rule: Fields): FlowRule {
  rule.only("tokenCalculateStrategy", [0], "write 0; warming up and memory are not there");
  rule.only("controlBehavior", [0, 1], "write 0 to refuse or 1 to let wait");
  rule.only("relationStrategy", [0], "write 0; other resources are not asked");
  const throttles = rule.number("controlBehavior", 0) === 1;
  return {
    resource: rule.resource(),
    threshold: rule.number("threshold"),
    intervalMs: rule.number("statIntervalInMs", 0) || 1_000,
    maxQueueingMs: throttles ? rule.number("maxQueueingTimeMs", 0) : 0,
    throttles,
  };
}

function breakerRule(rule: Fields): BreakerRule {
  return {
    resource: rule.resource(),
    retryMs: rule.number("retryTimeoutMs"),
    minRequests: rule.number("minRequestAmount", 0),
    intervalMs: rule.number("statIntervalMs", 0) || 1_000,
    slowMs: rule.number("maxAllowedRtMs"),
    threshold: rule.number("threshold"),
  };
}

function systemRule(rule: Fields): SystemRule {
  rule.only(
    "metricType",
    [1, 2, 3],
    "write 1 (average time), 2 (at once) or 3 (each second); load and CPU are not there",
  );
  const metrics = { 1: "averageMs", 2: "concurrency", 3: "perSecond" } as const;
  return {
    metric: metrics[rule.number("metricType") as 1 | 2 | 3],
    limit: rule.number("triggerCount"),
  };
}

/** One rule, with its place for messages. */
class Fields {
  readonly #place: string;
  readonly #fields: ReadonlyMap<string, unknown>;

  constructor(place: string, fields: object) {
    this.#place = place;
    this.#fields = new Map(Object.entries(fields).map(([name, value]) => [name.toLowerCase(), value]));
  }

  resource(): string {
    const value = this.#fields.get("resource");
    if (typeof value === "string" && value !== "") return value;
    throw this.#fault("resource", "write for example GET:/v1.0/invoke/shop/method/price");
  }

  /** Required without `otherwise`. */
  number(name: string, otherwise?: number): number {
    const value = this.#fields.get(name.toLowerCase()) ?? otherwise;
    if (typeof value === "number" && value >= 0) return value;
    throw this.#fault(name, "write a number that is not negative");
  }

  only(name: string, allowed: readonly number[], fix: string): void {
    if (!allowed.includes(this.number(name, allowed.includes(0) ? 0 : undefined)))
      throw this.#fault(name, fix);
  }

  #fault(name: string, fix: string): Error {
    return new Error(`metadata field "${this.#place}.${name}": ${fix}`);
  }
}

function readList(field: string, text: string | undefined): Fields[] {
  if (text === undefined || text.trim() === "") return [];
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (cause) {
    throw new Error(`metadata field "${field}" is no JSON; write a list of rules`, { cause });
  }
  if (!Array.isArray(list) || list.some((rule) => typeof rule !== "object" || rule === null))
    throw new Error(`metadata field "${field}" must be a JSON list of rules`);
  return list.map((rule: object, i) => new Fields(`${field}[${i}]`, rule));
}
