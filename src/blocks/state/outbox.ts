/**
 * What the state block asks of the outbox (blocks/outbox): events of a transaction that are published exactly when it
 * was committed.
 */
import type { OpenComponent } from "../../components/open.ts";
import type { Span } from "../../telemetry/tracing/span.ts";
import type { StateStore } from "./port.ts";
import type { Operation } from "./writes.ts";

/** `unknown`: the store failed in a way that leaves open whether it was committed. */
export type TransactionOutcome = "committed" | "refused" | "unknown";

/** One transaction on its way. Calls come in this order, each at most once. */
export type OutboxRound = {
  /** What is to be stored: operations that only shape an event are left out. */
  readonly operations: readonly Operation[];
  /** Stored keys to be written in the same transaction. */
  readonly markers: readonly string[];
  /** Resolves when the events are safe with a broker. Rejects with ApiError; then nothing may be stored. */
  announce(span: Span | undefined, signal: AbortSignal): Promise<void>;
  /** What became of the transaction; also after `announce` has failed. */
  settle(outcome: TransactionOutcome): void;
};

export type StoreOutbox = {
  /** Works out the events. Throws ApiError when one of them cannot be written. Without effect. */
  plan(operations: readonly Operation[]): OutboxRound;
};

/** The outbox of a state component; undefined when its metadata ask for none. */
export type OutboxOf = (component: OpenComponent<StateStore>) => StoreOutbox | undefined;
