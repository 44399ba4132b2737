/**
 * Changes of etcd as a state store tells them. A cursor is a revision; revisions that were compacted away, or are ahead
 * of the server's, begin anew.
 */
import type { Clock } from "../../../../mesh/index.ts";
import { CursorInvalid, type StateChange, type StateRecord } from "../../../blocks/state/port.ts";
import { asError } from "../../../lib/thrown.ts";
import type { Etcd } from "../../connect/etcd.ts";
import { type EtcdRecord, type EtcdWatchAnswer, decodeWatch, encodeWatch } from "../../connect/etcd-wire.ts";

const firstWaitMs = 50;
const maxWaitMs = 5_000;

export type EtcdRange = {
  readonly from: string;
  /** Undefined: `from` alone. */
  readonly to: string | undefined;
  /** The user's part of an etcd key. */
  readonly keyOf: (key: string) => string;
};

/** The revision of a cursor; undefined without one. Throws CursorInvalid. */
export function revisionOf(after: string | undefined): bigint | undefined {
  if (after === undefined) return undefined;
  if (!/^\d{1,18}$/.test(after)) throw new CursorInvalid();
  return BigInt(after);
}

/** Resolves when the server watches. Goes on by itself when it was away. */
export async function watchEtcd(
  etcd: Etcd,
  range: EtcdRange,
  after: bigint | undefined,
  decode: (record: EtcdRecord) => StateRecord,
  clock: Clock,
  signal: AbortSignal,
): Promise<AsyncIterableIterator<StateChange>> {
  const changes = new Changes(etcd, range, decode, signal, after);
  await changes.begin();
  return changes.all(clock);
}

class Changes {
  readonly #etcd: Etcd;
  readonly #range: EtcdRange;
  readonly #decode: (record: EtcdRecord) => StateRecord;
  readonly #signal: AbortSignal;
  /** All up to here is told; undefined = the server's revision when the watch begins. */
  #told: bigint | undefined;
  #messages: AsyncIterableIterator<Uint8Array> | undefined;
  #reset = false;

  constructor(
    etcd: Etcd,
    range: EtcdRange,
    decode: (record: EtcdRecord) => StateRecord,
    signal: AbortSignal,
    after: bigint | undefined,
  ) {
    this.#etcd = etcd;
    this.#range = range;
    this.#decode = decode;
    this.#signal = signal;
    this.#told = after;
  }

  async begin(): Promise<void> {
    const { from, to } = this.#range;
    for (;;) {
      const start = this.#told === undefined ? 0n : this.#told + 1n;
      this.#messages = this.#etcd.stream("Watch/Watch", encodeWatch(from, to, start), this.#signal);
      const { revision } = await this.#next();
      if (this.#told !== undefined && revision >= this.#told) return;
      if (this.#told === undefined) {
        this.#told = revision;
        return;
      }
      await this.#anew();
    }
  }

  async *all(clock: Clock): AsyncIterableIterator<StateChange> {
    try {
      yield { kind: this.#reset ? "reset" : "ready", cursor: String(this.#told) };
      this.#reset = false;
      for (let waitMs = firstWaitMs; !this.#signal.aborted;) {
        try {
          if (this.#messages === undefined) await this.begin();
          if (this.#reset) yield { kind: "reset", cursor: String(this.#told) };
          this.#reset = false;
          const answer = await this.#next();
          waitMs = firstWaitMs;
          if (answer.compacted) await this.#anew();
          else yield* this.#changesOf(answer);
        } catch {
          await this.#leave();
          await clock.sleep(waitMs, this.#signal).catch(() => {});
          waitMs = Math.min(2 * waitMs, maxWaitMs);
        }
      }
    } finally {
      await this.#leave();
    }
  }

  *#changesOf({ events, revision }: EtcdWatchAnswer): Iterable<StateChange> {
    for (const [n, { deleted, key, record }] of events.entries()) {
      const own = BigInt(record.modRevision);
      // The others of one transaction come behind it, under the same revision.
      const last = events[n + 1]?.record.modRevision !== record.modRevision;
      this.#told = last ? own : own - 1n;
      const change = { key: this.#range.keyOf(key), cursor: String(this.#told) };
      if (deleted) yield { kind: "delete", ...change };
      else yield { kind: "put", ...change, record: this.#record(record) };
    }
    if (events.length > 0) return;
    this.#told = revision;
    yield { kind: "idle", cursor: String(revision) };
  }

  #record(record: EtcdRecord): StateRecord | Error {
    try {
      return this.#decode(record);
    } catch (error) {
      return asError(error);
    }
  }

  async #next(): Promise<EtcdWatchAnswer> {
    const { value, done } = await this.#messages!.next();
    if (done === true) throw new Error("etcd ended the watch");
    const answer = decodeWatch(value);
    if (!answer.canceled || answer.compacted) return answer;
    await this.#leave();
    throw new Error(`etcd ended the watch: ${answer.reason}`);
  }

  /** From the server's present on: what was between is lost. */
  async #anew(): Promise<void> {
    await this.#leave();
    this.#told = undefined;
    this.#reset = true;
  }

  async #leave(): Promise<void> {
    await this.#messages?.return?.().catch(() => {});
    this.#messages = undefined;
  }
}
