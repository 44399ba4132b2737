/** A bounded map that makes what it lacks and forgets what was used longest ago. */
export class Recent<V> {
  readonly #max: number;
  readonly #values = new Map<string, V>();

  /** `max`: entries kept, at least 1. */
  constructor(max: number) {
    this.#max = max;
  }

  get(key: string, make: (key: string) => V): V {
    const found = this.#values.get(key);
    if (found !== undefined && this.#values.size === 1) return found;
    const value = found ?? make(key);
    // Deleted first, so that the map stays in order of use.
    this.#values.delete(key);
    this.#values.set(key, value);
    if (this.#values.size > this.#max) {
      for (const oldest of this.#values.keys()) {
        this.#values.delete(oldest);
        break;
      }
    }
    return value;
  }
}
