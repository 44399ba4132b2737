/**
 * Spans on their way to one exporter: encoded when they end, in a bounded queue of batches, so that a slow or missing
 * collector costs neither a call nor memory. What does not fit, or cannot be delivered, is counted and said.
 */
import type { Clock, Timer } from "../../../mesh/index.ts";
import type { Span } from "./span.ts";

/** Spans of one export, in the form in which they leave. */
export type EncodedSpans = { add(span: Span): void };

/** One way out. Imported only when it is configured. */
export type SpanExporter<Spans extends EncodedSpans = EncodedSpans> = {
  /** As in the metrics and the log: `otlp-http`, `zipkin`, ... */
  readonly name: string;
  begin(): Spans;
  /** Rejects with Error when the spans were not taken. May be called again with the same ones. */
  export(spans: Spans): Promise<void>;
  close(): void;
};

export type BatchLimits = {
  /** Spans that wait at most. */
  readonly maxQueue: number;
  /** Spans of one export. */
  readonly maxBatch: number;
  /** Longest wait of a span before its export begins, ms. */
  readonly delayMs: number;
};

export type BatchParts = {
  readonly limits: BatchLimits;
  readonly clock: Clock;
  /** Counts by exporter and reason (`queue`, `export`). */
  readonly dropped: (count: number, exporter: string, reason: string) => void;
  readonly warn: (text: string) => void;
};

/** Tries of one batch, and the wait before the second; it doubles. */
const maxTries = 3;
const retryMs = 1_000;
/** A failing exporter is spoken of once in this time, ms. */
const quietMs = 60_000;

type Batch = { readonly spans: EncodedSpans; count: number };

export class SpanBatch {
  readonly #exporter: SpanExporter;
  readonly #parts: BatchParts;
  /** The last one is being filled; all wait. */
  #waiting: Batch[] = [];
  /** Spans of those that wait. */
  #count = 0;
  #timer: Timer | undefined;
  #sending: Promise<void> | undefined;
  readonly #closing = new AbortController();
  #lost = 0;
  #saidMs = Number.NEGATIVE_INFINITY;

  constructor(exporter: SpanExporter, parts: BatchParts) {
    this.#exporter = exporter;
    this.#parts = parts;
  }

  /** Never waits and never throws. */
  push(span: Span): void {
    const { maxQueue, maxBatch, delayMs } = this.#parts.limits;
    if (this.#count >= maxQueue) return this.#drop(1, "queue", "its queue is full");
    let batch = this.#waiting.at(-1);
    if (batch === undefined || batch.count === maxBatch) {
      batch = { spans: this.#exporter.begin(), count: 0 };
      this.#waiting.push(batch);
    }
    batch.spans.add(span);
    batch.count++;
    this.#count++;
    if (this.#sending !== undefined) return;
    if (batch.count === maxBatch) this.#send();
    else this.#timer ??= this.#parts.clock.setTimeout(() => this.#send(), delayMs);
  }

  /** Delivers what waits, within `graceMs`; what is left then is lost. */
  async close(graceMs: number): Promise<void> {
    this.#closing.abort();
    const limit = new AbortController();
    const late = this.#parts.clock.sleep(graceMs, limit.signal).catch(() => {});
    await Promise.race([this.#empty(), late]);
    limit.abort();
    if (this.#count > 0) this.#drop(this.#count, "export", "the sidecar ends");
    this.#exporter.close();
  }

  async #empty(): Promise<void> {
    await this.#sending;
    if (this.#count > 0) this.#send();
    await this.#sending;
  }

  #send(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#sending = this.#sendAll().finally(() => {
      this.#sending = undefined;
      // Fewer than a batch came meanwhile.
      if (this.#count > 0 && !this.#closing.signal.aborted)
        this.#timer ??= this.#parts.clock.setTimeout(() => this.#send(), this.#parts.limits.delayMs);
    });
  }

  /** The first that waits, and full ones that come meanwhile. */
  async #sendAll(): Promise<void> {
    const { maxBatch } = this.#parts.limits;
    do {
      const batch = this.#waiting.shift();
      if (batch === undefined) return;
      this.#count -= batch.count;
      await this.#deliver(batch);
    } while (this.#waiting[0]?.count === maxBatch || this.#closing.signal.aborted);
  }

  async #deliver({ spans, count }: Batch): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#exporter.export(spans);
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error);
        if (tries === maxTries || this.#closing.signal.aborted) return this.#drop(count, "export", text);
        await this.#parts.clock.sleep(retryMs * 2 ** (tries - 1), this.#closing.signal).catch(() => {});
      }
    }
  }

  #drop(count: number, reason: string, why: string): void {
    const { clock, dropped, warn } = this.#parts;
    dropped(count, this.#exporter.name, reason);
    this.#lost += count;
    if (clock.monotonicMs() - this.#saidMs < quietMs) return;
    this.#saidMs = clock.monotonicMs();
    warn(`${this.#lost} spans for ${this.#exporter.name} are lost: ${why}`);
    this.#lost = 0;
  }
}
