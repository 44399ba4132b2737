/**
 * A Resiliency resource: named policies, and the targets that use them. What a name leads to is decided later, because
 * the policies of all resources share one table (src/resiliency/table.ts).
 */
import type { Origin, Problem } from "../problem.ts";

export interface TimeoutPolicy {
  readonly name: string;
  readonly timeoutMs: number;
  readonly origin: Origin;
}

/** Codes that are retried, both ends included. */
export interface CodeRange {
  readonly first: number;
  readonly last: number;
}

export interface RetryPolicy {
  readonly name: string;
  readonly policy: "constant" | "exponential";
  /** Wait between tries of a constant policy. */
  readonly waitMs: number;
  /** Longest wait of an exponential one. */
  readonly maxWaitMs: number;
  /** Tries after the first; -1 for no limit. */
  readonly maxRetries: number;
  /** Undefined for all codes. */
  readonly httpCodes: readonly CodeRange[] | undefined;
  readonly grpcCodes: readonly CodeRange[] | undefined;
  readonly origin: Origin;
}

export interface BreakerPolicy {
  readonly name: string;
  /** Calls let through while half-open, and successes that close the breaker. */
  readonly maxRequests: number;
  /** While closed, counts are cleared after each such time; 0 for never. */
  readonly intervalMs: number;
  /** From open to half-open. */
  readonly openMs: number;
  /** CEL over the counts; empty for the default rule. */
  readonly trip: string;
  readonly origin: Origin;
  readonly tripOrigin: Origin;
}

/** Names of policies; empty when none is given. */
export interface PolicyNames {
  readonly timeout: string;
  readonly retry: string;
  readonly circuitBreaker: string;
  readonly origin: Origin;
}

export interface AppTarget extends PolicyNames {
  /** App id as callers write it, name of an HTTPEndpoint, or base URL. */
  readonly id: string;
  /** Breakers kept, one per method. */
  readonly breakerCount: number;
}

export type ActorBreakerScope = "type" | "id" | "both";

export interface ActorTarget extends PolicyNames {
  readonly type: string;
  readonly breakerScope: ActorBreakerScope;
  readonly breakerCount: number;
}

export interface ComponentTarget {
  readonly name: string;
  readonly inbound: PolicyNames | undefined;
  readonly outbound: PolicyNames | undefined;
}

export interface ResiliencyResource {
  readonly kind: "Resiliency";
  readonly name: string;
  readonly namespace: string | undefined;
  /** Ids of the apps that it is for; empty for all. */
  readonly scopes: readonly string[];
  readonly origin: Origin;
  /** Errors of the spec. When there is one, the resource has no effect, but it is there: the metadata API lists it. */
  readonly faults: readonly Problem[];
  readonly timeouts: readonly TimeoutPolicy[];
  readonly retries: readonly RetryPolicy[];
  readonly circuitBreakers: readonly BreakerPolicy[];
  readonly apps: readonly AppTarget[];
  readonly actors: readonly ActorTarget[];
  readonly components: readonly ComponentTarget[];
}
