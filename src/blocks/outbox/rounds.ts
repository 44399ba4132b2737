/**
 * What this sidecar knows of its own transactions, by marker: an event that comes back to it need not look for its
 * marker, and one whose transaction was refused is done at once.
 */
import type { TransactionOutcome } from "../state/outbox.ts";

/** Transactions that are remembered after their end; events of older ones look for their marker. */
const maxEnded = 10_000;

/** `store`: name of the component that the transaction goes to. */
export type OwnRound = { readonly store: string; readonly outcome: Promise<TransactionOutcome> };

export class Rounds {
  readonly #rounds = new Map<string, OwnRound>();
  /** Markers whose outcome stands, oldest first. */
  readonly #ended = new Set<string>();

  /** Gives what must be called with the end of the transaction. */
  begin(store: string, markers: readonly string[]): (outcome: TransactionOutcome) => void {
    const { promise: outcome, resolve } = Promise.withResolvers<TransactionOutcome>();
    for (const marker of markers) this.#rounds.set(marker, { store, outcome });
    return (result) => {
      resolve(result);
      for (const marker of markers) this.#end(marker, result);
    };
  }

  /** Undefined for a transaction of another sidecar, or one that is forgotten. */
  get(marker: string): OwnRound | undefined {
    return this.#rounds.get(marker);
  }

  forget(marker: string): void {
    this.#rounds.delete(marker);
    this.#ended.delete(marker);
  }

  #end(marker: string, outcome: TransactionOutcome): void {
    if (outcome === "unknown") return this.forget(marker);
    this.#ended.add(marker);
    if (this.#ended.size <= maxEnded) return;
    const [oldest] = this.#ended;
    this.forget(oldest!);
  }
}
