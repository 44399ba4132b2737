/**
 * Limits in the manner of Sentinel, by resource (`GET:/v1.0/...`): requests in an interval and at once, breakers of
 * slow ones, and limits of all together. What is too much gets 429.
 */
import type { Clock } from "../../../mesh/index.ts";
import { SlidingWindow } from "../../lib/sliding-window.ts";
import type { Middleware } from "../../middleware/port.ts";
import { textReply } from "../../middleware/reply.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import {
  type BreakerRule,
  type FlowRule,
  type IsolationRule,
  readRules,
  type Rules,
  type SystemRule,
} from "./sentinel-rules.ts";

export const type = "middleware.http.sentinel";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  appName: {
    kind: "string",
    description: "Name of the application; Sentinel's own log, which is not written",
  },
  logDir: { kind: "string", description: "Folder of Sentinel's own log, which is not written" },
  flowRules: { kind: "string", description: "JSON list of limits of requests in an interval" },
  isolationRules: { kind: "string", description: "JSON list of limits of requests at once" },
  circuitBreakerRules: { kind: "string", description: "JSON list of breakers of slow requests" },
  systemRules: { kind: "string", description: "JSON list of limits of all requests together" },
  hotSpotParamRules: {
    kind: "string",
    description: "JSON list; never acts, as the middleware has no parameters",
  },
} as const satisfies MetadataSchema;

export function open({ metadata, clock, log }: ComponentContext<typeof metadataSchema>): Promise<Middleware> {
  const rules = readRules(metadata);
  for (const warning of rules.warnings) log.warn(warning);
  const { all, byResource } = makeGuards(rules, clock);
  return Promise.resolve({
    async handle(request, next) {
      const own = byResource.get(`${request.verb}:${request.path}`) ?? [];
      const leaves: Leave[] = [];
      let tookMs: number | undefined;
      try {
        for (const guard of [...all, ...own]) {
          const leave = await guard.enter(request.signal);
          if (leave === undefined) return textReply(429, "Too Many Requests");
          leaves.push(leave);
        }
        const startMs = clock.monotonicMs();
        const reply = await next();
        tookMs = clock.monotonicMs() - startMs;
        return reply;
      } finally {
        for (const leave of leaves) leave(tookMs);
      }
    },
    close: () => Promise.resolve(),
  });
}

/** Ends what `enter` began; called once, with the time of a request that was answered. */
type Leave = (tookMs: number | undefined) => void;

/** One rule at work. */
type Guard = {
  /** Undefined refuses the request. May wait. */
  enter(signal: AbortSignal): Leave | undefined | Promise<Leave | undefined>;
};

const nothing: Leave = () => {};

function makeGuards(
  rules: Rules,
  clock: Clock,
): { readonly all: readonly Guard[]; readonly byResource: ReadonlyMap<string, readonly Guard[]> } {
  const byResource = new Map<string, Guard[]>();
  const add = (resource: string, guard: Guard): void => {
    byResource.set(resource, [...(byResource.get(resource) ?? []), guard]);
  };
  for (const rule of rules.isolation) add(rule.resource, new AtOnce(rule));
  for (const rule of rules.breakers) add(rule.resource, new SlowBreaker(rule, clock));
  for (const rule of rules.flow)
    add(rule.resource, rule.throttles ? new Queue(rule, clock) : new Rate(rule, clock));
  return { all: rules.system.map((rule) => new Together(rule, clock)), byResource };
}

class Rate implements Guard {
  readonly #rule: FlowRule;
  readonly #passed: SlidingWindow;

  constructor(rule: FlowRule, clock: Clock) {
    this.#rule = rule;
    this.#passed = new SlidingWindow(rule.intervalMs, clock);
  }

  enter(): Leave | undefined {
    if (this.#passed.count + 1 > this.#rule.threshold) return undefined;
    this.#passed.add(0);
    return nothing;
  }
}

/** Requests leave at even distances. */
class Queue implements Guard {
  readonly #rule: FlowRule;
  readonly #clock: Clock;
  #nextMs = Number.NEGATIVE_INFINITY;

  constructor(rule: FlowRule, clock: Clock) {
    this.#rule = rule;
    this.#clock = clock;
  }

  async enter(signal: AbortSignal): Promise<Leave | undefined> {
    const { threshold, intervalMs, maxQueueingMs } = this.#rule;
    if (threshold <= 0) return undefined;
    const nowMs = this.#clock.monotonicMs();
    const atMs = Math.max(nowMs, this.#nextMs);
    if (atMs - nowMs > maxQueueingMs) return undefined;
    this.#nextMs = atMs + intervalMs / threshold;
    if (atMs > nowMs) await this.#clock.sleep(atMs - nowMs, signal);
    return nothing;
  }
}

class AtOnce implements Guard {
  readonly #limit: number;
  #running = 0;

  constructor({ threshold }: IsolationRule) {
    this.#limit = threshold;
  }

  enter(): Leave | undefined {
    if (this.#running + 1 > this.#limit) return undefined;
    this.#running++;
    return () => this.#running--;
  }
}

class SlowBreaker implements Guard {
  readonly #rule: BreakerRule;
  readonly #clock: Clock;
  #recent: SlidingWindow;
  #state: "closed" | "open" | "half-open" = "closed";
  #retryAtMs = 0;

  constructor(rule: BreakerRule, clock: Clock) {
    this.#rule = rule;
    this.#clock = clock;
    this.#recent = new SlidingWindow(rule.intervalMs, clock);
  }

  enter(): Leave | undefined {
    if (this.#state === "closed") return (tookMs) => this.#record(tookMs);
    if (this.#state === "half-open" || this.#clock.monotonicMs() < this.#retryAtMs) return undefined;
    this.#state = "half-open";
    return (tookMs) => this.#probed(tookMs);
  }

  #record(tookMs: number | undefined): void {
    if (tookMs === undefined || this.#state !== "closed") return;
    const { slowMs, threshold, minRequests } = this.#rule;
    this.#recent.add(tookMs > slowMs ? 1 : 0);
    const { count, sum } = this.#recent;
    const tooMany = sum / count > threshold || (threshold === 1 && sum === count);
    if (count >= minRequests && tooMany) this.#open();
  }

  /** A probe that ended without an answer shows nothing good. */
  #probed(tookMs: number | undefined): void {
    if (tookMs === undefined || tookMs > this.#rule.slowMs) return this.#open();
    this.#state = "closed";
    this.#recent = new SlidingWindow(this.#rule.intervalMs, this.#clock);
  }

  #open(): void {
    this.#state = "open";
    this.#retryAtMs = this.#clock.monotonicMs() + this.#rule.retryMs;
  }
}

/** Over all requests, in the last second. */
class Together implements Guard {
  readonly #rule: SystemRule;
  readonly #passed: SlidingWindow;
  readonly #took: SlidingWindow;
  #running = 0;

  constructor(rule: SystemRule, clock: Clock) {
    this.#rule = rule;
    this.#passed = new SlidingWindow(1_000, clock);
    this.#took = new SlidingWindow(1_000, clock);
  }

  enter(): Leave | undefined {
    if (this.#measure() >= this.#rule.limit) return undefined;
    this.#passed.add(0);
    this.#running++;
    return (tookMs) => {
      this.#running--;
      if (tookMs !== undefined) this.#took.add(tookMs);
    };
  }

  #measure(): number {
    if (this.#rule.metric === "concurrency") return this.#running;
    if (this.#rule.metric === "perSecond") return this.#passed.count;
    const { count, sum } = this.#took;
    return count === 0 ? 0 : sum / count;
  }
}
