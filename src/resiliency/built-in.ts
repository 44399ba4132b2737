/** Retries that are there without any resource. A resource may redefine all but the last under `retries`. */
import type { RetryRule } from "./retry.ts";

const constant = { growing: false, maxWaitMs: 0, maxElapsedMs: Infinity };
const growing = { growing: true, waitMs: 500 };
const allCodes = { httpCodes: undefined, grpcCodes: undefined };

/** Growing waits end this long after the first try, ms. */
export const maxGrowingElapsedMs = 15 * 60_000;
/** First of growing waits, ms. */
export const firstGrowingWaitMs = growing.waitMs;
/** A redefined policy makes at least so many retries. */
export const minBuiltInRetries = 3;

export const builtInRetries = {
  /** An app of the mesh whose sidecar is not there right now. */
  DaprBuiltInServiceRetries: { ...constant, waitMs: 1_000, maxRetries: 3, ...allCodes },
  DaprBuiltInActorRetries: { ...constant, waitMs: 1_000, maxRetries: 3, ...allCodes },
  DaprBuiltInActorReminderRetries: {
    ...growing,
    maxWaitMs: 60_000,
    maxRetries: -1,
    maxElapsedMs: maxGrowingElapsedMs,
    ...allCodes,
  },
  DaprBuiltInInitializationRetries: {
    ...growing,
    maxWaitMs: 1_000,
    maxRetries: 3,
    maxElapsedMs: 10_000,
    ...allCodes,
  },
  DaprBuiltInActorNotFoundRetries: { ...constant, waitMs: 1_000, maxRetries: 5, ...allCodes },
} as const satisfies Record<string, RetryRule>;

export type BuiltInRetry = keyof typeof builtInRetries;

/** Redefinitions of it have no effect. */
export const fixedBuiltIn: BuiltInRetry = "DaprBuiltInActorNotFoundRetries";
