/** What policies tell operators: metrics under Dapr's names, and lines in the log. */
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { formatGoDuration } from "../lib/duration.ts";
import type { BreakerState } from "./breaker.ts";

export type Direction = "inbound" | "outbound";

/** What a policy stands around, and where its parts were written. */
export type Place = {
  /** For the log, such as `calls to orders` or `state store redis`. */
  readonly words: string;
  /** Label of the metrics, such as `app_orders` or `Statestore_redis`. */
  readonly target: string;
  readonly direction: Direction;
  /** The resource with each part; undefined when the policy has no such part. */
  readonly timeout: Source | undefined;
  readonly retry: Source | undefined;
  readonly circuitBreaker: Source | undefined;
};

/** A Resiliency resource as labels. */
export type Source = { readonly name: string; readonly namespace: string };

export type Monitor = {
  /** A call begins; `state` is that of its breaker. */
  begin(state: BreakerState | undefined): void;
  timeout(): void;
  /** Try number `tries` failed, another follows. Counted once for each call. */
  retry(tries: number, waitMs: number, reason: string): void;
  recovered(tries: number): void;
  /** Of the breaker for `part`, such as a method; empty when the target has one breaker. */
  breaker(state: BreakerState, part: string): void;
};

/** Makes monitors; the families are made once. */
export type Monitors = {
  loaded(source: Source): void;
  of(place: Place): Monitor;
};

const labels = ["flow_direction", "name", "namespace", "policy", "status", "target"];
const states = ["closed", "half-open", "open", "unknown"] as const;

export function createMonitors(metrics: Metrics, log: Log): Monitors {
  const loaded = metrics.count("resiliency_loaded", "Resiliency resources loaded.", ["name", "namespace"]);
  const used = metrics.count("resiliency_count", "Calls made under a policy.", labels);
  const acted = metrics.count("resiliency_activations_total", "Calls on which a policy acted.", labels);
  const gauge = metrics.gauge("resiliency_cb_state", "1 for the state of a circuit breaker.", labels);
  return {
    loaded: ({ name, namespace }) => loaded(name, namespace),
    of(place) {
      const { words, target, direction } = place;
      const count = (family: typeof used, part: Part, status = ""): void => {
        const source = place[part];
        if (source === undefined) return;
        family(direction, source.name, source.namespace, part.toLowerCase(), status, target);
      };
      const show = (current: BreakerState): void => {
        const source = place.circuitBreaker;
        if (source === undefined) return;
        for (const state of states) {
          const value = state === current ? 1 : 0;
          gauge(value, direction, source.name, source.namespace, "circuitbreaker", state, target);
        }
      };
      return {
        begin(state) {
          count(used, "timeout");
          count(used, "retry");
          if (state === undefined) return;
          count(used, "circuitBreaker", state);
          show(state);
        },
        timeout: () => count(acted, "timeout"),
        retry(tries, waitMs, reason) {
          if (tries === 1) count(acted, "retry");
          log.info(
            `${words}: try ${tries} failed, the next follows in ${formatGoDuration(Math.round(waitMs))}: ${reason}`,
          );
        },
        recovered: (tries) => log.info(`${words}: try ${tries} succeeded`),
        breaker(state, part) {
          count(acted, "circuitBreaker", state);
          show(state);
          log.warn(`${words}${part === "" ? "" : `, ${part}`}: the circuit breaker is ${state} now`);
        },
      };
    },
  };
}

type Part = "timeout" | "retry" | "circuitBreaker";
