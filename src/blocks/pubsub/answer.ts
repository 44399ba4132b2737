/**
 * What became of an event at its subscriber. Every way to deliver (HTTP app, gRPC app, stream) ends in one of these.
 */
import { anyFailure, type Failure, ignoredFailure } from "../../resiliency/policy.ts";
import type { AppEvent } from "./event.ts";

export type Answer =
  | { readonly kind: "success" }
  /**
   * Gone without being handled, for a `reason`. `asked`: the subscriber said DROP. `lost`: not even the dead-letter
   * topic gets it.
   */
  | { readonly kind: "drop"; readonly reason: string; readonly asked: boolean; readonly lost: boolean }
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
export const dropAsked = dropped("the app dropped it", { asked: true });
export const dropExpired = dropped("it has expired");
export const dropUnrouted = dropped("no rule takes it");
export const dropRefused = dropped("the app has no such route (404)");
export const dropLost = dropped("the app does not take it", { lost: true });

function dropped(reason: string, { asked = false, lost = false } = {}): Answer {
  return Object.freeze({ kind: "drop", reason, asked, lost });
}

export function retry(reason: string | Error, failure: Failure = anyFailure): Answer {
  const error = typeof reason === "string" ? new Error(reason) : reason;
  return { kind: "retry", error, unserved: false, failure };
}

/** The subscriber left before it took the event. */
export function unserved(reason: string): Answer {
  return { kind: "retry", error: new Error(reason), unserved: true, failure: ignoredFailure };
}
