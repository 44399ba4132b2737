/**
 * Atomic batches of a table: published without answers but for the last message, repeated when the outcome is unknown,
 * and after a conflict the write that failed is looked for. Normative: README.md, "Tables".
 */
import { randomUUID } from "node:crypto";
import { type Current, guardOf, opOf, writePairs } from "./entry.ts";
import { MeshError, cancelledBy, isMeshError } from "./errors.ts";
import { type EncodedHeaders, encodeHeaders } from "./headers.ts";
import { type AttemptOptions, type JetStream, JsCode, isJsError, storageError } from "./jetstream.ts";
import { encodeKey, fullKey } from "./subjects.ts";
import type { TableKey, TableWrite } from "./types.ts";

/** Limit of the server. */
export const maxBatchWrites = 1_000;
/** Tries of a guarded write that met a tombstone or another write in flight. */
export const maxConflictTries = 8;
/** Leader reads under way at once. */
export const readsAtOnce = 64;
/** Wait before another try, ms, times their number. */
const retryWaitMs = 5;
/** An op that a stream with replicas knows for so long has been stored, ms: a change of leader would have ended it. */
const settledMs = 2_000;
const empty = new Uint8Array(0);

/** What a batch needs of its table. */
export type BatchTarget = {
  readonly js: JetStream;
  /** `$KV.<bucket>.` */
  readonly prefix: string;
  readonly attempt: AttemptOptions;
  /** Fresh state of an encoded key. */
  readonly read: (encoded: string) => Promise<Current>;
};

type Message = { readonly subject: string; readonly data: Uint8Array; readonly headers: EncodedHeaders };

/**
 * Resolves with the revision of each write, undefined when the batch had been applied by a try whose answer was lost.
 * Rejects with MeshError.
 */
export async function writeBatch(
  target: BatchTarget,
  writes: readonly TableWrite[],
): Promise<(number | undefined)[]> {
  const encoded = writes.map((write) => encodeKey(write.key));
  if (new Set(encoded).size !== encoded.length)
    throw new MeshError("storage", "a batch may write each key once only");
  const batch = new Batch(target, writes, encoded);
  return batch.write();
}

class Batch {
  readonly #target: BatchTarget;
  readonly #writes: readonly TableWrite[];
  readonly #encoded: readonly string[];
  /** Sequence each write expects. */
  readonly #guards: (number | undefined)[];
  readonly #op = randomUUID();
  /** Why it is not known whether an earlier try was applied. */
  #open: MeshError | undefined;
  /** Tries that met a conflict which went away, or a batch that the server had dropped. */
  #refusals = 0;
  #knownSinceMs: number | undefined;

  constructor(target: BatchTarget, writes: readonly TableWrite[], encoded: readonly string[]) {
    this.#target = target;
    this.#writes = writes;
    this.#encoded = encoded;
    this.#guards = writes.map((write) => (write.expect === "absent" ? 0 : write.expect));
  }

  async write(): Promise<(number | undefined)[]> {
    const { clock, random } = this.#target.js.connection.settings;
    const { endMs, signal } = this.#target.attempt;
    for (let tries = 1; ; tries++) {
      try {
        const last = await this.#commit(tries);
        return this.#writes.map((_, i) => last - this.#writes.length + 1 + i);
      } catch (error) {
        if (await this.#isApplied(error)) return this.#writes.map(() => undefined);
        if (clock.monotonicMs() >= endMs) throw this.#failure(error);
        await clock
          .sleep(retryWaitMs * Math.min(tries, maxConflictTries) * (0.5 + random()), signal)
          .catch(() => Promise.reject(cancelledBy(signal!)));
      }
    }
  }

  /** After a failed try: true when the batch was applied after all, false when another try is worth it; else throws. */
  async #isApplied(error: unknown): Promise<boolean> {
    if (isJsError(error, JsCode.duplicateInBatch)) return this.#isKnown();
    if (isMeshError(error, "timeout", "interrupted")) {
      this.#open ??= error;
      return false;
    }
    const conflicted = isJsError(error, JsCode.wrongLastSequence, JsCode.wrongLastSequenceInFlight);
    if (!conflicted && !isJsError(error, JsCode.batchIncomplete)) throw this.#failure(error);
    if (conflicted && (await this.#recheck())) return true;
    if (++this.#refusals >= maxConflictTries) throw this.#failure(error);
    return false;
  }

  #failure(error: unknown): unknown {
    if (this.#open !== undefined) return this.#open;
    const conflicted = isJsError(error, JsCode.wrongLastSequence, JsCode.wrongLastSequenceInFlight);
    return conflicted ? conflict(this.#writes[0]!.key, error, undefined) : storageError(error);
  }

  /**
   * The stream knows the op, which the first message carries as its id: stored, or with replicas still on its way,
   * which may end with the leader. So a value of ours must be seen; when others have replaced it, the op stays known.
   */
  async #isKnown(): Promise<boolean> {
    const { clock } = this.#target.js.connection.settings;
    this.#knownSinceMs ??= clock.monotonicMs();
    const state = await this.#target.read(this.#encoded[0]!);
    return opOf(state) === this.#op || clock.monotonicMs() - this.#knownSinceMs >= settledMs;
  }

  /** Resolves with the sequence of the last message. */
  async #commit(tries: number): Promise<number> {
    const { js, attempt } = this.#target;
    const { connection } = js;
    const messages = this.#messages(`${this.#op}-${tries}`);
    const largest = Math.max(...messages.map(({ data, headers }) => data.length + headers.encode().length));
    // Found out in the middle, it would leave an open batch on the server, which has room for few.
    connection.checkSize(largest);
    const { endMs, awayEndMs = endMs } = attempt;
    const leftMs = Math.min(endMs, awayEndMs) - connection.settings.clock.monotonicMs();
    await connection.readyWithin(Math.max(1, leftMs), attempt.signal);
    const last = messages.pop()!;
    for (const { subject, data, headers } of messages) js.publishWithoutAck(subject, data, headers);
    const ack = await js.publish(last.subject, last.data, last.headers, attempt);
    return ack.seq;
  }

  #messages(batchId: string): Message[] {
    return this.#writes.map((write, i) => {
      const pairs = writePairs(write, this.#encoded[i]!, this.#guards[i], this.#op);
      pairs.push("Nats-Batch-Id", batchId, "Nats-Batch-Sequence", String(i + 1));
      if (i === 0) pairs.push("Nats-Msg-Id", this.#op);
      if (i === this.#writes.length - 1) pairs.push("Nats-Batch-Commit", "1");
      const data = write.kind === "put" ? write.value : empty;
      return { subject: this.#target.prefix + this.#encoded[i]!, data, headers: encodeHeaders(pairs) };
    });
  }

  /**
   * After a conflict: true when the batch was applied before. Throws for the write that failed; else the guards of
   * absent keys now fit their tombstones and another try is worth it.
   */
  async #recheck(): Promise<boolean> {
    const guarded = this.#writes.flatMap((write, i) => (write.expect === undefined ? [] : [i]));
    let failed: number | undefined;
    for (let at = 0; at < guarded.length && failed === undefined; at += readsAtOnce) {
      const part = guarded.slice(at, at + readsAtOnce);
      const states = await Promise.all(part.map((i) => this.#target.read(this.#encoded[i]!)));
      if (states.some((state) => opOf(state) === this.#op)) return true;
      failed = part.find((i, n) => !this.#fits(i, states[n]!));
    }
    if (failed !== undefined) throw conflict(this.#writes[failed]!.key, undefined, failed);
    return false;
  }

  #fits(i: number, state: Current): boolean {
    if (state.revision === this.#guards[i]) return true;
    // With an earlier try open, somebody may have replaced what it wrote, unless they replaced what it expected.
    if (this.#open !== undefined && guardOf(state) !== this.#guards[i]) throw this.#open;
    if (this.#writes[i]!.expect !== "absent" || state.entry !== undefined) return false;
    this.#guards[i] = state.revision;
    return true;
  }
}

export function conflict(key: TableKey, cause: unknown, index: number | undefined): MeshError {
  const options = index === undefined ? { cause } : { cause, index };
  return new MeshError("conflict", `another write came first on ${fullKey(key).slice(0, 200)}`, options);
}
