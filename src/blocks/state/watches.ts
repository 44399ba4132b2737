/** The open watches of a sidecar: how many there may be, and their end when the sidecar or the store does. */
import { tooManyWatches, watchesEnd } from "./errors.ts";

/** Watches of one sidecar, over both protocols. */
const maxWatches = 1_000;

export class Watches {
  readonly #open = new Map<AbortController, string>();
  #stopped = false;

  /** A watch of a store, to be ended by its signal; `done` when it has ended. Throws when there are too many. */
  add(store: string): { readonly ending: AbortController; done(): void } {
    if (this.#stopped) throw watchesEnd();
    if (this.#open.size >= maxWatches) throw tooManyWatches(maxWatches);
    const ending = new AbortController();
    this.#open.set(ending, store);
    return { ending, done: () => this.#open.delete(ending) };
  }

  /** The store is another one now; clients begin anew. */
  endOf(store: string): void {
    for (const [ending, of] of this.#open) if (of === store) ending.abort(watchesEnd());
  }

  stop(): void {
    this.#stopped = true;
    for (const ending of this.#open.keys()) ending.abort(watchesEnd());
  }
}
