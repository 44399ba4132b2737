/** Filters of one shared consumer: NATS refuses those that overlap, so that an event has one filter at most. */
import { topicFilter } from "./subjects.ts";

export class Filters {
  readonly #plain = new Set<string>();
  /** Filters with wildcards, in tokens. */
  readonly #wild = new Map<string, readonly string[]>();
  readonly #base: string;
  /** Takes no event, because there is no topic without a name: NATS gives all events to who has no filter. */
  readonly #none: string;
  #bytes = 0;

  /** `base`: what all of them begin with, with its own wildcard. */
  constructor(base: string, filters: Iterable<string> = []) {
    this.#base = `${base}.`;
    this.#none = topicFilter(base, "");
    for (const filter of filters) this.add(filter);
  }

  get size(): number {
    return this.#plain.size + this.#wild.size;
  }

  /** As JSON. */
  get bytes(): number {
    return this.#bytes;
  }

  has(filter: string): boolean {
    return this.#plain.has(filter) || this.#wild.has(filter);
  }

  add(filter: string): void {
    if (filter === this.#none || this.has(filter)) return;
    this.#bytes += filter.length + 3;
    const tokens = this.#tokensOf(filter);
    if (tokens.some(isWildcard)) this.#wild.set(filter, tokens);
    else this.#plain.add(filter);
  }

  delete(filter: string): void {
    if (this.#plain.delete(filter) || this.#wild.delete(filter)) this.#bytes -= filter.length + 3;
  }

  /** The filter that takes the events of this place: a filter without wildcards in the topic. */
  find(place: string): string | undefined {
    if (this.#plain.has(place)) return place;
    if (this.#wild.size === 0) return undefined;
    const tokens = this.#tokensOf(place);
    for (const [filter, wild] of this.#wild) if (overlap(tokens, wild)) return filter;
    return undefined;
  }

  /** True when an event could be taken by this filter and by one that is here. */
  overlaps(filter: string): boolean {
    if (this.has(filter) || this.find(filter) !== undefined) return true;
    const tokens = this.#tokensOf(filter);
    if (!tokens.some(isWildcard)) return false;
    for (const plain of this.#plain) if (overlap(tokens, this.#tokensOf(plain))) return true;
    return false;
  }

  /** For the consumer: never empty. */
  get list(): readonly string[] {
    return this.size === 0 ? [this.#none] : [...this];
  }

  [Symbol.iterator](): Iterator<string> {
    return [...this.#plain, ...this.#wild.keys()][Symbol.iterator]();
  }

  #tokensOf(filter: string): readonly string[] {
    return filter.slice(this.#base.length).split(".");
  }
}

function isWildcard(token: string): boolean {
  return token === "*" || token === ">";
}

/** Whether a subject can match both. */
function overlap(a: readonly string[], b: readonly string[]): boolean {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    if (x === ">" || y === ">") return true;
    if (x !== y && x !== "*" && y !== "*") return false;
  }
  return a.length === b.length;
}
