/**
 * The changes of one subscription on their way to the app: in order, with a bound. A reader that is slower than the
 * store loses what is outdated anyway, never the last state of a key.
 */
import type { ConfigurationItem } from "./port.ts";

export type Change = { readonly key: string; readonly item: ConfigurationItem };

/** Changes that wait for a slow app. */
const maxWaiting = 1_000;

export class Changes {
  readonly #waiting: Change[] = [];
  readonly #onDrop: (key: string) => void;
  #ended = false;
  #wake: () => void = () => {};

  /** `onDrop`: more keys than can wait changed at once, and the last state of one is not told. */
  constructor(onDrop: (key: string) => void) {
    this.#onDrop = onDrop;
  }

  readonly push = (key: string, item: ConfigurationItem): void => {
    if (this.#ended) return;
    if (this.#waiting.length >= maxWaiting) this.#makeRoom(key);
    this.#waiting.push({ key, item });
    this.#wake();
  };

  /** Ends the iteration, without what still waits. */
  end(): void {
    this.#ended = true;
    this.#waiting.length = 0;
    this.#wake();
  }

  /** For one reader. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Change, void> {
    while (!this.#ended) {
      const next = this.#waiting.shift();
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #makeRoom(key: string): void {
    const outdated = this.#waiting.findIndex((change) => change.key === key);
    const [dropped] = this.#waiting.splice(Math.max(0, outdated), 1);
    if (outdated < 0) this.#onDrop(dropped!.key);
  }
}
