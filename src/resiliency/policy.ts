/**
 * What stands around a call: a timeout for each attempt, inside a circuit breaker, inside retries. It knows neither
 * HTTP nor gRPC: whoever calls says what an outcome means.
 */
import type { Clock } from "../../mesh/index.ts";
import type { Breaker } from "./breaker.ts";
import type { Monitor } from "./monitor.ts";
import { matches, type RetryRule, Waits } from "./retry.ts";
import { PolicyStop } from "./stop.ts";

/**
 * What an attempt without success means. `any`: retried whatever the policy matches. `http`, `grpc`: an answer of the
 * app, retried when the policy matches its code. `final`: a failure that is not retried. `ignored`: not retried either,
 * and no failure to the breaker: the target works and refuses this call by its own rules.
 */
export type Failure =
  | { readonly kind: "any" | "final" | "ignored" }
  | { readonly kind: "http" | "grpc"; readonly code: number };

export const anyFailure: Failure = Object.freeze({ kind: "any" });
export const finalFailure: Failure = Object.freeze({ kind: "final" });
export const ignoredFailure: Failure = Object.freeze({ kind: "ignored" });

export type PolicyCall<T> = {
  /** Aborted when nobody waits any more: no further attempt begins. */
  readonly signal: AbortSignal;
  /** False for what cannot be sent twice, such as a body of unknown length. Absent = true. */
  readonly repeatable?: boolean;
  /** Values that are failures, such as an app's status 503; undefined for success. Absent = none is. */
  readonly judge?: (value: T) => Failure | undefined;
  /** Absent = every error may be retried. */
  readonly judgeError?: (error: unknown) => Failure;
  /** Frees a value that nobody will get, because it came too late or is tried again. */
  readonly discard?: (value: T) => void;
};

/** One try; `attempt` counts from one. The signal is aborted by the timeout, too. */
export type Attempt<T> = (signal: AbortSignal, attempt: number) => Promise<T>;

export type PolicyInit = {
  /** Undefined for none. */
  readonly timeoutMs: number | undefined;
  readonly retry: RetryRule | undefined;
  readonly breaker: Breaker | undefined;
  readonly clock: Clock;
  readonly random: () => number;
  readonly monitor: Monitor;
};

type Outcome<T> =
  | { readonly value: T; readonly failure: Failure | undefined }
  | { readonly error: unknown; readonly failure: Failure };

export class Policy {
  readonly #init: PolicyInit;

  constructor(init: PolicyInit) {
    this.#init = init;
  }

  /** It may make a call more than once. */
  get retries(): boolean {
    return this.#init.retry !== undefined && this.#init.retry.maxRetries !== 0;
  }

  /**
   * Makes the call as the policy says. Resolves or rejects with what the last attempt came to; with PolicyStop when an
   * attempt took too long or the breaker did not let it through.
   */
  async run<T>(attempt: Attempt<T>, call: PolicyCall<T>): Promise<T> {
    const { retry, clock, random, monitor, breaker } = this.#init;
    monitor.begin(breaker?.state);
    const said = { timeout: false };
    const again = retry !== undefined && call.repeatable !== false;
    const waits = again ? new Waits(retry, clock, random) : undefined;
    for (let tries = 1; ; tries++) {
      const outcome = await this.#guarded(attempt, tries, call, said);
      const waitMs = waits !== undefined && this.#mayRetry(outcome, call.signal) ? waits.next() : undefined;
      if (waitMs === undefined) {
        if (tries > 1 && outcome.failure === undefined) monitor.recovered(tries);
        return result(outcome);
      }
      monitor.retry(tries, waitMs, textOf(outcome));
      if ("value" in outcome) call.discard?.(outcome.value);
      try {
        await clock.sleep(waitMs, call.signal);
      } catch (reason) {
        if ("value" in outcome && call.discard !== undefined) throw reason;
        return result(outcome);
      }
    }
  }

  #mayRetry(outcome: Outcome<unknown>, signal: AbortSignal): boolean {
    const { failure } = outcome;
    if (failure === undefined || signal.aborted) return false;
    const { httpCodes, grpcCodes } = this.#init.retry!;
    switch (failure.kind) {
      case "any":
        return true;
      case "http":
        return matches(httpCodes, failure.code);
      case "grpc":
        return matches(grpcCodes, failure.code);
      case "final":
      case "ignored":
        return false;
    }
  }

  async #guarded<T>(
    attempt: Attempt<T>,
    tries: number,
    call: PolicyCall<T>,
    said: { timeout: boolean },
  ): Promise<Outcome<T>> {
    const { breaker } = this.#init;
    if (breaker === undefined) return this.#judged(attempt, tries, call, said);
    let generation: number;
    try {
      generation = breaker.enter();
    } catch (error) {
      // Waiting does not help soon, and every further try would count.
      return { error, failure: finalFailure };
    }
    const outcome = await this.#judged(attempt, tries, call, said);
    breaker.settle(generation, meaning(outcome, call.signal));
    return outcome;
  }

  async #judged<T>(
    attempt: Attempt<T>,
    tries: number,
    call: PolicyCall<T>,
    said: { timeout: boolean },
  ): Promise<Outcome<T>> {
    const { timeoutMs, monitor } = this.#init;
    try {
      const value = await (timeoutMs === undefined
        ? attempt(call.signal, tries)
        : this.#limited(attempt, tries, call, timeoutMs));
      return { value, failure: call.judge?.(value) };
    } catch (error) {
      const late = error instanceof PolicyStop && error.reason === "timeout";
      if (!late) return { error, failure: call.judgeError?.(error) ?? anyFailure };
      if (!said.timeout) monitor.timeout();
      said.timeout = true;
      return { error, failure: anyFailure };
    }
  }

  /** The attempt need not watch its signal: what it comes to after its time is discarded. */
  async #limited<T>(
    attempt: Attempt<T>,
    tries: number,
    { signal, discard }: PolicyCall<T>,
    timeoutMs: number,
  ): Promise<T> {
    const limit = new AbortController();
    const giveUp = (): void => limit.abort(signal.reason);
    if (signal.aborted) giveUp();
    else signal.addEventListener("abort", giveUp, { once: true });
    const { promise: late, reject } = Promise.withResolvers<never>();
    // Made only when it is needed: a stack trace costs more than all the rest.
    let stop: PolicyStop | undefined;
    const timer = this.#init.clock.setTimeout(() => {
      stop = new PolicyStop("timeout");
      reject(stop);
      limit.abort(stop);
    }, timeoutMs);
    const running = attempt(limit.signal, tries);
    try {
      const value = await Promise.race([running, late]);
      // A value that holds something is still read, and its reader may go away.
      if (discard === undefined) signal.removeEventListener("abort", giveUp);
      return value;
    } catch (error) {
      signal.removeEventListener("abort", giveUp);
      if (stop === undefined) throw error;
      running.then(discard, () => {});
      throw stop;
    } finally {
      timer.cancel();
    }
  }
}

/** The place of a component's policy, undefined for none. Another may stand there at the next call. */
export type Guard = { readonly policy: Policy | undefined };

/** A call of a component: under its policy, or plainly when there is none. */
export function callUnder<T>(
  { policy }: Guard,
  signal: AbortSignal,
  attempt: Attempt<T>,
  judgeError?: (error: unknown) => Failure,
): Promise<T> {
  if (policy === undefined) return attempt(signal, 1);
  return policy.run(attempt, judgeError === undefined ? { signal } : { signal, judgeError });
}

function meaning(outcome: Outcome<unknown>, signal: AbortSignal): "success" | "failure" | "unknown" {
  if (outcome.failure === undefined) return "success";
  const givenUp = signal.aborted && "error" in outcome;
  if (givenUp) return "unknown";
  return outcome.failure.kind === "ignored" ? "success" : "failure";
}

function result<T>(outcome: Outcome<T>): T {
  if ("error" in outcome) throw outcome.error;
  return outcome.value;
}

function textOf(outcome: Outcome<unknown>): string {
  if ("error" in outcome)
    return outcome.error instanceof Error ? outcome.error.message : String(outcome.error);
  const { failure } = outcome;
  return failure !== undefined && "code" in failure
    ? `${failure.kind} code ${failure.code}`
    : "a failed answer";
}
