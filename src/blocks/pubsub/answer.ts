/**
 * What became of an event at its subscriber. Every way to deliver (HTTP app, gRPC app, stream) ends in one of these.
 */
import { anyFailure, type Failure, ignoredFailure } from "../../resiliency/policy.ts";
import type { AppEvent } from "./event.ts";

export type Answer =
  | { readonly kind: "success" }
  /** Gone without being handled. `asked`: the subscriber said DROP. `lost`: not even the dead-letter topic gets it. */
  | { readonly kind: "drop"; readonly asked: boolean; readonly lost: boolean }
  /**
   * To be tried again, or dead-lettered. `unserved`: nobody looked at it, so it is never dead-lettered. `failure`: what
   * it means to a policy.
   */
  | {
      readonly kind: "retry";
      readonly error: Error;
      readonly unserved: boolean;
      readonly failure: Failure;
    };

/** Hands an event to a subscriber under one of its paths. Failures to reach it are answers, not throws. */
export type Deliver = (event: AppEvent, path: string, signal: AbortSignal) => Promise<Answer>;

export const success: Answer = Object.freeze({ kind: "success" });
export const dropAsked: Answer = Object.freeze({ kind: "drop", asked: true, lost: false });
export const drop: Answer = Object.freeze({ kind: "drop", asked: false, lost: false });
export const dropLost: Answer = Object.freeze({ kind: "drop", asked: false, lost: true });

export function retry(reason: string | Error, failure: Failure = anyFailure): Answer {
  const error = typeof reason === "string" ? new Error(reason) : reason;
  return { kind: "retry", error, unserved: false, failure };
}

/** The subscriber left before it took the event. */
export function unserved(reason: string): Answer {
  return { kind: "retry", error: new Error(reason), unserved: true, failure: ignoredFailure };
}
