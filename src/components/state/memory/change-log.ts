/**
 * What changed of late in a store that lives in this process, for its watches. Names of keys only: a watch reads the
 * value when it tells of it, so values that were replaced meanwhile take no room.
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "../../../../mesh/index.ts";
import {
  CursorInvalid,
  type StateChange,
  type StateRecord,
  type StateTarget,
} from "../../../blocks/state/port.ts";

/** Changes that are remembered; a watch that is further behind begins anew. */
const maxChanges = 10_000;
/** How often a watch without changes looks for what has expired, ms. */
const idleMs = 1_000;

type Entry = { readonly key: string; readonly kind: "put" | "delete" | "expire" };

export class ChangeLog {
  /** Of this store's life, in all its cursors. */
  readonly #life = randomUUID();
  readonly #entries: Entry[] = [];
  /** Number of the first entry. */
  #first = 0;
  readonly #waiting = new Set<() => void>();

  add(key: string, kind: Entry["kind"]): void {
    this.#entries.push({ key, kind });
    // In large steps, since each moves the rest.
    if (this.#entries.length > 2 * maxChanges) {
      this.#entries.splice(0, maxChanges);
      this.#first += maxChanges;
    }
    for (const wake of [...this.#waiting]) wake();
  }

  /** `find` gives the record as it is now; `tick` is called while nothing happens. Throws CursorInvalid. */
  watch(
    target: StateTarget,
    after: string | undefined,
    signal: AbortSignal,
    clock: Clock,
    store: { find(key: string): StateRecord | undefined; tick(): void },
  ): AsyncIterableIterator<StateChange> {
    const end = this.#first + this.#entries.length;
    const match = after === undefined ? undefined : /^([0-9a-f-]{36})\.(\d{1,15})$/.exec(after);
    if (match === null) throw new CursorInvalid();
    const asked = match === undefined ? end : Number(match[2]);
    const known = match === undefined || (match[1] === this.#life && asked >= this.#first && asked <= end);
    return this.#changes(target, known ? asked : end, known ? "ready" : "reset", signal, clock, store);
  }

  async *#changes(
    target: StateTarget,
    start: number,
    first: "ready" | "reset",
    signal: AbortSignal,
    clock: Clock,
    { find, tick }: { find(key: string): StateRecord | undefined; tick(): void },
  ): AsyncIterableIterator<StateChange> {
    const wants = (key: string): boolean =>
      "key" in target ? key === target.key : key.startsWith(target.prefix);
    const cursor = (next: number): string => `${this.#life}.${next}`;
    yield { kind: first, cursor: cursor(start) };
    for (let next = start; !signal.aborted;) {
      if (next < this.#first) {
        next = this.#first + this.#entries.length;
        yield { kind: "reset", cursor: cursor(next) };
      }
      const entry = this.#entries[next - this.#first];
      if (entry === undefined) {
        await this.#more(signal, clock);
        tick();
        continue;
      }
      next++;
      if (!wants(entry.key)) continue;
      if (entry.kind !== "put") yield { kind: entry.kind, key: entry.key, cursor: cursor(next) };
      else {
        // What is gone again is told by a later entry.
        const record = find(entry.key);
        if (record !== undefined) yield { kind: "put", key: entry.key, record, cursor: cursor(next) };
      }
    }
  }

  #more(signal: AbortSignal, clock: Clock): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        this.#waiting.delete(end);
        timer.cancel();
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = clock.setTimeout(end, idleMs);
      signal.addEventListener("abort", end, { once: true });
      this.#waiting.add(end);
      if (signal.aborted) end();
    });
  }
}
